//! A linear layer in whichever format its weights are packed.

use super::kernels::Compute;
use super::kernels::gemm::{PackedF32, gemm};
use super::kernels::matrix::{Matrix, MatrixMut};
use super::kernels::norm::Norm;
use super::kernels::panels::Epilogue;
use super::kernels::quantized_gemm::{Then, gated_product, quantized_gemm};
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
        then: Option<Then<'_>>,
    ) {
        if let Self::Quantized(w) = self {
            room.quantize(compute, x, w.inputs());
        }
        self.multiply(compute, (x, room), y, epilogue, then);
    }

    /// As [`forward`](Self::forward), where the quantized x is there already; nobody looks at x then.
    ///
    /// # Panics
    /// If the shapes do not fit.
    pub fn multiply(
        &self,
        compute: &Compute,
        (x, quantized): (Matrix<'_>, &QuantizedRows),
        y: &mut MatrixMut<'_>,
        epilogue: Epilogue,
        then: Option<Then<'_>>,
    ) {
        match self {
            Self::F32(w) => gemm(compute, x, w, y, epilogue),
            Self::Quantized(w) => quantized_gemm(compute, quantized, w, y, epilogue, then),
        }
    }

    /// This layer as the one that comes after another, whose last task fetches its first weights.
    pub fn then(&self, activation: Epilogue) -> Option<Then<'_>> {
        let gated = activation == Epilogue::SiluMul;
        match self {
            Self::F32(_) => None,
            Self::Quantized(w) => Some(Then { w, gated }),
        }
    }

    /// The norm of x as [`multiply`](Self::multiply) takes it: in `normed`, or in `quantized`.
    ///
    /// # Panics
    /// If the shapes do not fit; see [`Norm`].
    pub fn normed(
        &self,
        compute: &Compute,
        norm: &Norm,
        x: Matrix<'_>,
        normed: &mut MatrixMut<'_>,
        (quantized, scratch): (&mut QuantizedRows, &mut MatrixMut<'_>),
    ) {
        match self {
            Self::F32(_) => norm.forward(compute, x, normed),
            Self::Quantized(_) => norm.quantize(compute, x, scratch, quantized),
        }
    }

    /// `activation(x Wᵀ + b)` as `next` takes it: in y, or in `activated`; x as [`multiply`](Self::multiply) takes it.
    ///
    /// # Panics
    /// If the shapes do not fit.
    pub fn activated(
        &self,
        compute: &Compute,
        (x, quantized): (Matrix<'_>, &QuantizedRows),
        y: &mut MatrixMut<'_>,
        activation: Epilogue,
        next: &Self,
        (activated, scratch): (&mut QuantizedRows, &mut MatrixMut<'_>),
    ) {
        let then = next.then(Epilogue::Add);
        match (self, next) {
            (Self::Quantized(w), Self::Quantized(next)) if activation == Epilogue::SiluMul => {
                gated_product(compute, quantized, w, scratch, activated, next);
            }
            (_, Self::F32(_)) => self.multiply(compute, (x, quantized), y, activation, then),
            (_, Self::Quantized(next)) => {
                self.multiply(compute, (x, quantized), y, activation, then);
                activated.quantize(compute, y.as_matrix(), next.inputs());
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
