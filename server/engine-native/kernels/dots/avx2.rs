//! With AVX2.
//!
//! `vpmaddubsw` multiplies 32 unsigned by 32 signed bytes and adds pairs to 16 bits, saturating. So that nothing
//! saturates, and the sums of a whole group fit into 16 bits, one factor must have 4 bits: weights in 4 bits meet the
//! activations as signed bytes, weights in 8 bits meet their low and their high nibbles.

use std::arch::x86_64::*;

use super::super::lanes::{LANES, Ymm2};
use super::super::quantized_rows::GROUP;
use super::{Dots, Operands};

/// Two registers.
#[derive(Clone, Copy)]
pub(in super::super) struct Avx2(__m256i, __m256i);

/// Where the activations' low nibbles lie, their high nibbles, and the activations less 128.
const LOW: usize = 0;
const HIGH: usize = GROUP;
const SIGNED: usize = 2 * GROUP;

#[inline(always)]
unsafe fn load(p: *const u8) -> __m256i {
    // SAFETY: 32 bytes, by the caller's word.
    unsafe { _mm256_loadu_si256(p.cast()) }
}

/// Four bytes, eight times.
#[inline(always)]
unsafe fn splat_four(p: *const u8) -> __m256i {
    // SAFETY: four bytes, by the caller's word.
    unsafe { _mm256_set1_epi32(p.cast::<i32>().read_unaligned()) }
}

// SAFETY (all blocks): the trait's contract gives the instructions and the pointers.
#[allow(clippy::undocumented_unsafe_blocks)]
impl Dots for Avx2 {
    type Floats = Ymm2;
    const TILE_ROWS: [usize; 2] = [2, 3];
    const WIDE: bool = false;
    const GROUP_BYTES: usize = 3 * GROUP;

    #[inline(always)]
    unsafe fn store_group(a: Ymm2, b: Ymm2, p: *mut u8) {
        unsafe {
            let (a0, a1) = (_mm256_cvtps_epi32(a.0), _mm256_cvtps_epi32(a.1));
            let (b0, b1) = (_mm256_cvtps_epi32(b.0), _mm256_cvtps_epi32(b.1));
            // Packing works within halves of the registers and leaves fours out of order.
            let fours =
                _mm256_packus_epi16(_mm256_packus_epi32(a0, a1), _mm256_packus_epi32(b0, b1));
            let order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
            let bytes = _mm256_permutevar8x32_epi32(fours, order);
            let nibble = _mm256_set1_epi8(15);
            let low = _mm256_and_si256(bytes, nibble);
            let high = _mm256_and_si256(_mm256_srli_epi16::<4>(bytes), nibble);
            let signed = _mm256_xor_si256(bytes, _mm256_set1_epi8(-128));
            _mm256_storeu_si256(p.add(LOW).cast(), low);
            _mm256_storeu_si256(p.add(HIGH).cast(), high);
            _mm256_storeu_si256(p.add(SIGNED).cast(), signed);
        }
    }
    fn load_group(stored: &[u8]) -> [u8; GROUP] {
        std::array::from_fn(|i| stored[SIGNED + i] ^ 128)
    }
    #[inline(always)]
    unsafe fn group<const FOUR: bool, const R: usize, const C: usize>(
        operands: Operands,
    ) -> [[Self; C]; R] {
        unsafe {
            let none = _mm256_setzero_si256();
            let mut dots = [[Self(none, none); C]; R];
            for c in 0..C {
                let metas = operands.metas.add(c * LANES);
                let sums = if FOUR {
                    four_bits::<R>(&operands, c)
                } else {
                    eight_bits::<R>(&operands, c)
                };
                for r in 0..R {
                    // What was subtracted from the activations is subtracted from their zero.
                    let zero = operands.zero(r) - if FOUR { 128 } else { 0 };
                    let zero = _mm256_set1_epi32(zero & 0xffff);
                    // Pairs of i16: the scale in the high half meets 0.
                    let a = _mm256_madd_epi16(load(metas.cast()), zero);
                    let b = _mm256_madd_epi16(load(metas.add(8).cast()), zero);
                    dots[r][c] = Self(
                        _mm256_add_epi32(sums[r].0, a),
                        _mm256_add_epi32(sums[r].1, b),
                    );
                }
            }
            dots
        }
    }
    #[inline(always)]
    unsafe fn scales(p: *const u32) -> Ymm2 {
        unsafe {
            let a = _mm256_srli_epi32::<16>(load(p.cast()));
            let b = _mm256_srli_epi32::<16>(load(p.add(8).cast()));
            // Packing works within halves of the registers.
            let halves = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packus_epi32(a, b));
            Ymm2(
                _mm256_cvtph_ps(_mm256_castsi256_si128(halves)),
                _mm256_cvtph_ps(_mm256_extracti128_si256::<1>(halves)),
            )
        }
    }
    #[inline(always)]
    unsafe fn halves(p: *const u16) -> Ymm2 {
        unsafe {
            Ymm2(
                _mm256_cvtph_ps(_mm_loadu_si128(p.cast())),
                _mm256_cvtph_ps(_mm_loadu_si128(p.add(8).cast())),
            )
        }
    }
    #[inline(always)]
    unsafe fn to_floats(self) -> Ymm2 {
        unsafe { Ymm2(_mm256_cvtepi32_ps(self.0), _mm256_cvtepi32_ps(self.1)) }
    }
    #[inline(always)]
    unsafe fn lowest(of: &[Ymm2; LANES]) -> Ymm2 {
        across!(of, _mm256_min_ps)
    }
    #[inline(always)]
    unsafe fn highest(of: &[Ymm2; LANES]) -> Ymm2 {
        across!(of, _mm256_max_ps)
    }
    #[inline(always)]
    unsafe fn totals(of: &[Ymm2; LANES]) -> Ymm2 {
        across!(of, _mm256_add_ps)
    }
}

/// Sixteen values to one: lane i is what the operation makes of value i's lanes. Each round interleaves pairs of registers
/// and halves their number.
macro_rules! across {
    ($of:expr, $op:ident) => {
        unsafe {
            let mut eights = [_mm256_setzero_ps(); 2];
            for (n, eight) in eights.iter_mut().enumerate() {
                let mut x = [_mm256_setzero_ps(); 8];
                for i in 0..8 {
                    x[i] = $op($of[8 * n + i].0, $of[8 * n + i].1);
                }
                for i in 0..4 {
                    let (a, b) = (x[2 * i], x[2 * i + 1]);
                    x[i] = $op(_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
                }
                for i in 0..2 {
                    let (a, b) = (x[2 * i], x[2 * i + 1]);
                    let (a, b) = (_mm256_castps_pd(a), _mm256_castps_pd(b));
                    let (low, high) = (_mm256_unpacklo_pd(a, b), _mm256_unpackhi_pd(a, b));
                    x[i] = $op(_mm256_castpd_ps(low), _mm256_castpd_ps(high));
                }
                // Each half of a register now has four registers' lanes of that half.
                let low = _mm256_permute2f128_ps::<0x20>(x[0], x[1]);
                let high = _mm256_permute2f128_ps::<0x31>(x[0], x[1]);
                *eight = $op(low, high);
            }
            Ymm2(eights[0], eights[1])
        }
    };
}
use across;

/// The sums of products of R rows with 16 columns in 8 bits, through the activations' nibbles: of 16 products of at most
/// 15 * 128 the sum is at most 30720.
///
/// # Safety
/// As [`Dots::group`].
#[inline(always)]
unsafe fn eight_bits<const R: usize>(operands: &Operands, column: usize) -> [Avx2; R] {
    // SAFETY: rows below R, and as many steps as a group has; AVX2 is there.
    unsafe {
        let none = _mm256_setzero_si256();
        let mut low = [[none; 2]; R];
        let mut high = [[none; 2]; R];
        for step in 0..GROUP / 4 {
            let w = operands.weights(step, column);
            let w = [load(w), load(w.add(32))];
            for r in 0..R {
                let a = operands.bytes(r).add(step * 4);
                let (l, h) = (splat_four(a.add(LOW)), splat_four(a.add(HIGH)));
                for i in 0..2 {
                    low[r][i] = _mm256_add_epi16(low[r][i], _mm256_maddubs_epi16(l, w[i]));
                    high[r][i] = _mm256_add_epi16(high[r][i], _mm256_maddubs_epi16(h, w[i]));
                }
            }
        }
        let (ones, sixteens) = (_mm256_set1_epi16(1), _mm256_set1_epi16(16));
        let mut sums = [Avx2(none, none); R];
        for r in 0..R {
            sums[r] = Avx2(
                _mm256_add_epi32(
                    _mm256_madd_epi16(low[r][0], ones),
                    _mm256_madd_epi16(high[r][0], sixteens),
                ),
                _mm256_add_epi32(
                    _mm256_madd_epi16(low[r][1], ones),
                    _mm256_madd_epi16(high[r][1], sixteens),
                ),
            );
        }
        sums
    }
}

/// The sums of products of R rows, as signed bytes, with 16 columns in 4 bits: of 16 products of at most 15 * 128 the
/// sum is at most 30720.
///
/// # Safety
/// As [`Dots::group`].
#[inline(always)]
unsafe fn four_bits<const R: usize>(operands: &Operands, column: usize) -> [Avx2; R] {
    // SAFETY: rows below R, and as many steps as a group has; AVX2 is there.
    unsafe {
        let (none, nibble) = (_mm256_setzero_si256(), _mm256_set1_epi8(15));
        let mut pairs = [[none; 2]; R];
        for step in 0..GROUP / 8 {
            let w = operands.weights(step, column);
            let w = [load(w), load(w.add(32))];
            for (half, first) in [(0, 0), (1, GROUP / 2)] {
                let mut q = w;
                for i in 0..2 {
                    let both = if half == 0 {
                        w[i]
                    } else {
                        _mm256_srli_epi16::<4>(w[i])
                    };
                    q[i] = _mm256_and_si256(both, nibble);
                }
                for r in 0..R {
                    let a = splat_four(operands.bytes(r).add(SIGNED + first + step * 4));
                    for i in 0..2 {
                        let product = _mm256_maddubs_epi16(q[i], a);
                        pairs[r][i] = _mm256_add_epi16(pairs[r][i], product);
                    }
                }
            }
        }
        let ones = _mm256_set1_epi16(1);
        let mut sums = [Avx2(none, none); R];
        for r in 0..R {
            sums[r] = Avx2(
                _mm256_madd_epi16(pairs[r][0], ones),
                _mm256_madd_epi16(pairs[r][1], ones),
            );
        }
        sums
    }
}
