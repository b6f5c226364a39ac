//! Activations in bytes: groups of 32 along a row, each with its own scale and zero point.
//!
//! `x = scale (u - zero)` with u in 0..=255 and a whole-numbered zero, so that 0 stays 0. A row's bytes depend on that row
//! alone: an answer does not depend on the batch.

use super::dots::{Dots, group_bytes, load_group};
use super::isa::{Isa, dispatch_dots};
use super::lanes::{LANES, Lanes};
use super::matrix::{Matrix, MatrixMut, for_each_row};
use super::{Compute, PARALLEL_ROWS};
use crate::engine::EngineError;
use crate::engine::native::buffer::Buffer;

/// Values that share a scale, in activations and in weights.
pub const GROUP: usize = 32;
/// 32-bit words that describe a group: scale, zero, sum.
pub(super) const WORDS: usize = 3;

/// Room for quantized rows, allocated once. A row is its bytes, padded to whole groups with zeros' bytes and in the form
/// that the instruction set's products take, and then `[groups][scale: f32, zero: i32, sum of the dequantized values:
/// f32]`.
#[derive(Debug)]
pub struct QuantizedRows {
    data: Buffer,
    isa: Isa,
    rows: usize,
    inputs: usize,
}

/// 32-bit words of a quantized row, in whole cache lines.
fn row_words(isa: Isa, inputs: usize) -> usize {
    let groups = inputs.div_ceil(GROUP);
    (groups * (group_bytes(isa) / 4 + WORDS)).next_multiple_of(16)
}

impl QuantizedRows {
    /// Room for `rows` rows of up to `inputs` values, with any instruction set.
    ///
    /// # Errors
    /// When there is not enough memory.
    pub fn new(rows: usize, inputs: usize) -> Result<Self, EngineError> {
        let words = (Isa::supported().into_iter()).map(|isa| row_words(isa, inputs));
        let words = rows * words.max().unwrap_or(0);
        Ok(Self {
            data: Buffer::zeroed(words, "quantized activations")?,
            isa: Isa::detect(),
            rows: 0,
            inputs: 0,
        })
    }

    /// Quantizes the first `inputs` columns of all rows of x in place of what was here.
    ///
    /// # Panics
    /// If x is larger than the room, or its rows shorter than `inputs`.
    pub fn quantize(&mut self, compute: &Compute, x: Matrix<'_>, inputs: usize) {
        assert!(x.stride >= inputs);
        let isa = compute.isa;
        (self.isa, self.rows, self.inputs) = (isa, x.rows, inputs);
        let stride = self.stride();
        let mut out = MatrixMut::new(self.data.as_mut_slice(), x.rows, stride);
        let row = |i: usize, out: &mut [f32]| quantize_row(isa, &x.row(i)[..inputs], out);
        if x.rows < PARALLEL_ROWS {
            (0..x.rows).for_each(|i| row(i, out.row_mut(i)));
        } else {
            for_each_row(&compute.pool, &mut out, row);
        }
    }

    /// How many rows there are.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// How many values a row has.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// The bytes of row `i`, of whole groups, and each group's scale, zero and sum.
    ///
    /// # Panics
    /// If there is no such row.
    pub fn row(&self, i: usize) -> (Vec<u8>, Vec<(f32, i32, f32)>) {
        assert!(i < self.rows);
        let row = &self.words()[i * self.stride()..];
        let groups = self.inputs.div_ceil(GROUP);
        let (bytes, rest) = row.split_at(groups * group_bytes(self.isa) / 4);
        let group = |g: &[f32]| (g[0], g[1].to_bits() as i32, g[2]);
        let words = rest[..groups * WORDS].chunks_exact(WORDS).map(group);
        let bytes = bytemuck::cast_slice(bytes).chunks_exact(group_bytes(self.isa));
        let bytes = bytes.flat_map(|stored| load_group(self.isa, stored));
        (bytes.collect(), words.collect())
    }

    pub(super) fn words(&self) -> &[f32] {
        &self.data.as_slice()[..self.rows * self.stride()]
    }

    /// Words from a row to the next.
    pub(super) fn stride(&self) -> usize {
        row_words(self.isa, self.inputs)
    }

    /// What the rows were quantized for.
    pub(super) fn isa(&self) -> Isa {
        self.isa
    }
}

fn quantize_row(isa: Isa, x: &[f32], out: &mut [f32]) {
    let groups = x.len().div_ceil(GROUP);
    let group_words = group_bytes(isa) / 4;
    let (bytes, words) = out.split_at_mut(groups * group_words);
    assert!(words.len() >= groups * WORDS);
    let (whole, rest) = x.as_chunks::<GROUP>();
    let row = Row {
        x: whole.as_ptr(),
        groups: whole.len(),
        bytes: bytes.as_mut_ptr().cast(),
        words: words.as_mut_ptr(),
    };
    // SAFETY: x has the whole groups; bytes and words have room for as many and one more if there is a rest.
    unsafe { dispatch_dots!(isa, quantize_groups(row: Row)) };
    if !rest.is_empty() {
        let mut last = [0.0; GROUP];
        last[..rest.len()].copy_from_slice(rest);
        let row = Row {
            x: &raw const last,
            groups: 1,
            bytes: bytes[whole.len() * group_words..].as_mut_ptr().cast(),
            words: words[whole.len() * WORDS..].as_mut_ptr(),
        };
        // SAFETY: one group, and room for it.
        unsafe { dispatch_dots!(isa, quantize_groups(row: Row)) };
    }
}

#[derive(Clone, Copy)]
struct Row {
    x: *const [f32; GROUP],
    groups: usize,
    bytes: *mut u8,
    words: *mut f32,
}

/// # Safety
/// `groups` groups at x, as many times [`Dots::GROUP_BYTES`] at `bytes`, as many times [`WORDS`] at `words`.
#[inline(always)]
unsafe fn quantize_groups<D: Dots>(row: Row) {
    let mut first = 0;
    while first < row.groups {
        // What is found for each group is found for sixteen at once: a division takes as long as all else of a group.
        let count = LANES.min(row.groups - first);
        // SAFETY: groups `first..first + count` are inside all three.
        unsafe {
            let zeros = D::Floats::splat(0.0);
            let (mut low, mut high) = ([0.0; LANES], [0.0; LANES]);
            for i in 0..count {
                let x = row.x.add(first + i).cast::<f32>();
                let (a, b) = (D::Floats::load(x), D::Floats::load(x.add(LANES)));
                // 0 is always in the range, so that the zero point is a byte.
                low[i] = D::range(a.min(b).min(zeros)).0;
                high[i] = D::range(a.max(b).max(zeros)).1;
            }
            let (mut scale, mut inverse, mut zero) = ([0.0; LANES], [0.0; LANES], [0.0; LANES]);
            let (l, h) = (
                D::Floats::load(low.as_ptr()),
                D::Floats::load(high.as_ptr()),
            );
            let s = h.sub(l).mul(D::Floats::splat(1.0 / 255.0));
            let i = D::Floats::splat(1.0).div(s);
            s.store(scale.as_mut_ptr());
            i.store(inverse.as_mut_ptr());
            zeros.sub(l).mul(i).round().store(zero.as_mut_ptr());
            for i in 0..count {
                if scale[i] < f32::MIN_POSITIVE {
                    (scale[i], inverse[i], zero[i]) = (0.0, 0.0, 0.0);
                }
                let x = row.x.add(first + i).cast::<f32>();
                let (a, b) = (D::Floats::load(x), D::Floats::load(x.add(LANES)));
                let a = to_bytes(a, inverse[i], zero[i]);
                let b = to_bytes(b, inverse[i], zero[i]);
                D::store_group(a, b, row.bytes.add((first + i) * D::GROUP_BYTES));
                let words = row.words.add((first + i) * WORDS);
                *words = scale[i];
                *words.add(1) = f32::from_bits(zero[i] as u32);
                // Whole numbers below 2^14: exact in any order.
                *words.add(2) = scale[i] * (D::total(a.add(b)) - GROUP as f32 * zero[i]);
            }
        }
        first += count;
    }
}

/// `x inverse + zero` as whole numbers of 0 to 255. A function, not a closure: closures do not have their caller's
/// instructions, and the compiler may leave them as calls.
///
/// # Safety
/// See [`Lanes`].
#[inline(always)]
unsafe fn to_bytes<V: Lanes>(x: V, inverse: f32, zero: f32) -> V {
    // SAFETY: passed on.
    unsafe {
        let shifted = x.mul(V::splat(inverse)).round().add(V::splat(zero));
        shifted.max(V::splat(0.0)).min(V::splat(255.0))
    }
}
