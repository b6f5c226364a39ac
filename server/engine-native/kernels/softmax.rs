//! Scores of a span's tokens to the weights of their values.

use super::lanes::{LANES, Lanes};
use super::span::{ROW, SPAN};
use super::stored::Stored;

/// Replaces the first `visible` scores by the weights of their values, which take the values' scales with them if they are
/// stored with some, and returns the largest score and the sum of the exponentials.
///
/// # Safety
/// The instructions are there.
#[inline(always)]
pub(super) unsafe fn softmax<V: Lanes, E: Stored>(
    scores: &mut [f32; ROW],
    scales: &[f32; ROW],
    visible: usize,
) -> (f32, f32) {
    // SAFETY: passed on; there are so many vectors of scores.
    unsafe {
        match visible.div_ceil(LANES) {
            0 => (f32::NEG_INFINITY, 0.0),
            1 => of_vectors::<V, E, 1>(scores, scales, visible),
            2 => of_vectors::<V, E, 2>(scores, scales, visible),
            3 => of_vectors::<V, E, 3>(scores, scales, visible),
            _ => of_vectors::<V, E, { SPAN / LANES }>(scores, scales, visible),
        }
    }
}

/// [`softmax`] of K vectors, which stay in registers.
///
/// # Safety
/// The instructions are there; K is at most `SPAN / LANES`.
#[inline(always)]
unsafe fn of_vectors<V: Lanes, E: Stored, const K: usize>(
    scores: &mut [f32; ROW],
    scales: &[f32; ROW],
    visible: usize,
) -> (f32, f32) {
    let last = visible - (K - 1) * LANES;
    // SAFETY: from the first token's on, a row has SPAN scores and scales.
    unsafe {
        let scores = scores.as_mut_ptr().add(LANES);
        let scales = scales.as_ptr().add(LANES);
        let lowest = V::splat(f32::NEG_INFINITY);
        let (mut x, mut lanes) = ([lowest; K], lowest);
        for i in 0..K {
            x[i] = V::load(scores.add(i * LANES));
            if i + 1 == K {
                x[i] = x[i].first(last, lowest);
            }
            lanes = lanes.max(x[i]);
        }
        let largest = lanes.max_lane();
        let max = V::splat(largest);
        let mut sum = V::splat(0.0);
        for i in 0..K {
            let mut e = x[i].sub(max).exp();
            if i + 1 == K {
                e = e.first(last, V::splat(0.0));
            }
            sum = sum.add(e);
            if E::SCALED {
                e = e.mul(V::load(scales.add(i * LANES)));
            }
            e.store(scores.add(i * LANES));
        }
        (largest, sum.sum())
    }
}
