//! RMSNorm and LayerNorm, row by row.

use super::isa::{Isa, dispatch};
use super::lanes::{LANES, Lanes};
use super::matrix::{Matrix, MatrixMut};
use super::quantized_rows::QuantizedRows;
use super::{Compute, TASK_ROWS, for_rows};

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
        assert!(y.stride >= self.weight.len() && y.rows >= x.rows);
        let (y, isa) = (&*y, compute.isa);
        for_rows(compute, x.rows, |rows, _| {
            for row in rows {
                // SAFETY: only this call touches this row.
                let y = unsafe { y.row_part(row, 0, self.weight.len()) };
                self.row(isa, x.row(row), y);
            }
        });
    }

    /// `y = norm(x)` in bytes, the first `width` columns. What lies between stays in `scratch`, and so in the caches:
    /// [`scratch`](Self::scratch) floats for each worker.
    ///
    /// # Panics
    /// If the shapes do not fit, as those of [`forward`](Self::forward).
    pub fn quantize(
        &self,
        compute: &Compute,
        x: Matrix<'_>,
        scratch: &mut MatrixMut<'_>,
        y: &mut QuantizedRows,
    ) {
        let (stride, scratch, isa) = (self.weight.len(), &*scratch, compute.isa);
        assert!(scratch.rows >= compute.pool.threads());
        let y = y.begin(compute.isa, x.rows, self.width);
        for_rows(compute, x.rows, |rows, worker| {
            // SAFETY: a worker has a row of scratch for itself.
            let normed = unsafe { scratch.row_part(worker, 0, Self::scratch(self.width)) };
            for (row, normed) in rows.clone().zip(normed.chunks_exact_mut(stride)) {
                self.row(isa, x.row(row), normed);
            }
            // SAFETY: each row is in one task.
            unsafe { y.quantize_rows(rows, normed, stride) };
        });
    }

    /// Floats that [`quantize`](Self::quantize) needs for each worker, of rows of so many.
    pub fn scratch(width: usize) -> usize {
        TASK_ROWS * width.next_multiple_of(LANES)
    }

    fn row(&self, isa: Isa, x: &[f32], y: &mut [f32]) {
        let padded = self.weight.len();
        let args = Row {
            x: x[..padded].as_ptr(),
            y: y[..padded].as_mut_ptr(),
            weight: self.weight.as_ptr(),
            bias: self.bias.as_ref().map(|b| b.as_ptr()),
            width: self.width,
            eps: self.eps,
        };
        // SAFETY: all four hold the width rounded up to 16.
        unsafe { dispatch!(isa, normalize(args: Row)) }
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
