//! Without vector instructions.

use half::f16;

use super::super::lanes::{Array, LANES};
use super::super::quantized_rows::GROUP;
use super::{ByFours, Dots, Operands, group_by_fours};

/// Sixteen sums for the compiler to do its best with.
#[derive(Clone, Copy)]
pub(in super::super) struct Scalar([i32; LANES]);

#[inline(always)]
unsafe fn read<T: Copy>(p: *const u8) -> T {
    // SAFETY: the caller's pointer is valid for a T.
    unsafe { p.cast::<T>().read_unaligned() }
}

// SAFETY (all blocks): the trait's contract gives the instructions and the pointers.
#[allow(clippy::undocumented_unsafe_blocks)]
impl Dots for Scalar {
    type Floats = Array;
    const TILE_ROWS: [usize; 2] = [2, 2];
    const WIDE: bool = false;
    const GROUP_BYTES: usize = GROUP;

    #[inline(always)]
    unsafe fn store_group(a: Array, b: Array, p: *mut u8) {
        unsafe {
            let halves = [a, b].map(|x| x.0.map(|x| x as u8));
            p.cast::<[[u8; LANES]; 2]>().write(halves)
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
    unsafe fn to_floats(self) -> Array {
        Array(self.0.map(|sum| sum as f32))
    }
    #[inline(always)]
    unsafe fn lowest(of: &[Array; LANES]) -> Array {
        Array(of.map(|x| x.0.into_iter().fold(f32::INFINITY, f32::min)))
    }
    #[inline(always)]
    unsafe fn highest(of: &[Array; LANES]) -> Array {
        Array(of.map(|x| x.0.into_iter().fold(f32::NEG_INFINITY, f32::max)))
    }
    #[inline(always)]
    unsafe fn totals(of: &[Array; LANES]) -> Array {
        Array(of.map(|x| x.0.into_iter().sum()))
    }
}

// SAFETY (all blocks): the trait's contract gives the instructions and the pointers.
#[allow(clippy::undocumented_unsafe_blocks)]
impl ByFours for Scalar {
    type Weights = [[i8; 4]; LANES];
    type Activations = [u8; 4];

    #[inline(always)]
    unsafe fn corrections(p: *const u32, zero: i32) -> Self {
        let meta: [u32; LANES] = unsafe { read(p.cast()) };
        Self(meta.map(|meta| i32::from(meta as u16 as i16) * zero))
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
}
