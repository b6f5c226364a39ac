//! Where a model's matrices and vectors come from: a checkpoint, whose weights are packed now, or a packed file, which is
//! mapped.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

use code_explainer_engine::{EngineError, Precision};
use code_explainer_weights::packed::Section;
use code_explainer_weights::{Checkpoint, ModelConfig, PackedError, PackedModel, TensorView};

use super::buffer::{Buffer, Weights};
use super::kernels::gemm::PackedF32;
use super::kernels::quantized_weights::{Bits, PackedQuantized};
use super::linear::Linear;
use super::quantize::quantize_rows;
use super::shapes::{MatrixShape, Part};

/// The rotary inverse frequencies in a packed file.
pub(super) const FREQUENCIES: &str = "rope.inverse_frequencies";

/// A model's files, whichever kind.
#[derive(Debug)]
pub enum Source<'a> {
    /// A GGUF file or a Hugging Face directory.
    Checkpoint(&'a Checkpoint),
    /// A packed model, and how many of its sections were read.
    Packed(&'a PackedModel, AtomicUsize),
}

impl<'a> From<&'a Checkpoint> for Source<'a> {
    fn from(checkpoint: &'a Checkpoint) -> Self {
        Self::Checkpoint(checkpoint)
    }
}

impl<'a> From<&'a PackedModel> for Source<'a> {
    fn from(packed: &'a PackedModel) -> Self {
        Self::Packed(packed, AtomicUsize::new(0))
    }
}

impl<'a> Source<'a> {
    /// Architecture and sizes.
    pub fn config(&self) -> &'a ModelConfig {
        match self {
            Self::Checkpoint(checkpoint) => checkpoint.config(),
            Self::Packed(packed, _) => packed.config(),
        }
    }

    /// The model's name.
    pub fn name(&self) -> &'a str {
        match self {
            Self::Checkpoint(checkpoint) => checkpoint.name(),
            Self::Packed(packed, _) => packed.name(),
        }
    }

    /// Number of parameters.
    pub fn parameters(&self) -> u64 {
        match self {
            Self::Checkpoint(checkpoint) => checkpoint.parameters(),
            Self::Packed(packed, _) => packed.parameters(),
        }
    }

    /// The precision that the weights get: as asked for, or as they were packed.
    ///
    /// # Errors
    /// When they were packed in another than asked for.
    pub fn precision(&self, asked: Option<Precision>) -> Result<Precision, EngineError> {
        let Self::Packed(packed, _) = self else {
            return Ok(asked.unwrap_or(Precision::Fp32));
        };
        let has = match packed.bits() {
            4 => Precision::Int4,
            _ => Precision::Int8,
        };
        match asked.filter(|&asked| asked != has) {
            None => Ok(has),
            Some(asked) => Err(EngineError::Weights(packed.wrong(PackedError::Precision {
                has: has.to_string(),
                asked: asked.to_string(),
            }))),
        }
    }

    /// A matrix.
    ///
    /// # Errors
    /// When it cannot be read, quantized or stored, or a section does not have the size of its shape.
    pub fn matrix(&self, shape: &MatrixShape) -> Result<Linear, EngineError> {
        let outputs: Vec<usize> = shape.parts.iter().map(|part| part.rows).collect();
        match (self, shape.bits) {
            (Self::Checkpoint(from), None) => pack_f32(from, shape, &outputs),
            (Self::Checkpoint(from), Some(bits)) => pack_quantized(from, shape, bits, &outputs),
            (Self::Packed(packed, _), bits) => {
                let name = format!("{}.weight", shape.name);
                let weights = self.section(packed, &name)?;
                let found = weights.bytes().len();
                let bias = format!("{}.bias", shape.name);
                let bias = match packed.section(&bias) {
                    None => None,
                    Some(_) => Some(self.floats(packed, &bias, None)?),
                };
                let mapped = bits.and_then(|bits| {
                    PackedQuantized::mapped(bits, shape.inputs, &outputs, weights, bias)
                });
                mapped.map(Linear::Quantized).ok_or_else(|| {
                    let (bits, rows) = (packed.bits(), outputs.iter().sum::<usize>());
                    wrong_size(
                        packed,
                        &name,
                        found,
                        format!("{rows} x {} weights in int{bits}", shape.inputs),
                    )
                })
            }
        }
    }

    /// A vector of `len` floats, such as a norm's weight.
    ///
    /// # Errors
    /// When it cannot be read or has another length.
    pub fn vector(&self, name: &str, len: usize) -> Result<Vec<f32>, EngineError> {
        match self {
            Self::Checkpoint(checkpoint) => Ok(checkpoint.tensor(name)?.to_f32()),
            Self::Packed(packed, _) => self.floats(packed, name, Some(len)),
        }
    }

    /// A table of `[rows][columns]` floats.
    ///
    /// # Errors
    /// When it cannot be read or stored, or has another size.
    pub fn table(&self, name: &str, rows: usize, columns: usize) -> Result<Weights, EngineError> {
        match self {
            Self::Checkpoint(checkpoint) => {
                let tensor = checkpoint.tensor(name)?;
                let mut table = Buffer::zeroed(tensor.len(), name)?;
                tensor.write_f32(table.as_mut_slice());
                Ok(Weights::Owned(table))
            }
            Self::Packed(packed, _) => {
                let section = self.section(packed, name)?;
                let found = section.bytes().len();
                match found == rows * columns * size_of::<f32>() {
                    true => Ok(Weights::Mapped(section)),
                    false => Err(wrong_size(
                        packed,
                        name,
                        found,
                        format!("{rows} x {columns} floats"),
                    )),
                }
            }
        }
    }

    /// The rotary inverse frequencies `[rotary_dim / 2]`; empty for GPT-2.
    ///
    /// # Errors
    /// When a section has another size.
    pub fn inverse_frequencies(&self) -> Result<Vec<f32>, EngineError> {
        match self {
            Self::Checkpoint(checkpoint) => Ok(checkpoint.inverse_frequencies()),
            Self::Packed(packed, _) => {
                self.floats(packed, FREQUENCIES, Some(packed.config().rotary_dim / 2))
            }
        }
    }

    /// That a packed file has no more than was read of it: otherwise it is another model than it says.
    ///
    /// # Errors
    /// When it has.
    pub fn finish(&self) -> Result<(), EngineError> {
        match self {
            Self::Packed(packed, read) if read.load(Ordering::Relaxed) != packed.sections() => Err(
                EngineError::Weights(packed.wrong(PackedError::ExtraSections {
                    found: packed.sections(),
                    expected: read.load(Ordering::Relaxed),
                })),
            ),
            _ => Ok(()),
        }
    }

    fn section(&self, packed: &PackedModel, name: &str) -> Result<Section, EngineError> {
        if let Self::Packed(_, read) = self {
            read.fetch_add(1, Ordering::Relaxed);
        }
        packed.section(name).ok_or_else(|| {
            EngineError::Weights(packed.wrong(PackedError::MissingSection {
                section: name.to_owned(),
            }))
        })
    }

    fn floats(
        &self,
        packed: &PackedModel,
        name: &str,
        len: Option<usize>,
    ) -> Result<Vec<f32>, EngineError> {
        let section = self.section(packed, name)?;
        let (floats, rest) = section.bytes().as_chunks::<4>();
        if !rest.is_empty() || len.is_some_and(|len| floats.len() != len) {
            let expected = len.map_or("whole floats".to_owned(), |len| format!("{len} floats"));
            return Err(wrong_size(packed, name, section.bytes().len(), expected));
        }
        Ok(floats
            .iter()
            .map(|&bytes| f32::from_ne_bytes(bytes))
            .collect())
    }
}

fn wrong_size(packed: &PackedModel, name: &str, found: usize, expected: String) -> EngineError {
    EngineError::Weights(packed.wrong(PackedError::Size {
        section: name.to_owned(),
        found,
        expected,
    }))
}

fn tensors<'a>(
    from: &'a Checkpoint,
    shape: &MatrixShape,
) -> Result<Vec<TensorView<'a>>, EngineError> {
    let tensor = |part: &Part| Ok(from.tensor(&format!("{}.weight", part.name))?);
    shape.parts.iter().map(tensor).collect()
}

fn pack_f32(
    from: &Checkpoint,
    shape: &MatrixShape,
    outputs: &[usize],
) -> Result<Linear, EngineError> {
    let (tensors, parts) = (tensors(from, shape)?, &shape.parts);
    let packed = PackedF32::pack(shape.inputs, outputs, "weights", |part, rows, out| {
        let first = parts[part].first;
        tensors[part].rows_to_f32(first + rows.start..first + rows.end, out);
    })?;
    Ok(Linear::F32(match biases(from, parts)? {
        Some(biases) => packed.with_bias(&biases),
        None => packed,
    }))
}

fn pack_quantized(
    from: &Checkpoint,
    shape: &MatrixShape,
    bits: Bits,
    outputs: &[usize],
) -> Result<Linear, EngineError> {
    let (tensors, parts) = (tensors(from, shape)?, &shape.parts);
    let rows = |part: usize, rows: Range<usize>, out: &mut [_]| {
        let first = parts[part].first;
        quantize_rows(
            bits,
            &tensors[part],
            first + rows.start..first + rows.end,
            out,
        )
    };
    let packed = PackedQuantized::pack(bits, shape.inputs, outputs, "weights", rows)?;
    Ok(Linear::Quantized(match biases(from, parts)? {
        Some(biases) => packed.with_bias(&biases),
        None => packed,
    }))
}

/// The parts' biases, with zeros for parts that have none; `None` if no part has one.
fn biases(from: &Checkpoint, parts: &[Part]) -> Result<Option<Vec<Vec<f32>>>, EngineError> {
    let name = |part: &Part| format!("{}.bias", part.name);
    if !parts.iter().any(|p| from.has_tensor(&name(p))) {
        return Ok(None);
    }
    let bias = |part: &Part| {
        let name = name(part);
        if !from.has_tensor(&name) {
            return Ok(vec![0.0; part.rows]);
        }
        let all = from.tensor(&name)?.to_f32();
        Ok(all[part.first..][..part.rows].to_vec())
    };
    parts.iter().map(bias).collect::<Result<_, _>>().map(Some)
}
