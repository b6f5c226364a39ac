//! Sixteen f32 lanes, in one AVX-512 register, in two AVX2 ones, or in an array.
//!
//! Every operation is correctly rounded on its own (IEEE 754) and never contracted or reassociated, so a kernel written
//! over [`Lanes`] gives the same bits with each of the three.

mod array;
#[cfg(target_arch = "x86_64")]
mod ymm;
#[cfg(target_arch = "x86_64")]
mod zmm;

pub(super) use array::Array;
#[cfg(target_arch = "x86_64")]
pub(super) use ymm::Ymm2;
#[cfg(target_arch = "x86_64")]
pub(super) use zmm::Zmm;

/// Lanes in a [`Lanes`] value.
pub(super) const LANES: usize = 16;

/// Sixteen f32 lanes.
///
/// # Safety
/// Methods may only run where the implementor's instructions are there, inlined into a function that enables them.
/// Pointers must be valid for 16 floats; they need no alignment.
pub(super) trait Lanes: Copy {
    /// Whether 24 accumulators of 16 lanes stay in registers (6 otherwise).
    const WIDE: bool;
    /// Queries that attention takes at once, at most 6.
    const TILE: usize;

    unsafe fn splat(x: f32) -> Self;
    unsafe fn load(p: *const f32) -> Self;
    unsafe fn store(self, p: *mut f32);
    /// Sixteen bfloat16 numbers, by their bits.
    unsafe fn load_bf16(p: *const u16) -> Self;
    /// Sixteen IEEE halves, by their bits.
    unsafe fn load_f16(p: *const u16) -> Self;
    /// Sixteen integers.
    unsafe fn load_i8(p: *const i8) -> Self;
    /// Stores IEEE halves, each the nearest, ties to even; as their bits.
    unsafe fn store_f16(self, p: *mut u16);
    /// `self * b + c`, rounded once.
    unsafe fn fma(self, b: Self, c: Self) -> Self;
    unsafe fn add(self, b: Self) -> Self;
    unsafe fn sub(self, b: Self) -> Self;
    unsafe fn mul(self, b: Self) -> Self;
    unsafe fn div(self, b: Self) -> Self;
    /// The larger one; `b` where they do not compare.
    unsafe fn max(self, b: Self) -> Self;
    /// The smaller one; `b` where they do not compare.
    unsafe fn min(self, b: Self) -> Self;
    /// The first `count` lanes, and the others of `b`.
    unsafe fn first(self, count: usize, b: Self) -> Self;
    /// Lanes of `a` where this is less than `limit`, and of `b` elsewhere.
    unsafe fn if_less(self, limit: Self, a: Self, b: Self) -> Self;
    /// To the nearest integer, ties to even.
    unsafe fn round(self) -> Self;
    /// 2 to the power of integers from -126 to 127.
    unsafe fn exp2_integer(self) -> Self;
    /// `p`, in a way that makes the compiler read again what it points to. Where registers are few it would otherwise keep
    /// what it has read before, and move accumulators to memory for that.
    #[inline(always)]
    fn read_again<T>(p: *const T) -> *const T {
        p
    }
    /// A hint that the line at `p` will be read soon; `p` need not be valid.
    unsafe fn prefetch(p: *const f32);

    /// The lanes' sum: of each lane with the one 8 further, of those with the one 4 further, 2, 1.
    unsafe fn sum(self) -> f32;
    /// The lanes' maximum, in the order of [`sum`](Self::sum).
    unsafe fn max_lane(self) -> f32;

    /// e to the power of each lane, within 2 ulp; arguments are clamped to [-87, 88].
    ///
    /// Cody and Waite's reduction by a ln 2 in two parts, then the polynomial of Cephes' `expf`.
    #[inline(always)]
    unsafe fn exp(self) -> Self {
        // SAFETY: the caller has the instructions; the exponent is in [-126, 127] after the clamp.
        unsafe {
            let x = self.max(Self::splat(-87.0)).min(Self::splat(88.0));
            let n = x.mul(Self::splat(std::f32::consts::LOG2_E)).round();
            let r = n.fma(Self::splat(-0.693_359_4), x);
            let r = n.fma(Self::splat(2.121_944_4e-4), r);
            let mut p = Self::splat(1.987_569_1e-4);
            for c in [
                1.398_199_9e-3,
                8.333_452e-3,
                4.166_579_6e-2,
                1.666_666_5e-1,
                5e-1,
            ] {
                p = p.fma(r, Self::splat(c));
            }
            let p = p.fma(r.mul(r), r).add(Self::splat(1.0));
            p.mul(n.exp2_integer())
        }
    }
}
