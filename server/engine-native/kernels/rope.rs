//! Rotary position embedding (Su et al. 2021), "rotate half" order.

use super::lanes::{LANES, Lanes};

/// Sines and cosines of every position.
#[derive(Debug)]
pub struct Rope {
    /// `[positions][half]`.
    cos: Vec<f32>,
    /// `[positions][half]`.
    sin: Vec<f32>,
    half: usize,
}

impl Rope {
    /// Tables for `positions` positions from the inverse frequencies of a head's rotating pairs; none of them for a model
    /// without rotary embedding.
    ///
    /// The angle is rounded to f32 as in the models' reference implementation: at large positions another rounding is
    /// another angle.
    pub fn new(inverse_frequencies: &[f32], positions: usize) -> Self {
        let angle = |position: usize, f: f32| f64::from(position as f32 * f);
        let (sin, cos) = (0..positions)
            .flat_map(|p| inverse_frequencies.iter().map(move |&f| angle(p, f)))
            .map(f64::sin_cos)
            .map(|(sin, cos)| (sin as f32, cos as f32))
            .unzip();
        Self {
            cos,
            sin,
            half: inverse_frequencies.len(),
        }
    }

    /// Writes the head `x`, rotated to `position`, to `out`.
    ///
    /// # Panics
    /// If the position is outside the tables, the head narrower than what rotates, or `out` not as wide as the head.
    ///
    /// # Safety
    /// The instructions are there.
    #[inline(always)]
    pub(super) unsafe fn rotate<V: Lanes>(&self, position: usize, x: &[f32], out: &mut [f32]) {
        let half = self.half;
        let cos = &self.cos[position * half..][..half];
        let sin = &self.sin[position * half..][..half];
        out[2 * half..].copy_from_slice(&x[2 * half..]);
        let (low, high) = x[..2 * half].split_at(half);
        let (out_low, out_high) = out[..2 * half].split_at_mut(half);
        let whole = half / LANES * LANES;
        for j in (0..whole).step_by(LANES) {
            // SAFETY: j + 16 is at most half.
            unsafe {
                let (a, b) = (V::load(low.as_ptr().add(j)), V::load(high.as_ptr().add(j)));
                let (cos, sin) = (V::load(cos.as_ptr().add(j)), V::load(sin.as_ptr().add(j)));
                let first = a.mul(cos).sub(b.mul(sin));
                first.store(out_low.as_mut_ptr().add(j));
                let second = b.mul(cos).add(a.mul(sin));
                second.store(out_high.as_mut_ptr().add(j));
            }
        }
        for j in whole..half {
            let (a, b) = (low[j], high[j]);
            out_low[j] = a * cos[j] - b * sin[j];
            out_high[j] = b * cos[j] + a * sin[j];
        }
    }
}
