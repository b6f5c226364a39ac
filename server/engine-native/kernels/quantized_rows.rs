//! Activations in bytes: groups of 32 along a row, each with its own scale and zero point.
//!
//! `x = scale (u - zero)` with u in 0..=255 and a whole-numbered zero, so that 0 stays 0. A row's bytes depend on that row
//! alone: an answer does not depend on the batch.

use std::marker::PhantomData;
use std::ops::Range;

use code_explainer_engine::EngineError;

use super::dots::{Dots, group_bytes, load_group};
use super::isa::{Isa, dispatch_dots};
use super::lanes::{LANES, Lanes};
use super::matrix::Matrix;
use super::{Compute, for_rows};
use crate::buffer::Buffer;

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
        let out = self.begin(compute.isa, x.rows, inputs);
        for_rows(compute, x.rows, |rows, _| {
            let first = &x.data[rows.start * x.stride..rows.end * x.stride];
            // SAFETY: the rows are there, and each is in one task.
            unsafe { out.quantize_rows(rows, first, x.stride) };
        });
    }

    /// Makes room for other rows, for these instructions, in place of what was here.
    ///
    /// # Panics
    /// If there is less room.
    pub(super) fn begin(&mut self, isa: Isa, rows: usize, inputs: usize) -> Groups<'_> {
        (self.isa, self.rows, self.inputs) = (isa, rows, inputs);
        let stride = self.stride();
        Groups {
            isa,
            rows,
            inputs,
            stride,
            first: self.data.as_mut_slice()[..rows * stride].as_mut_ptr(),
            room: PhantomData,
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

/// Rows that several threads quantize, each some groups of some of them.
#[derive(Debug)]
pub(super) struct Groups<'a> {
    isa: Isa,
    rows: usize,
    inputs: usize,
    stride: usize,
    first: *mut f32,
    room: PhantomData<&'a mut [f32]>,
}

// SAFETY: this is a `&mut [f32]` whose parts go to several threads, through methods whose contract is that no two parts in
// use overlap.
unsafe impl Sync for Groups<'_> {}

impl Groups<'_> {
    /// Quantizes some groups of some rows: the first one's values lie at `x`, those of the next row `x_stride` further.
    ///
    /// # Panics
    /// If there are no such rows or groups.
    ///
    /// # Safety
    /// The values are there; nobody else uses these groups of these rows.
    pub(super) unsafe fn quantize(
        &self,
        rows: Range<usize>,
        groups: Range<usize>,
        x: *const f32,
        x_stride: usize,
    ) {
        let count = self.inputs.div_ceil(GROUP);
        assert!(rows.start <= rows.end && rows.end <= self.rows);
        assert!(groups.start <= groups.end && groups.end <= count);
        let (isa, bytes) = (self.isa, group_bytes(self.isa));
        let row = self.first.wrapping_add(rows.start * self.stride);
        let grid = Grid {
            x,
            x_stride,
            rows: rows.len(),
            groups: groups.len(),
            bytes: row.cast::<u8>().wrapping_add(groups.start * bytes),
            words: row.wrapping_add(count * bytes / 4 + groups.start * WORDS),
            stride: self.stride,
        };
        // SAFETY: passed on; a row has room for the bytes and words of all groups.
        unsafe { dispatch_dots!(isa, quantize_grid(grid: Grid)) };
    }

    /// Quantizes rows of x, `stride` apart, the last group filled up with zeros.
    ///
    /// # Panics
    /// If there are no such rows, or x has fewer.
    ///
    /// # Safety
    /// Nobody else uses these rows.
    pub(super) unsafe fn quantize_rows(&self, rows: Range<usize>, x: &[f32], stride: usize) {
        assert!(stride >= self.inputs && x.len() >= rows.len() * stride);
        let whole = self.inputs / GROUP;
        // SAFETY: passed on; so many values are in each row.
        unsafe { self.quantize(rows.clone(), 0..whole, x.as_ptr(), stride) };
        if self.inputs.is_multiple_of(GROUP) {
            return;
        }
        for (x, row) in x.chunks(stride).zip(rows) {
            let mut last = [0.0; GROUP];
            let rest = &x[whole * GROUP..self.inputs];
            last[..rest.len()].copy_from_slice(rest);
            // SAFETY: passed on.
            unsafe { self.quantize(row..row + 1, whole..whole + 1, last.as_ptr(), GROUP) };
        }
    }
}

/// Groups of several rows.
#[derive(Clone, Copy)]
struct Grid {
    x: *const f32,
    x_stride: usize,
    rows: usize,
    groups: usize,
    bytes: *mut u8,
    words: *mut f32,
    stride: usize,
}

/// # Safety
/// `groups` groups in each of `rows` rows at x, as many times [`Dots::GROUP_BYTES`] at `bytes`, and [`WORDS`] at `words`.
#[inline(always)]
unsafe fn quantize_grid<D: Dots>(grid: Grid) {
    let (mut row, mut group) = (0, 0);
    let mut left = grid.rows * grid.groups;
    while left > 0 {
        // What takes long for one group, a sum over lanes and a division, is done for sixteen at once.
        let count = LANES.min(left);
        let mut places = [Place::NONE; LANES];
        for place in &mut places[..count] {
            let (words, x) = (row * grid.stride, row * grid.x_stride + group * GROUP);
            *place = Place {
                x: grid.x.wrapping_add(x),
                bytes: (grid.bytes).wrapping_add(words * 4 + group * D::GROUP_BYTES),
                words: grid.words.wrapping_add(words + group * WORDS),
            };
            group += 1;
            if group == grid.groups {
                (row, group) = (row + 1, 0);
            }
        }
        // SAFETY: these are groups of the grid.
        unsafe { quantize_groups::<D>(&places[..count]) };
        left -= count;
    }
}

/// Where a group's values lie and where it goes.
#[derive(Clone, Copy)]
struct Place {
    x: *const f32,
    bytes: *mut u8,
    words: *mut f32,
}

impl Place {
    const NONE: Self = Self {
        x: std::ptr::null(),
        bytes: std::ptr::null_mut(),
        words: std::ptr::null_mut(),
    };
}

/// # Safety
/// Up to 16 places, each with a group at x, [`Dots::GROUP_BYTES`] at `bytes`, [`WORDS`] at `words`.
#[inline(always)]
unsafe fn quantize_groups<D: Dots>(places: &[Place]) {
    // SAFETY: passed on; what lies in the lanes behind the last place is not used.
    unsafe {
        let zeros = D::Floats::splat(0.0);
        let (mut low, mut high) = ([zeros; LANES], [zeros; LANES]);
        for (i, place) in places.iter().enumerate() {
            let (a, b) = (
                D::Floats::load(place.x),
                D::Floats::load(place.x.add(LANES)),
            );
            (low[i], high[i]) = (a.min(b), a.max(b));
        }
        // 0 is always in the range, so that the zero point is a byte.
        let low = D::lowest(&low).min(zeros);
        let high = D::highest(&high).max(zeros);
        let step = high.sub(low).mul(D::Floats::splat(1.0 / 255.0));
        let inverse = D::Floats::splat(1.0).div(step);
        let zero = zeros.sub(low).mul(inverse).round();
        // A range that is next to nothing is nothing.
        let least = D::Floats::splat(f32::MIN_POSITIVE);
        let step = step.if_less(least, zeros, step);
        let zero = step.if_less(least, zeros, zero);
        let inverse = step.if_less(least, zeros, inverse);
        let (mut steps, mut inverses, mut zero_points) = ([0.0; LANES], [0.0; LANES], [0.0; LANES]);
        step.store(steps.as_mut_ptr());
        inverse.store(inverses.as_mut_ptr());
        zero.store(zero_points.as_mut_ptr());
        let mut bytes = [zeros; LANES];
        for (i, place) in places.iter().enumerate() {
            let (a, b) = (
                D::Floats::load(place.x),
                D::Floats::load(place.x.add(LANES)),
            );
            let a = to_bytes(a, inverses[i], zero_points[i]);
            let b = to_bytes(b, inverses[i], zero_points[i]);
            D::store_group(a, b, place.bytes);
            bytes[i] = a.add(b);
        }
        // Whole numbers below 2^14: exact in any order.
        let total = D::totals(&bytes).sub(zero.mul(D::Floats::splat(GROUP as f32)));
        let mut totals = [0.0; LANES];
        step.mul(total).store(totals.as_mut_ptr());
        for (i, place) in places.iter().enumerate() {
            *place.words = steps[i];
            *place.words.add(1) = f32::from_bits(zero_points[i] as u32);
            *place.words.add(2) = totals[i];
        }
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
