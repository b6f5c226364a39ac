//! Without vector instructions.

use super::{LANES, Lanes};

/// Sixteen floats for the compiler to do its best with.
#[derive(Clone, Copy)]
pub(in super::super) struct Array(pub(in super::super) [f32; LANES]);

impl Array {
    /// The lanes folded in half until one is left.
    #[inline(always)]
    fn reduce(self, f: impl Fn(f32, f32) -> f32) -> f32 {
        let mut x = self.0;
        for half in [8, 4, 2, 1] {
            for i in 0..half {
                x[i] = f(x[i], x[i + half]);
            }
        }
        x[0]
    }

    #[inline(always)]
    fn zip(self, b: Self, f: impl Fn(f32, f32) -> f32) -> Self {
        Self(std::array::from_fn(|i| f(self.0[i], b.0[i])))
    }
}

impl Lanes for Array {
    const WIDE: bool = false;
    // Nothing is kept in registers anyway.
    const TILE: usize = 1;

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        Self([x; LANES])
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self {
        // SAFETY: the caller's pointer is valid for 16 floats.
        Self(unsafe { p.cast::<[f32; LANES]>().read_unaligned() })
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32) {
        // SAFETY: the caller's pointer is valid for 16 floats.
        unsafe { p.cast::<[f32; LANES]>().write_unaligned(self.0) }
    }
    #[inline(always)]
    unsafe fn load_bf16(p: *const u16) -> Self {
        // SAFETY: the caller's pointer is valid for 16 numbers.
        let x = unsafe { p.cast::<[u16; LANES]>().read_unaligned() };
        Self(x.map(|x| f32::from_bits(u32::from(x) << 16)))
    }
    #[inline(always)]
    unsafe fn load_f16(p: *const u16) -> Self {
        // SAFETY: the caller's pointer is valid for 16 numbers.
        let x = unsafe { p.cast::<[u16; LANES]>().read_unaligned() };
        Self(x.map(|x| half::f16::from_bits(x).to_f32()))
    }
    #[inline(always)]
    unsafe fn load_i8(p: *const i8) -> Self {
        // SAFETY: the caller's pointer is valid for 16 integers.
        Self(unsafe { p.cast::<[i8; LANES]>().read_unaligned() }.map(f32::from))
    }
    #[inline(always)]
    unsafe fn store_f16(self, p: *mut u16) {
        let halves = self.0.map(|x| half::f16::from_f32(x).to_bits());
        // SAFETY: the caller's pointer is valid for 16 numbers.
        unsafe { p.cast::<[u16; LANES]>().write_unaligned(halves) }
    }
    #[inline(always)]
    unsafe fn fma(self, b: Self, c: Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i].mul_add(b.0[i], c.0[i])))
    }
    #[inline(always)]
    unsafe fn add(self, b: Self) -> Self {
        self.zip(b, |a, b| a + b)
    }
    #[inline(always)]
    unsafe fn sub(self, b: Self) -> Self {
        self.zip(b, |a, b| a - b)
    }
    #[inline(always)]
    unsafe fn mul(self, b: Self) -> Self {
        self.zip(b, |a, b| a * b)
    }
    #[inline(always)]
    unsafe fn div(self, b: Self) -> Self {
        self.zip(b, |a, b| a / b)
    }
    #[inline(always)]
    unsafe fn max(self, b: Self) -> Self {
        self.zip(b, |a, b| if a > b { a } else { b })
    }
    #[inline(always)]
    unsafe fn min(self, b: Self) -> Self {
        self.zip(b, |a, b| if a < b { a } else { b })
    }
    #[inline(always)]
    unsafe fn first(self, count: usize, b: Self) -> Self {
        Self(std::array::from_fn(|i| {
            if i < count { self.0[i] } else { b.0[i] }
        }))
    }
    #[inline(always)]
    unsafe fn if_less(self, limit: Self, a: Self, b: Self) -> Self {
        Self(std::array::from_fn(|i| {
            if self.0[i] < limit.0[i] {
                a.0[i]
            } else {
                b.0[i]
            }
        }))
    }
    #[inline(always)]
    unsafe fn round(self) -> Self {
        Self(self.0.map(f32::round_ties_even))
    }
    #[inline(always)]
    unsafe fn exp2_integer(self) -> Self {
        // The clamp keeps NaN out of the conversion's way: `as` makes it 0, the product with it stays NaN.
        Self(
            self.0
                .map(|n| f32::from_bits(((n as i32 + 127) as u32) << 23)),
        )
    }
    #[inline(always)]
    unsafe fn prefetch(_: *const f32) {}
    #[inline(always)]
    unsafe fn sum(self) -> f32 {
        self.reduce(|a, b| a + b)
    }
    #[inline(always)]
    unsafe fn max_lane(self) -> f32 {
        self.reduce(|a, b| if a > b { a } else { b })
    }
}
