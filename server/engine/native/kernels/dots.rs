//! Sixteen 32-bit sums of products of unsigned and signed bytes.
//!
//! All sums are exact, so that kernels over [`Dots`] give the same bits with each implementation.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

use half::f16;

use super::lanes::{Array, LANES, Lanes};
#[cfg(target_arch = "x86_64")]
use super::lanes::{Ymm2, Zmm};

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
    /// Four weights (i8) of each of 16 columns.
    type Weights: Copy;
    /// Four activations (u8), the same ones for every column.
    type Activations: Copy;
    /// Whether 12 of these and 12 [`Floats`](Self::Floats) stay in registers together (2 and 2 otherwise).
    const WIDE: bool;

    /// `zero` (0 to 255) times the low halves of the 16 meta words at `p`.
    unsafe fn corrections(p: *const u32, zero: i32) -> Self;
    /// The high halves of the 16 meta words at `p`.
    unsafe fn scales(p: *const u32) -> Self::Floats;
    /// 16 f16.
    unsafe fn halves(p: *const u16) -> Self::Floats;
    /// 64 bytes: `[column][4]`.
    unsafe fn weights(p: *const u8) -> Self::Weights;
    /// The low and the high nibbles of 64 bytes, each 0 to 15.
    unsafe fn nibbles(p: *const u8) -> [Self::Weights; 2];
    /// 4 bytes.
    unsafe fn activations(p: *const u8) -> Self::Activations;
    /// Adds each column's product with the activations.
    unsafe fn add_products(self, a: Self::Activations, w: Self::Weights) -> Self;
    /// The sums; exact below 2^24.
    unsafe fn to_floats(self) -> Self::Floats;
    /// The smallest and the largest lane.
    unsafe fn range(x: Self::Floats) -> (f32, f32);
    /// The sum of lanes that are whole numbers of up to 255.
    unsafe fn total(x: Self::Floats) -> f32;
    /// Stores lanes that are whole numbers of up to 255 as 16 bytes.
    unsafe fn store_bytes(x: Self::Floats, p: *mut u8);
}

/// One AVX-512 register, with VNNI.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
pub(super) struct Vnni(__m512i);

// SAFETY (all blocks): the trait's contract gives the instructions and the pointers.
#[cfg(target_arch = "x86_64")]
#[allow(clippy::undocumented_unsafe_blocks)]
impl Dots for Vnni {
    type Floats = Zmm;
    type Weights = __m512i;
    type Activations = __m512i;
    const WIDE: bool = true;

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
    #[inline(always)]
    unsafe fn store_bytes(x: Zmm, p: *mut u8) {
        unsafe {
            let bytes = _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(x.0));
            _mm_storeu_si128(p.cast(), bytes);
        }
    }
}

/// Two AVX2 registers.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
pub(super) struct Avx2(__m256i, __m256i);

/// The bytes of even and of odd index, each widened to 16 bits: `vpmaddubsw` would saturate, `vpmaddwd` does not.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
pub(super) struct EvenOdd(__m256i, __m256i);

// SAFETY (all blocks): the trait's contract gives the instructions and the pointers.
#[cfg(target_arch = "x86_64")]
#[allow(clippy::undocumented_unsafe_blocks)]
impl Dots for Avx2 {
    type Floats = Ymm2;
    type Weights = [EvenOdd; 2];
    type Activations = EvenOdd;
    const WIDE: bool = false;

    #[inline(always)]
    unsafe fn corrections(p: *const u32, zero: i32) -> Self {
        unsafe {
            let zero = _mm256_set1_epi32(zero);
            let low = _mm256_loadu_si256(p.cast());
            let high = _mm256_loadu_si256(p.add(8).cast());
            Self(_mm256_madd_epi16(low, zero), _mm256_madd_epi16(high, zero))
        }
    }
    #[inline(always)]
    unsafe fn scales(p: *const u32) -> Ymm2 {
        unsafe {
            let half = |p: *const u32| {
                let high = _mm256_srli_epi32::<16>(_mm256_loadu_si256(p.cast()));
                let low = _mm256_castsi256_si128(high);
                let packed = _mm_packus_epi32(low, _mm256_extracti128_si256::<1>(high));
                _mm256_cvtph_ps(packed)
            };
            Ymm2(half(p), half(p.add(8)))
        }
    }
    #[inline(always)]
    unsafe fn halves(p: *const u16) -> Ymm2 {
        unsafe {
            let half = |p: *const u16| _mm256_cvtph_ps(_mm_loadu_si128(p.cast()));
            Ymm2(half(p), half(p.add(8)))
        }
    }
    #[inline(always)]
    unsafe fn weights(p: *const u8) -> [EvenOdd; 2] {
        unsafe {
            let half = |p: *const u8| {
                let w = _mm256_loadu_si256(p.cast());
                let even = _mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(w));
                EvenOdd(even, _mm256_srai_epi16::<8>(w))
            };
            [half(p), half(p.add(32))]
        }
    }
    #[inline(always)]
    unsafe fn nibbles(p: *const u8) -> [[EvenOdd; 2]; 2] {
        unsafe {
            let mask = _mm256_set1_epi16(15);
            let half = |p: *const u8| {
                let w = _mm256_loadu_si256(p.cast());
                let even = _mm256_and_si256(w, mask);
                let odd = _mm256_and_si256(_mm256_srli_epi16::<8>(w), mask);
                let high_even = _mm256_and_si256(_mm256_srli_epi16::<4>(w), mask);
                let high_odd = _mm256_srli_epi16::<12>(w);
                (EvenOdd(even, odd), EvenOdd(high_even, high_odd))
            };
            let (a, b) = (half(p), half(p.add(32)));
            [[a.0, b.0], [a.1, b.1]]
        }
    }
    #[inline(always)]
    unsafe fn activations(p: *const u8) -> EvenOdd {
        unsafe {
            let a = _mm256_set1_epi32(p.cast::<i32>().read_unaligned());
            let even = _mm256_and_si256(a, _mm256_set1_epi16(255));
            EvenOdd(even, _mm256_srli_epi16::<8>(a))
        }
    }
    #[inline(always)]
    unsafe fn add_products(self, a: EvenOdd, w: [EvenOdd; 2]) -> Self {
        unsafe {
            let half = |sum, w: EvenOdd| {
                let even = _mm256_madd_epi16(a.0, w.0);
                _mm256_add_epi32(_mm256_add_epi32(sum, even), _mm256_madd_epi16(a.1, w.1))
            };
            Self(half(self.0, w[0]), half(self.1, w[1]))
        }
    }
    #[inline(always)]
    unsafe fn to_floats(self) -> Ymm2 {
        unsafe { Ymm2(_mm256_cvtepi32_ps(self.0), _mm256_cvtepi32_ps(self.1)) }
    }
    #[inline(always)]
    unsafe fn range(x: Ymm2) -> (f32, f32) {
        unsafe {
            let (low, high) = (_mm256_min_ps(x.0, x.1), _mm256_max_ps(x.0, x.1));
            let mut low = _mm_min_ps(_mm256_castps256_ps128(low), _mm256_extractf128_ps::<1>(low));
            let mut high = _mm_max_ps(
                _mm256_castps256_ps128(high),
                _mm256_extractf128_ps::<1>(high),
            );
            low = _mm_min_ps(low, _mm_movehl_ps(low, low));
            high = _mm_max_ps(high, _mm_movehl_ps(high, high));
            low = _mm_min_ss(low, _mm_movehdup_ps(low));
            high = _mm_max_ss(high, _mm_movehdup_ps(high));
            (_mm_cvtss_f32(low), _mm_cvtss_f32(high))
        }
    }
    #[inline(always)]
    unsafe fn total(x: Ymm2) -> f32 {
        unsafe { x.sum() }
    }
    #[inline(always)]
    unsafe fn store_bytes(x: Ymm2, p: *mut u8) {
        unsafe {
            let (a, b) = (_mm256_cvtps_epi32(x.0), _mm256_cvtps_epi32(x.1));
            let half =
                |v| _mm_packus_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256::<1>(v));
            _mm_storeu_si128(p.cast(), _mm_packus_epi16(half(a), half(b)));
        }
    }
}

/// Sixteen sums for the compiler to do its best with.
#[derive(Clone, Copy)]
pub(super) struct Scalar([i32; LANES]);

#[inline(always)]
unsafe fn read<T: Copy>(p: *const u8) -> T {
    // SAFETY: the caller's pointer is valid for a T.
    unsafe { p.cast::<T>().read_unaligned() }
}

// SAFETY (all blocks): the trait's contract gives the pointers.
#[allow(clippy::undocumented_unsafe_blocks)]
impl Dots for Scalar {
    type Floats = Array;
    type Weights = [[i8; 4]; LANES];
    type Activations = [u8; 4];
    const WIDE: bool = false;

    #[inline(always)]
    unsafe fn corrections(p: *const u32, zero: i32) -> Self {
        let meta: [u32; LANES] = unsafe { read(p.cast()) };
        Self(meta.map(|meta| i32::from(meta as u16 as i16) * zero))
    }
    #[inline(always)]
    unsafe fn scales(p: *const u32) -> Array {
        let meta: [u32; LANES] = unsafe { read(p.cast()) };
        Array(meta.map(|meta| f16::from_bits((meta >> 16) as u16).to_f32()))
    }
    #[inline(always)]
    unsafe fn halves(p: *const u16) -> Array {
        let halves: [u16; LANES] = unsafe { read(p.cast()) };
        Array(halves.map(|half| f16::from_bits(half).to_f32()))
    }
    #[inline(always)]
    unsafe fn weights(p: *const u8) -> Self::Weights {
        unsafe { read(p) }
    }
    #[inline(always)]
    unsafe fn nibbles(p: *const u8) -> [Self::Weights; 2] {
        let both: [[u8; 4]; LANES] = unsafe { read(p) };
        [
            both.map(|w| w.map(|w| (w & 15) as i8)),
            both.map(|w| w.map(|w| (w >> 4) as i8)),
        ]
    }
    #[inline(always)]
    unsafe fn activations(p: *const u8) -> [u8; 4] {
        unsafe { read(p) }
    }
    #[inline(always)]
    unsafe fn add_products(self, a: [u8; 4], w: Self::Weights) -> Self {
        Self(std::array::from_fn(|column| {
            (0..4).fold(self.0[column], |sum, i| {
                sum + i32::from(a[i]) * i32::from(w[column][i])
            })
        }))
    }
    #[inline(always)]
    unsafe fn to_floats(self) -> Array {
        Array(self.0.map(|sum| sum as f32))
    }
    #[inline(always)]
    unsafe fn range(x: Array) -> (f32, f32) {
        let low = x.0.into_iter().fold(f32::INFINITY, f32::min);
        (low, x.0.into_iter().fold(f32::NEG_INFINITY, f32::max))
    }
    #[inline(always)]
    unsafe fn total(x: Array) -> f32 {
        x.0.into_iter().sum()
    }
    #[inline(always)]
    unsafe fn store_bytes(x: Array, p: *mut u8) {
        unsafe {
            p.cast::<[u8; LANES]>()
                .write_unaligned(x.0.map(|x| x as u8))
        }
    }
}
