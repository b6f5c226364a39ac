//! With AVX2.

use std::arch::x86_64::*;

use super::Lanes;

/// Two AVX2 registers.
#[derive(Clone, Copy)]
pub(in super::super) struct Ymm2(pub(in super::super) __m256, pub(in super::super) __m256);

// SAFETY (all blocks): the trait's contract gives the instructions and the pointers.
#[allow(clippy::undocumented_unsafe_blocks)]
impl Lanes for Ymm2 {
    const WIDE: bool = false;
    const TILE: usize = 6;

    #[inline(always)]
    fn read_again<T>(mut p: *const T) -> *const T {
        unsafe {
            std::arch::asm!("/* {0} */", inout(reg) p, options(readonly, nostack, preserves_flags));
        }
        p
    }

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        let v = unsafe { _mm256_set1_ps(x) };
        Self(v, v)
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self {
        unsafe { Self(_mm256_loadu_ps(p), _mm256_loadu_ps(p.add(8))) }
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32) {
        unsafe {
            _mm256_storeu_ps(p, self.0);
            _mm256_storeu_ps(p.add(8), self.1);
        }
    }
    #[inline(always)]
    unsafe fn load_bf16(p: *const u16) -> Self {
        unsafe {
            let a = _mm256_cvtepu16_epi32(_mm_loadu_si128(p.cast()));
            let b = _mm256_cvtepu16_epi32(_mm_loadu_si128(p.add(8).cast()));
            Self(
                _mm256_castsi256_ps(_mm256_slli_epi32::<16>(a)),
                _mm256_castsi256_ps(_mm256_slli_epi32::<16>(b)),
            )
        }
    }
    #[inline(always)]
    unsafe fn load_f16(p: *const u16) -> Self {
        unsafe {
            Self(
                _mm256_cvtph_ps(_mm_loadu_si128(p.cast())),
                _mm256_cvtph_ps(_mm_loadu_si128(p.add(8).cast())),
            )
        }
    }
    #[inline(always)]
    unsafe fn load_i8(p: *const i8) -> Self {
        unsafe {
            let a = _mm256_cvtepi8_epi32(_mm_loadl_epi64(p.cast()));
            let b = _mm256_cvtepi8_epi32(_mm_loadl_epi64(p.add(8).cast()));
            Self(_mm256_cvtepi32_ps(a), _mm256_cvtepi32_ps(b))
        }
    }
    #[inline(always)]
    unsafe fn store_f16(self, p: *mut u16) {
        unsafe {
            let a = _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(self.0);
            let b = _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(self.1);
            _mm_storeu_si128(p.cast(), a);
            _mm_storeu_si128(p.add(8).cast(), b);
        }
    }
    #[inline(always)]
    unsafe fn fma(self, b: Self, c: Self) -> Self {
        unsafe {
            Self(
                _mm256_fmadd_ps(self.0, b.0, c.0),
                _mm256_fmadd_ps(self.1, b.1, c.1),
            )
        }
    }
    #[inline(always)]
    unsafe fn add(self, b: Self) -> Self {
        unsafe { Self(_mm256_add_ps(self.0, b.0), _mm256_add_ps(self.1, b.1)) }
    }
    #[inline(always)]
    unsafe fn sub(self, b: Self) -> Self {
        unsafe { Self(_mm256_sub_ps(self.0, b.0), _mm256_sub_ps(self.1, b.1)) }
    }
    #[inline(always)]
    unsafe fn mul(self, b: Self) -> Self {
        unsafe { Self(_mm256_mul_ps(self.0, b.0), _mm256_mul_ps(self.1, b.1)) }
    }
    #[inline(always)]
    unsafe fn div(self, b: Self) -> Self {
        unsafe { Self(_mm256_div_ps(self.0, b.0), _mm256_div_ps(self.1, b.1)) }
    }
    #[inline(always)]
    unsafe fn max(self, b: Self) -> Self {
        unsafe { Self(_mm256_max_ps(self.0, b.0), _mm256_max_ps(self.1, b.1)) }
    }
    #[inline(always)]
    unsafe fn min(self, b: Self) -> Self {
        unsafe { Self(_mm256_min_ps(self.0, b.0), _mm256_min_ps(self.1, b.1)) }
    }
    #[inline(always)]
    unsafe fn first(self, count: usize, b: Self) -> Self {
        unsafe {
            let count = _mm256_set1_epi32(count.min(16) as i32);
            let low = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
            let high = _mm256_add_epi32(low, _mm256_set1_epi32(8));
            let low = _mm256_castsi256_ps(_mm256_cmpgt_epi32(count, low));
            let high = _mm256_castsi256_ps(_mm256_cmpgt_epi32(count, high));
            Self(
                _mm256_blendv_ps(b.0, self.0, low),
                _mm256_blendv_ps(b.1, self.1, high),
            )
        }
    }
    #[inline(always)]
    unsafe fn if_less(self, limit: Self, a: Self, b: Self) -> Self {
        unsafe {
            let low = _mm256_cmp_ps::<_CMP_LT_OQ>(self.0, limit.0);
            let high = _mm256_cmp_ps::<_CMP_LT_OQ>(self.1, limit.1);
            Self(
                _mm256_blendv_ps(b.0, a.0, low),
                _mm256_blendv_ps(b.1, a.1, high),
            )
        }
    }
    #[inline(always)]
    unsafe fn round(self) -> Self {
        const NEAREST: i32 = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
        unsafe {
            Self(
                _mm256_round_ps::<NEAREST>(self.0),
                _mm256_round_ps::<NEAREST>(self.1),
            )
        }
    }
    #[inline(always)]
    unsafe fn exp2_integer(self) -> Self {
        unsafe {
            let bias = _mm256_set1_epi32(127);
            let a = _mm256_add_epi32(_mm256_cvtps_epi32(self.0), bias);
            let b = _mm256_add_epi32(_mm256_cvtps_epi32(self.1), bias);
            Self(
                _mm256_castsi256_ps(_mm256_slli_epi32::<23>(a)),
                _mm256_castsi256_ps(_mm256_slli_epi32::<23>(b)),
            )
        }
    }
    #[inline(always)]
    unsafe fn prefetch(p: *const f32) {
        unsafe { _mm_prefetch::<_MM_HINT_T0>(p.cast()) }
    }
    #[inline(always)]
    unsafe fn sum(self) -> f32 {
        unsafe { sum(_mm256_add_ps(self.0, self.1)) }
    }
    #[inline(always)]
    unsafe fn max_lane(self) -> f32 {
        unsafe { max_lane(_mm256_max_ps(self.0, self.1)) }
    }
}

/// The last three steps of [`Lanes::sum`].
#[inline(always)]
pub(super) unsafe fn sum(x: __m256) -> f32 {
    // SAFETY: the caller has the instructions.
    unsafe {
        let x = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps::<1>(x));
        let x = _mm_add_ps(x, _mm_movehl_ps(x, x));
        _mm_cvtss_f32(_mm_add_ss(x, _mm_movehdup_ps(x)))
    }
}

/// The last three steps of [`Lanes::max_lane`].
#[inline(always)]
pub(super) unsafe fn max_lane(x: __m256) -> f32 {
    // SAFETY: the caller has the instructions.
    unsafe {
        let x = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps::<1>(x));
        let x = _mm_max_ps(x, _mm_movehl_ps(x, x));
        _mm_cvtss_f32(_mm_max_ss(x, _mm_movehdup_ps(x)))
    }
}
