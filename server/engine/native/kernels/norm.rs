//! RMSNorm and LayerNorm, row by row.

use super::isa::dispatch;
use super::lanes::{LANES, Lanes};
use super::matrix::{Matrix, MatrixMut};
use super::{Compute, PARALLEL_ROWS};

/// Rows in a task.
const TASK_ROWS: usize = 8;

/// A norm's parameters.
#[derive(Debug, Clone)]
pub struct Norm {
    weight: Vec<f32>,
    bias: Option<Vec<f32>>,
    width: usize,
    eps: f32,
}

impl Norm {
    /// RMSNorm: `x / sqrt(mean(x^2) + eps) * weight` (Zhang and Sennrich 2019).
    pub fn rms(weight: &[f32], eps: f32) -> Self {
        Self {
            weight: padded(weight),
            bias: None,
            width: weight.len(),
            eps,
        }
    }

    /// LayerNorm: `(x - mean) / sqrt(variance + eps) * weight + bias` (Ba et al. 2016).
    ///
    /// # Panics
    /// If weight and bias differ in length.
    pub fn layer(weight: &[f32], bias: &[f32], eps: f32) -> Self {
        assert_eq!(weight.len(), bias.len());
        Self {
            weight: padded(weight),
            bias: Some(padded(bias)),
            width: weight.len(),
            eps,
        }
    }

    /// `y = norm(x)` over the rows of x, the first `width` columns; the columns up to the next multiple of 16 of y become 0.
    ///
    /// # Panics
    /// If the shapes do not fit: columns of both up to a multiple of 16, those of x beyond the width zero.
    pub fn forward(&self, compute: &Compute, x: Matrix<'_>, y: &mut MatrixMut<'_>) {
        let padded = self.weight.len();
        assert!(x.stride >= padded && y.stride >= padded && y.rows >= x.rows);
        let (y, isa) = (&*y, compute.isa);
        let row = |i: usize| {
            let args = Row {
                x: x.row(i)[..padded].as_ptr(),
                // SAFETY: only this call touches row i.
                y: unsafe { y.row_part(i, 0, padded) }.as_mut_ptr(),
                weight: self.weight.as_ptr(),
                bias: self.bias.as_ref().map(|b| b.as_ptr()),
                width: self.width,
                eps: self.eps,
            };
            // SAFETY: all four hold the width rounded up to 16.
            unsafe { dispatch!(isa, normalize(args: Row)) }
        };
        if x.rows < PARALLEL_ROWS {
            return (0..x.rows).for_each(row);
        }
        compute.pool.run(x.rows.div_ceil(TASK_ROWS), &|task, _| {
            (task * TASK_ROWS..x.rows.min((task + 1) * TASK_ROWS)).for_each(row);
        });
    }
}

fn padded(x: &[f32]) -> Vec<f32> {
    let mut x = x.to_vec();
    x.resize(x.len().next_multiple_of(LANES), 0.0);
    x
}

#[derive(Clone, Copy)]
struct Row {
    x: *const f32,
    y: *mut f32,
    weight: *const f32,
    bias: Option<*const f32>,
    width: usize,
    eps: f32,
}

/// # Safety
/// All pointers are valid for `width` floats rounded up to 16; x and weight (and bias) are zero beyond `width`.
#[inline(always)]
unsafe fn normalize<V: Lanes>(row: Row) {
    let padded = row.width.next_multiple_of(LANES);
    let n = row.width as f32;
    // SAFETY: i + 16 is at most the padded width.
    unsafe {
        let mut mean = 0.0;
        if row.bias.is_some() {
            let mut sum = V::splat(0.0);
            for i in (0..padded).step_by(LANES) {
                sum = sum.add(V::load(row.x.add(i)));
            }
            mean = sum.sum() / n;
        }
        let mut squares = V::splat(0.0);
        for i in (0..row.width / LANES * LANES).step_by(LANES) {
            let d = V::load(row.x.add(i)).sub(V::splat(mean));
            squares = d.fma(d, squares);
        }
        let mut squares = squares.sum();
        for i in row.width / LANES * LANES..row.width {
            let d = *row.x.add(i) - mean;
            squares = d.mul_add(d, squares);
        }
        let scale = V::splat(1.0 / (squares / n + row.eps).sqrt());
        for i in (0..padded).step_by(LANES) {
            let d = V::load(row.x.add(i)).sub(V::splat(mean));
            let scaled = d.mul(scale).mul(V::load(row.weight.add(i)));
            match row.bias {
                Some(bias) => scaled.add(V::load(bias.add(i))).store(row.y.add(i)),
                None => scaled.store(row.y.add(i)),
            }
        }
    }
}
