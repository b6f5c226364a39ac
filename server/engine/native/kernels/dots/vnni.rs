//! With AVX-512 VNNI.

use std::arch::x86_64::*;

use super::super::lanes::Zmm;
use super::super::quantized_rows::GROUP;
use super::{ByFours, Dots, Operands, group_by_fours};

/// One AVX-512 register, with VNNI.
#[derive(Clone, Copy)]
pub(in super::super) struct Vnni(__m512i);

// SAFETY (all blocks): the trait's contract gives the instructions and the pointers.
#[allow(clippy::undocumented_unsafe_blocks)]
impl Dots for Vnni {
    type Floats = Zmm;
    const TILE_ROWS: [usize; 2] = [6, 6];
    const WIDE: bool = true;
    const GROUP_BYTES: usize = GROUP;

    #[inline(always)]
    unsafe fn store_group(a: Zmm, b: Zmm, p: *mut u8) {
        unsafe {
            let a = _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(a.0));
            let b = _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(b.0));
            _mm256_storeu_si256(p.cast(), _mm256_set_m128i(b, a));
        }
    }
    fn load_group(stored: &[u8]) -> [u8; GROUP] {
        std::array::from_fn(|i| stored[i])
    }
    #[inline(always)]
    unsafe fn group<const FOUR: bool, const R: usize, const C: usize>(
        operands: Operands,
    ) -> [[Self; C]; R] {
        unsafe { group_by_fours::<Self, FOUR, R, C>(operands) }
    }
    #[inline(always)]
    unsafe fn scales(p: *const u32) -> Zmm {
        unsafe {
            let meta = _mm512_loadu_si512(p.cast());
            let high = _mm512_cvtepi32_epi16(_mm512_srli_epi32::<16>(meta));
            Zmm(_mm512_cvtph_ps(high))
        }
    }
    #[inline(always)]
    unsafe fn halves(p: *const u16) -> Zmm {
        unsafe { Zmm(_mm512_cvtph_ps(_mm256_loadu_si256(p.cast()))) }
    }
    #[inline(always)]
    unsafe fn to_floats(self) -> Zmm {
        Zmm(unsafe { _mm512_cvtepi32_ps(self.0) })
    }
    #[inline(always)]
    unsafe fn range(x: Zmm) -> (f32, f32) {
        unsafe { (_mm512_reduce_min_ps(x.0), _mm512_reduce_max_ps(x.0)) }
    }
    #[inline(always)]
    unsafe fn total(x: Zmm) -> f32 {
        unsafe { _mm512_reduce_add_ps(x.0) }
    }
}

// SAFETY (all blocks): the trait's contract gives the instructions and the pointers.
#[allow(clippy::undocumented_unsafe_blocks)]
impl ByFours for Vnni {
    type Weights = __m512i;
    type Activations = __m512i;

    #[inline(always)]
    unsafe fn corrections(p: *const u32, zero: i32) -> Self {
        unsafe {
            let meta = _mm512_loadu_si512(p.cast());
            // Pairs of i16: the scale in the high half meets the zero in the high half of `zero`.
            let zero = _mm512_set1_epi32(zero);
            Self(_mm512_dpwssd_epi32(_mm512_setzero_si512(), meta, zero))
        }
    }
    #[inline(always)]
    unsafe fn weights(p: *const u8) -> __m512i {
        unsafe { _mm512_loadu_si512(p.cast()) }
    }
    #[inline(always)]
    unsafe fn nibbles(p: *const u8) -> [__m512i; 2] {
        unsafe {
            let (both, mask) = (_mm512_loadu_si512(p.cast()), _mm512_set1_epi8(15));
            let high = _mm512_and_si512(_mm512_srli_epi16::<4>(both), mask);
            [_mm512_and_si512(both, mask), high]
        }
    }
    #[inline(always)]
    unsafe fn activations(p: *const u8) -> __m512i {
        unsafe { _mm512_set1_epi32(p.cast::<i32>().read_unaligned()) }
    }
    #[inline(always)]
    unsafe fn add_products(self, a: __m512i, w: __m512i) -> Self {
        Self(unsafe { _mm512_dpbusd_epi32(self.0, a, w) })
    }
}

/// Operations of a round of [`vnni_loop`], a multiply-add counting as two.
pub(in super::super) const VNNI_LOOP_OPERATIONS: usize = 12 * 64 * 2;

/// `rounds` times as many products as fit into 12 independent chains, in registers.
///
/// # Safety
/// The instructions are there.
#[target_feature(enable = "avx512f,avx512vnni")]
pub(in super::super) unsafe fn vnni_loop(rounds: usize) -> i32 {
    let a = _mm512_set1_epi32(std::hint::black_box(0x0102_0304));
    let w = _mm512_set1_epi32(std::hint::black_box(0x0101_0101));
    let mut sums = [_mm512_setzero_si512(); 12];
    for _ in 0..rounds {
        for sum in &mut sums {
            *sum = _mm512_dpbusd_epi32(*sum, a, w);
        }
    }
    sums.into_iter()
        .fold(0, |total, sum| total ^ _mm512_reduce_add_epi32(sum))
}
