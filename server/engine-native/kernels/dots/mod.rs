//! Sums of products of unsigned and signed bytes, for sixteen columns at once.
//!
//! All sums are exact, so that kernels over [`Dots`] give the same bits with each implementation.

#[cfg(target_arch = "x86_64")]
mod avx2;
mod scalar;
#[cfg(target_arch = "x86_64")]
mod vnni;

#[cfg(target_arch = "x86_64")]
pub(super) use avx2::Avx2;
pub(super) use scalar::Scalar;
#[cfg(target_arch = "x86_64")]
pub(super) use vnni::{VNNI_LOOP_OPERATIONS, Vnni, vnni_loop};

use super::isa::{Isa, Level};
use super::lanes::{LANES, Lanes};
use super::quantized_rows::GROUP;
use super::quantized_weights::STRIP;

/// Sixteen 32-bit sums, one for each of 16 columns.
///
/// A *meta word* belongs to a column and a group of weights: in its low half the negated sum of the group's weights
/// (i16), in its high half their scale (f16).
///
/// # Safety
/// Methods may only run where the implementor's instructions are there, inlined into a function that enables them.
/// Pointers must be valid for what is said to lie there; they need no alignment.
pub(super) trait Dots: Copy {
    /// Sixteen floats of the same instruction set.
    type Floats: Lanes;
    /// Rows of the largest tile whose sums stay in registers, with weights in 8 and in 4 bits. At most 6.
    const TILE_ROWS: [usize; 2];
    /// Whether tiles of more than one row are 32 columns wide (16 otherwise).
    const WIDE: bool;
    /// Bytes that the activations of a group take in the form in which [`group`](Self::group) reads them: a multiple
    /// of 4.
    const GROUP_BYTES: usize;

    /// Stores 32 lanes that are whole numbers of up to 255 as a group's activations: [`GROUP_BYTES`](Self::GROUP_BYTES).
    unsafe fn store_group(a: Self::Floats, b: Self::Floats, p: *mut u8);
    /// The activations that [`store_group`](Self::store_group) stored.
    fn load_group(stored: &[u8]) -> [u8; GROUP];
    /// The sums over one group of `weight (activation - zero)` for R rows and C times 16 columns of a strip.
    unsafe fn group<const FOUR: bool, const R: usize, const C: usize>(
        operands: Operands,
    ) -> [[Self; C]; R];
    /// The high halves of the 16 meta words at `p`.
    unsafe fn scales(p: *const u32) -> Self::Floats;
    /// 16 f16.
    unsafe fn halves(p: *const u16) -> Self::Floats;
    /// The sums; exact below 2^24.
    unsafe fn to_floats(self) -> Self::Floats;
    /// The smallest lane of each of 16.
    unsafe fn lowest(of: &[Self::Floats; LANES]) -> Self::Floats;
    /// The largest lane of each of 16.
    unsafe fn highest(of: &[Self::Floats; LANES]) -> Self::Floats;
    /// The sum of the lanes of each of 16, in any order.
    unsafe fn totals(of: &[Self::Floats; LANES]) -> Self::Floats;
}

/// [`Dots::GROUP_BYTES`] of an instruction set.
pub(super) fn group_bytes(isa: Isa) -> usize {
    match isa.0 {
        #[cfg(target_arch = "x86_64")]
        Level::Avx512Vnni => Vnni::GROUP_BYTES,
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 | Level::Avx2 => Avx2::GROUP_BYTES,
        Level::Portable => Scalar::GROUP_BYTES,
    }
}

/// [`Dots::load_group`] of an instruction set.
pub(super) fn load_group(isa: Isa, stored: &[u8]) -> [u8; GROUP] {
    match isa.0 {
        #[cfg(target_arch = "x86_64")]
        Level::Avx512Vnni => Vnni::load_group(stored),
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 | Level::Avx2 => Avx2::load_group(stored),
        Level::Portable => Scalar::load_group(stored),
    }
}

/// What [`Dots::group`] multiplies.
#[derive(Clone, Copy)]
pub(super) struct Operands {
    /// The group's activations in the first row: [`Dots::GROUP_BYTES`].
    pub(super) bytes: *const u8,
    /// The group's zero point in the first row: 0 to 255.
    pub(super) zero: *const i32,
    /// Bytes from a row to the next.
    pub(super) row_bytes: usize,
    /// The first column's weights: `[k/4][STRIP][4]`, the second 16 of k in the high nibbles where they have 4 bits.
    pub(super) weights: *const u8,
    /// The columns' meta words.
    pub(super) metas: *const u32,
}

impl Operands {
    /// Where the group's activations of row `row` lie.
    #[inline(always)]
    unsafe fn bytes(&self, row: usize) -> *const u8 {
        // SAFETY: the row is one of the tile's.
        unsafe { self.bytes.add(row.wrapping_mul(self.row_bytes)) }
    }

    /// The group's zero point in row `row`.
    #[inline(always)]
    unsafe fn zero(&self, row: usize) -> i32 {
        // SAFETY: the row is one of the tile's.
        unsafe { (self.zero.byte_add(row.wrapping_mul(self.row_bytes))).read_unaligned() }
    }

    /// The weights of 16 columns and four inputs (eight in 4 bits).
    #[inline(always)]
    unsafe fn weights(&self, step: usize, column: usize) -> *const u8 {
        // SAFETY: the step is inside the group, the column inside the strip.
        unsafe { self.weights.add((step * STRIP + column * LANES) * 4) }
    }
}

/// Multiplication in steps of four inputs.
///
/// # Safety
/// As [`Dots`].
trait ByFours: Dots {
    /// Four weights (i8) of each of 16 columns.
    type Weights: Copy;
    /// Four activations (u8), the same ones for every column.
    type Activations: Copy;

    /// `zero` (0 to 255) times the low halves of the 16 meta words at `p`.
    unsafe fn corrections(p: *const u32, zero: i32) -> Self;
    /// 64 bytes: `[column][4]`.
    unsafe fn weights(p: *const u8) -> Self::Weights;
    /// The low and the high nibbles of 64 bytes, each 0 to 15.
    unsafe fn nibbles(p: *const u8) -> [Self::Weights; 2];
    /// 4 bytes.
    unsafe fn activations(p: *const u8) -> Self::Activations;
    /// Adds each column's product with the activations.
    unsafe fn add_products(self, a: Self::Activations, w: Self::Weights) -> Self;
}

/// [`Dots::group`] over activations that are stored as they are.
///
/// # Safety
/// See there.
#[inline(always)]
unsafe fn group_by_fours<D: ByFours, const FOUR: bool, const R: usize, const C: usize>(
    operands: Operands,
) -> [[D; C]; R] {
    // SAFETY: rows below R, columns below C, and as many steps as a group has.
    unsafe {
        let mut dots = [[D::corrections(operands.metas, 0); C]; R];
        for r in 0..R {
            let zero = operands.zero(r);
            for c in 0..C {
                dots[r][c] = D::corrections(operands.metas.add(c * LANES), zero);
            }
        }
        for step in 0..if FOUR { 4 } else { 8 } {
            if FOUR {
                let mut b = [D::nibbles(operands.weights(step, 0)); C];
                for c in 1..C {
                    b[c] = D::nibbles(operands.weights(step, c));
                }
                for r in 0..R {
                    let low = D::activations(operands.bytes(r).add(step * 4));
                    let high = D::activations(operands.bytes(r).add(step * 4 + GROUP / 2));
                    for c in 0..C {
                        dots[r][c] = dots[r][c].add_products(low, b[c][0]);
                        dots[r][c] = dots[r][c].add_products(high, b[c][1]);
                    }
                }
            } else {
                let mut b = [D::weights(operands.weights(step, 0)); C];
                for c in 1..C {
                    b[c] = D::weights(operands.weights(step, c));
                }
                for r in 0..R {
                    let a = D::activations(operands.bytes(r).add(step * 4));
                    for c in 0..C {
                        dots[r][c] = dots[r][c].add_products(a, b[c]);
                    }
                }
            }
        }
        dots
    }
}
