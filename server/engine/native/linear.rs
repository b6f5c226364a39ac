//! A linear layer in whichever format its weights are packed.

use super::kernels::Compute;
use super::kernels::gemm::{PackedF32, gemm};
use super::kernels::matrix::{Matrix, MatrixMut};
use super::kernels::panels::Epilogue;
use super::kernels::quantized_gemm::quantized_gemm;
use super::kernels::quantized_rows::QuantizedRows;
use super::kernels::quantized_weights::PackedQuantized;

/// A linear layer, packed at load.
#[derive(Debug)]
pub enum Linear {
    /// fp32 weights, fp32 arithmetic.
    F32(PackedF32),
    /// Weights in 8 or 4 bits, activations quantized on the way in.
    Quantized(PackedQuantized),
}

impl Linear {
    /// `y = epilogue(x Wᵀ + b)`. `room` is for the quantized x.
    ///
    /// # Panics
    /// If the shapes do not fit: x `[m, >= inputs]`, y `[m, >= padded outputs]`, room for m rows of
    /// [`quantized_inputs`](Self::quantized_inputs).
    pub fn forward(
        &self,
        compute: &Compute,
        x: Matrix<'_>,
        y: &mut MatrixMut<'_>,
        epilogue: Epilogue,
        room: &mut QuantizedRows,
    ) {
        match self {
            Self::F32(w) => gemm(compute, x, w, y, epilogue),
            Self::Quantized(w) => {
                room.quantize(compute, x, w.inputs());
                quantized_gemm(compute, room, w, y, epilogue);
            }
        }
    }

    /// Row `row` of the matrix, dequantized: the embedding of a token.
    ///
    /// # Panics
    /// If there is no such row or `out` is shorter than it.
    pub fn unpack_row(&self, row: usize, out: &mut [f32]) {
        match self {
            Self::F32(w) => w.unpack_row(row, out),
            Self::Quantized(w) => w.unpack_row(row, out),
        }
    }

    /// Outputs, each part padded to whole panels.
    pub fn padded_outputs(&self) -> usize {
        match self {
            Self::F32(w) => w.padded_outputs(),
            Self::Quantized(w) => w.padded_outputs(),
        }
    }

    /// How wide the quantized x is; 0: x stays as it is.
    pub fn quantized_inputs(&self) -> usize {
        match self {
            Self::F32(_) => 0,
            Self::Quantized(w) => w.inputs(),
        }
    }

    /// Bytes of weights, scales and biases.
    pub fn bytes(&self) -> u64 {
        match self {
            Self::F32(w) => w.bytes(),
            Self::Quantized(w) => w.bytes(),
        }
    }
}
