//! The forms in which the KV pool stores numbers.

use half::{bf16, f16};

use super::lanes::{LANES, Lanes};

/// A stored number of a head's key or value.
pub(super) trait Stored: Copy {
    /// Whether a scale for each token and head goes with the numbers; without one it is 1.
    const SCALED: bool;

    /// Sixteen of them, scale left out.
    ///
    /// # Safety
    /// As [`Lanes::load`].
    unsafe fn load<V: Lanes>(p: *const Self) -> V;

    /// The scale for a key or value of one head.
    fn scale(x: &[f32]) -> f32;

    /// `x / scale` as it is stored.
    fn encode(x: f32, inverse_scale: f32) -> Self;

    /// As [`encode`](Self::encode), sixteen of them.
    ///
    /// # Safety
    /// As [`Lanes::load`], and 16 numbers at `p`.
    #[inline(always)]
    unsafe fn store<V: Lanes>(x: *const f32, inverse_scale: f32, p: *mut Self) {
        for i in 0..LANES {
            // SAFETY: i is below 16.
            unsafe { *p.add(i) = Self::encode(*x.add(i), inverse_scale) };
        }
    }
}

impl Stored for f32 {
    const SCALED: bool = false;

    #[inline(always)]
    unsafe fn load<V: Lanes>(p: *const Self) -> V {
        // SAFETY: passed on.
        unsafe { V::load(p) }
    }

    #[inline(always)]
    fn scale(_: &[f32]) -> f32 {
        1.0
    }

    #[inline(always)]
    fn encode(x: f32, _: f32) -> Self {
        x
    }
}

impl Stored for bf16 {
    const SCALED: bool = false;

    #[inline(always)]
    unsafe fn load<V: Lanes>(p: *const Self) -> V {
        // SAFETY: passed on; a bf16 is its 16 bits.
        unsafe { V::load_bf16(p.cast()) }
    }

    #[inline(always)]
    fn scale(_: &[f32]) -> f32 {
        1.0
    }

    /// To the nearest, ties to even, without a branch.
    #[inline(always)]
    fn encode(x: f32, _: f32) -> Self {
        let bits = x.to_bits();
        let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16;
        let quiet = bits >> 16 | 0x40;
        Self::from_bits(if x.is_nan() { quiet } else { rounded } as u16)
    }
}

impl Stored for f16 {
    const SCALED: bool = false;

    #[inline(always)]
    unsafe fn load<V: Lanes>(p: *const Self) -> V {
        // SAFETY: passed on; an f16 is its 16 bits.
        unsafe { V::load_f16(p.cast()) }
    }

    #[inline(always)]
    fn scale(_: &[f32]) -> f32 {
        1.0
    }

    /// To the nearest, ties to even; what is too large becomes the largest.
    #[inline(always)]
    fn encode(x: f32, _: f32) -> Self {
        Self::from_f32(x.clamp(Self::MIN.to_f32_const(), Self::MAX.to_f32_const()))
    }

    /// The compiler would make sixteen calls of it.
    #[inline(always)]
    unsafe fn store<V: Lanes>(x: *const f32, _: f32, p: *mut Self) {
        // SAFETY: passed on. Of two that do not compare the second is taken: what is no number stays none.
        unsafe {
            let x = V::splat(Self::MIN.to_f32_const()).max(V::load(x));
            V::splat(Self::MAX.to_f32_const())
                .min(x)
                .store_f16(p.cast());
        }
    }
}

impl Stored for i8 {
    const SCALED: bool = true;

    #[inline(always)]
    unsafe fn load<V: Lanes>(p: *const Self) -> V {
        // SAFETY: passed on.
        unsafe { V::load_i8(p) }
    }

    /// So that the largest is 127. Of something that is not finite, it is not finite either.
    #[inline(always)]
    fn scale(x: &[f32]) -> f32 {
        // Without their sign, floats are ordered as their bits are, and integers have a maximum in vectors.
        let bits = |x: &f32| x.to_bits() & 0x7fff_ffff;
        f32::from_bits(x.iter().map(bits).fold(0, u32::max)) / 127.0
    }

    /// Where the scale is 0 or not finite, so is what comes back, whatever is stored.
    #[inline(always)]
    fn encode(x: f32, inverse_scale: f32) -> Self {
        (x * inverse_scale).round_ties_even() as i8
    }
}
