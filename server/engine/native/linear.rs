//! A linear layer in whichever format its weights are packed.

use super::kernels::Compute;
use super::kernels::gemm::{Epilogue, PackedF32, gemm};
use super::kernels::matrix::{Matrix, MatrixMut};

/// A linear layer, packed at load.
#[derive(Debug)]
pub enum Linear {
    /// fp32 weights, fp32 arithmetic.
    F32(PackedF32),
}

impl Linear {
    /// `y = epilogue(x Wᵀ + b)`.
    ///
    /// # Panics
    /// If the shapes do not fit: x `[m, >= inputs]`, y `[m, >= padded outputs]`.
    pub fn forward(
        &self,
        compute: &Compute,
        x: Matrix<'_>,
        y: &mut MatrixMut<'_>,
        epilogue: Epilogue,
    ) {
        match self {
            Self::F32(w) => gemm(compute, x, w, y, epilogue),
        }
    }

    /// Row `row` of the matrix, dequantized: the embedding of a token out of a tied head.
    ///
    /// # Panics
    /// If there is no such row or `out` is shorter than it.
    pub fn unpack_row(&self, row: usize, out: &mut [f32]) {
        match self {
            Self::F32(w) => w.unpack_row(row, out),
        }
    }

    /// Outputs, each part padded to whole panels.
    pub fn padded_outputs(&self) -> usize {
        match self {
            Self::F32(w) => w.padded_outputs(),
        }
    }

    /// Bytes of weights and biases.
    pub fn bytes(&self) -> u64 {
        match self {
            Self::F32(w) => w.bytes(),
        }
    }
}
