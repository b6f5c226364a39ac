//! Static quantization: a checkpoint's weights as the kernels read them, into a packed model's file.

use code_explainer_engine::{EngineError, Precision};
use code_explainer_weights::packed::PackedWriter;
use code_explainer_weights::{Checkpoint, ModelMemory, PackedModel, WeightsError};

use super::kernels::quantized_weights::LAYOUT;
use super::linear::Linear;
use super::shapes::{MatrixShape, Shapes, runs};
use super::source::{FREQUENCIES, Source};
use std::path::Path;

/// Opens a packed model for this engine's kernels, mapped.
///
/// # Errors
/// See [`PackedModel::open`].
pub fn open_packed(path: &Path) -> Result<PackedModel, WeightsError> {
    open_packed_with(path, ModelMemory::Map)
}

/// The same, held in this way.
///
/// # Errors
/// See [`PackedModel::open`].
pub fn open_packed_with(path: &Path, memory: ModelMemory) -> Result<PackedModel, WeightsError> {
    PackedModel::open(path, LAYOUT, memory)
}

/// How many bytes weights took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PackedSize {
    /// Weights, biases and norms, without padding between sections: what is resident when they are served.
    pub weights: u64,
    /// All files.
    pub files: u64,
}

/// Writes `checkpoint` in 4 or 8 `bits` into the empty `directory`, one matrix in memory at a time; calls `progress` with
/// the blocks that are done.
///
/// # Errors
/// When a tensor cannot be read or quantized, or a file not written, or the engine lacks what the model needs.
///
/// # Panics
/// For another number of bits.
pub fn pack(
    checkpoint: &Checkpoint,
    bits: u32,
    directory: &Path,
    mut progress: impl FnMut(usize),
) -> Result<PackedSize, EngineError> {
    let precision = match bits {
        4 => Precision::Int4,
        8 => Precision::Int8,
        _ => panic!("weights have 4 or 8 bits, not {bits}"),
    };
    let source = Source::from(checkpoint);
    let config = source.config();
    runs(config)?;
    let shapes = Shapes::new(config, precision).expect("the native engine has both");
    let mut out = Packer {
        out: PackedWriter::create(directory, checkpoint, bits, LAYOUT)?,
        source,
        shapes,
        bytes: 0,
    };
    if let Some(embedding) = shapes.embedding() {
        out.matrix(&embedding)?;
    }
    out.matrix(&shapes.head())?;
    if shapes.is_gpt2() {
        let name = "position_embd.weight";
        let table = out
            .source
            .table(name, config.context_length, config.hidden)?;
        out.floats(name, table.as_slice())?;
    }
    out.floats(FREQUENCIES, &out.source.inverse_frequencies()?)?;
    out.norm("output_norm")?;
    for index in 0..config.layers {
        let layer = shapes.layer(index);
        out.norm(&layer.attention_norm)?;
        out.norm(&layer.feed_forward_norm)?;
        for matrix in [&layer.qkv, &layer.attention_out, &layer.up, &layer.down] {
            out.matrix(matrix)?;
        }
        progress(index + 1);
    }
    Ok(PackedSize {
        weights: out.bytes,
        files: out.out.finish()?,
    })
}

struct Packer<'a> {
    out: PackedWriter,
    source: Source<'a>,
    shapes: Shapes<'a>,
    bytes: u64,
}

impl Packer<'_> {
    fn matrix(&mut self, shape: &MatrixShape) -> Result<(), EngineError> {
        let Linear::Quantized(packed) = self.source.matrix(shape)? else {
            unreachable!("all matrices of a quantized model are quantized");
        };
        self.section(&format!("{}.weight", shape.name), packed.packed())?;
        match packed.bias() {
            Some(bias) => self.floats(&format!("{}.bias", shape.name), bias),
            None => Ok(()),
        }
    }

    fn norm(&mut self, name: &str) -> Result<(), EngineError> {
        for name in self.shapes.norm_vectors(name) {
            self.floats(
                &name,
                &self.source.vector(&name, self.shapes.config.hidden)?,
            )?;
        }
        Ok(())
    }

    fn floats(&mut self, name: &str, floats: &[f32]) -> Result<(), EngineError> {
        self.section(name, bytemuck::cast_slice(floats))
    }

    fn section(&mut self, name: &str, bytes: &[u8]) -> Result<(), EngineError> {
        self.bytes += bytes.len() as u64;
        Ok(self.out.section(name, bytes)?)
    }
}
