//! Rotary position embedding (Su et al. 2021), "rotate half" order.

/// Sines and cosines of every position.
#[derive(Debug)]
pub struct Rope {
    /// `[positions][half]` of (cos, sin).
    table: Vec<(f32, f32)>,
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
        let pair = |(sin, cos): (f64, f64)| (cos as f32, sin as f32);
        let table = (0..positions)
            .flat_map(|p| {
                inverse_frequencies
                    .iter()
                    .map(move |&f| pair(angle(p, f).sin_cos()))
            })
            .collect();
        Self {
            table,
            half: inverse_frequencies.len(),
        }
    }

    /// Calls `out(d, value)` for each dimension d of the head `x`, rotated to `position`.
    ///
    /// # Panics
    /// If the position is outside the tables or the head is narrower than what rotates.
    #[inline(always)]
    pub(super) fn rotate(&self, position: usize, x: &[f32], mut out: impl FnMut(usize, f32)) {
        let half = self.half;
        let angles = &self.table[position * half..][..half];
        let (rotating, rest) = x.split_at(2 * half);
        let (low, high) = rotating.split_at(half);
        for (j, ((&a, &b), &(cos, sin))) in low.iter().zip(high).zip(angles).enumerate() {
            out(j, a * cos - b * sin);
            out(j + half, b * cos + a * sin);
        }
        for (j, &a) in rest.iter().enumerate() {
            out(2 * half + j, a);
        }
    }
}
