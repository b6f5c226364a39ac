//! Weights in 8 or 4 bits, in groups of 32 along k, packed in the order in which [`quantized_gemm`] reads them.
//!
//! A weight is `scale q` (8 bits: q in -128..=127) or `scale q + min` (4 bits: q in 0..=15).
//!
//! The weights of 32 columns (a *strip*) and 32 inputs lie together: 8 bits as `[k/4][32][4]`, 4 bits as
//! `[k/4 below 4][32][4]` with the second 16 inputs in the high nibbles; then the columns' meta words (see `dots`); in 4
//! bits then their minimums.
//!
//! [`quantized_gemm`]: super::quantized_gemm

use std::ops::Range;

use code_explainer_engine::EngineError;
use code_explainer_weights::packed::Section;
use half::f16;
use rayon::prelude::*;

use super::panels::{PANEL, pad_bias, padded_outputs, panels};
use super::quantized_rows::GROUP;
use crate::buffer::{Buffer, Weights};

/// Version of the order described above, with that of `panels`. Packed files have it: whoever changes what
/// [`PackedQuantized::pack`] writes, by a bit, gives it a new number.
pub const LAYOUT: u32 = 1;

/// Columns whose weights lie together.
pub(super) const STRIP: usize = 32;

/// How many bits a weight has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bits {
    /// Signed, with a scale for each group.
    Eight,
    /// Unsigned, with a scale and a minimum for each group.
    Four,
}

impl Bits {
    /// Bytes of the weights of a strip and a group.
    pub(super) const fn weights(self) -> usize {
        match self {
            Self::Eight => STRIP * GROUP,
            Self::Four => STRIP * GROUP / 2,
        }
    }

    /// Bytes of a strip and a group with all that belongs to them: whole cache lines.
    pub(super) const fn block(self) -> usize {
        match self {
            Self::Eight => self.weights() + STRIP * 4,
            Self::Four => self.weights() + STRIP * (4 + 2),
        }
    }
}

/// 32 weights of one output: `scale q + min`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Group {
    /// Factor.
    pub scale: f16,
    /// Added to each; 0 in 8 bits.
    pub min: f16,
    /// In 4 bits 0 to 15.
    pub q: [i8; GROUP],
}

impl Group {
    /// 32 zeros.
    pub const ZERO: Self = Self {
        scale: f16::ZERO,
        min: f16::ZERO,
        q: [0; GROUP],
    };
}

/// Linear weights in 8 or 4 bits.
///
/// The outputs of one or several parts (query, key, value; gate, up) lie one after the other, each part padded with
/// zeros to whole panels.
#[derive(Debug)]
pub struct PackedQuantized {
    weights: Weights,
    pub(super) bits: Bits,
    pub(super) bias: Option<Vec<f32>>,
    pub(super) inputs: usize,
    pub(super) groups: usize,
    pub(super) panels: usize,
}

impl PackedQuantized {
    /// Packs the parts of `outputs` rows each, over `inputs` columns (the last group filled up with zeros).
    /// `rows(part, range, out)` gives the groups of rows of a part, `[range.len()][groups]`; it is called from several
    /// threads, for up to 64 rows at a time.
    ///
    /// # Errors
    /// When there is not enough memory for `what`, and those of `rows`.
    pub fn pack(
        bits: Bits,
        inputs: usize,
        outputs: &[usize],
        what: &str,
        rows: impl Fn(usize, Range<usize>, &mut [Group]) -> Result<(), EngineError> + Sync,
    ) -> Result<Self, EngineError> {
        let (panels, groups) = (panels(outputs), inputs.div_ceil(GROUP));
        let panel_bytes = panel_bytes(bits, groups);
        let mut weights = Buffer::zeroed(panels.len() * panel_bytes / 4, what)?;
        (weights.as_mut_slice().par_chunks_mut(panel_bytes / 4))
            .zip(&panels)
            .try_for_each_init(
                || vec![Group::ZERO; PANEL * groups],
                |unpacked, (panel, (part, range))| {
                    let unpacked = &mut unpacked[..range.len() * groups];
                    rows(*part, range.clone(), unpacked)?;
                    let panel: &mut [u8] = bytemuck::cast_slice_mut(panel);
                    for (column, row) in unpacked.chunks_exact(groups).enumerate() {
                        let strip = &mut panel[column / STRIP * groups * bits.block()..];
                        for (block, group) in strip.chunks_exact_mut(bits.block()).zip(row) {
                            put(bits, block, column % STRIP, group);
                        }
                    }
                    Ok::<_, EngineError>(())
                },
            )?;
        Ok(Self {
            weights: Weights::Owned(weights),
            bits,
            bias: None,
            inputs,
            groups,
            panels: panels.len(),
        })
    }

    /// What [`pack`](Self::pack) made of the same shape, in a file, as [`packed`](Self::packed) gave it; and its biases, as
    /// [`bias`](Self::bias) gave them. `None` if it has another size than `pack` makes, or they are another number.
    pub fn mapped(
        bits: Bits,
        inputs: usize,
        outputs: &[usize],
        weights: Section,
        bias: Option<Vec<f32>>,
    ) -> Option<Self> {
        let groups = inputs.div_ceil(GROUP);
        let padded = padded_outputs(outputs);
        let (panels, length) = (padded / PANEL, weights.bytes().len());
        // Divided, not multiplied: the shape comes from a file, and its product could overflow.
        let panel_bytes = panel_bytes(bits, groups);
        let fits = length.is_multiple_of(panel_bytes) && length / panel_bytes == panels;
        let bias_fits = bias.as_ref().is_none_or(|bias| bias.len() == padded);
        (fits && bias_fits).then_some(Self {
            weights: Weights::Mapped(weights),
            bits,
            bias,
            inputs,
            groups,
            panels,
        })
    }

    /// Adds biases: those of the parts, one after the other, as [`pack`](Self::pack) got them.
    ///
    /// # Panics
    /// If they are not as many as there are outputs with padding.
    pub fn with_bias(mut self, parts: &[Vec<f32>]) -> Self {
        let bias = pad_bias(parts);
        assert_eq!(bias.len(), self.padded_outputs());
        self.bias = Some(bias);
        self
    }

    /// Row `row` of the matrix, dequantized: the embedding of a token out of a tied head.
    ///
    /// # Panics
    /// If there is no such row or `out` is shorter than it.
    pub fn unpack_row(&self, row: usize, out: &mut [f32]) {
        let block = self.bits.block();
        let strip = &self.packed()[row / STRIP * self.groups * block..][..self.groups * block];
        let out = out[..self.inputs].chunks_mut(GROUP);
        for (out, block) in out.zip(strip.chunks_exact(block)) {
            let group = get(self.bits, block, row % STRIP);
            let (scale, min) = (group.scale.to_f32(), group.min.to_f32());
            for (x, q) in out.iter_mut().zip(group.q) {
                *x = scale * f32::from(q) + min;
            }
        }
    }

    /// Where a strip begins.
    pub(super) fn strip(&self, strip: usize) -> *const u8 {
        let bytes = self.groups * self.bits.block();
        self.packed().as_ptr().wrapping_add(strip * bytes)
    }

    /// Inputs (k).
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// Outputs with padding: the stride that `y` needs.
    pub fn padded_outputs(&self) -> usize {
        self.panels * PANEL
    }

    /// Bytes of weights, scales, minimums and biases.
    pub fn bytes(&self) -> u64 {
        self.weights.bytes() + self.bias.as_ref().map_or(0, |b| 4 * b.len() as u64)
    }

    /// The biases with zeros between parts.
    pub fn bias(&self) -> Option<&[f32]> {
        self.bias.as_deref()
    }

    /// The panels one after the other; see the module.
    pub fn packed(&self) -> &[u8] {
        bytemuck::cast_slice(self.weights.as_slice())
    }
}

fn panel_bytes(bits: Bits, groups: usize) -> usize {
    groups * bits.block() * (PANEL / STRIP)
}

/// Where input `k` of a group's column lies in a block of bytes, four inputs to a column.
fn place(k: usize, column: usize) -> usize {
    (k / 4 * STRIP + column) * 4 + k % 4
}

fn put(bits: Bits, block: &mut [u8], column: usize, group: &Group) {
    let (weights, rest) = block.split_at_mut(bits.weights());
    let (low, high) = group.q.split_at(GROUP / 2);
    let fours = match bits {
        Bits::Eight => group.q.map(|q| q as u8),
        Bits::Four => std::array::from_fn(|k| match (low.get(k), high.get(k)) {
            (Some(low), Some(high)) => low & 15 | high << 4,
            _ => 0,
        } as u8),
    };
    let steps = weights.chunks_exact_mut(STRIP * 4);
    for (step, four) in steps.zip(fours.as_chunks::<4>().0) {
        step[column * 4..][..4].copy_from_slice(four);
    }
    let sum: i16 = group.q.iter().map(|&q| i16::from(q)).sum();
    let (metas, minimums) = rest.split_at_mut(STRIP * 4);
    metas[column * 4..][..2].copy_from_slice(&(-sum).to_ne_bytes());
    metas[column * 4 + 2..][..2].copy_from_slice(&group.scale.to_ne_bytes());
    if bits == Bits::Four {
        minimums[column * 2..][..2].copy_from_slice(&group.min.to_ne_bytes());
    }
}

fn get(bits: Bits, block: &[u8], column: usize) -> Group {
    let (weights, rest) = block.split_at(bits.weights());
    let half = |at: usize| f16::from_ne_bytes([rest[at], rest[at + 1]]);
    Group {
        q: std::array::from_fn(|k| match bits {
            Bits::Eight => weights[place(k, column)] as i8,
            Bits::Four => (weights[place(k % 16, column)] >> (4 * (k / 16)) & 15) as i8,
        }),
        scale: half(column * 4 + 2),
        min: match bits {
            Bits::Eight => f16::ZERO,
            Bits::Four => half(STRIP * 4 + column * 2),
        },
    }
}
