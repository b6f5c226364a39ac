//! With AVX-512 VNNI.

use std::arch::x86_64::*;

use super::super::lanes::{LANES, Zmm};
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
    unsafe fn lowest(of: &[Zmm; LANES]) -> Zmm {
        across!(of, _mm512_min_ps)
    }
    #[inline(always)]
    unsafe fn highest(of: &[Zmm; LANES]) -> Zmm {
        across!(of, _mm512_max_ps)
    }
    #[inline(always)]
    unsafe fn totals(of: &[Zmm; LANES]) -> Zmm {
        across!(of, _mm512_add_ps)
    }
}

/// Sixteen registers to one: lane i is what the operation makes of register i's lanes. Each round interleaves pairs of
/// registers and halves their number.
macro_rules! across {
    ($of:expr, $op:ident) => {
        unsafe {
            let mut x = [_mm512_setzero_ps(); 8];
            for i in 0..8 {
                let (a, b) = ($of[2 * i].0, $of[2 * i + 1].0);
                x[i] = $op(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
            }
            for i in 0..4 {
                let (a, b) = (x[2 * i], x[2 * i + 1]);
                let (a, b) = (_mm512_castps_pd(a), _mm512_castps_pd(b));
                let (low, high) = (_mm512_unpacklo_pd(a, b), _mm512_unpackhi_pd(a, b));
                x[i] = $op(_mm512_castpd_ps(low), _mm512_castpd_ps(high));
            }
            // Each quarter of a register now has four registers' lanes of that quarter.
            for half in [2, 1] {
                for i in 0..half {
                    let (a, b) = (x[2 * i], x[2 * i + 1]);
                    let even = _mm512_shuffle_f32x4::<0b10_00_10_00>(a, b);
                    let odd = _mm512_shuffle_f32x4::<0b11_01_11_01>(a, b);
                    x[i] = $op(even, odd);
                }
            }
            Zmm(x[0])
        }
    };
}
use across;

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
