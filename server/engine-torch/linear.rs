//! Matrices in the precision of the arithmetic, in 8 bits and in 4 bits, and the operators of libtorch that multiply by them.
//!
//! Only weights are quantized. What they are multiplied by is rounded to bf16, which is all that CUDA's operator for 4 bits
//! takes, and the only precision that the CPU's operators are fast in; the rest of the network keeps its own. In 8 bits a row of the matrix has one scale, which is what the operator takes; in 4 bits 32 columns of a row share a
//! scale and a minimum, so that a file's own Q4_1 blocks come through as they are.

use tch::{Device, Kind, Tensor};

use code_explainer_engine::EngineError;

use crate::error::Result;

/// Columns that share a scale and a minimum in 4 bits.
pub(super) const GROUP: i64 = 32;
/// The operators want a matrix of as many rows, or a multiple; and columns in whole groups.
pub(super) const ROWS: i64 = 16;

/// Of scales, and of what the quantized operators multiply by.
const OPERAND: Kind = Kind::BFloat16;

/// How a matrix is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Storage {
    /// As numbers of the arithmetic's precision.
    Float,
    Int8,
    Int4,
}

/// `[out, in]`
#[derive(Debug)]
pub(super) enum Weights {
    /// `[out, in]`
    Float(Tensor),
    Int8 {
        /// Bytes with a sign, `[out rounded up, in]`.
        values: Tensor,
        /// `[out rounded up]`
        scales: Tensor,
    },
    Int4 {
        /// As the device's operator wants them.
        packed: Tensor,
        /// Scale, and the value of an 8: `[in / GROUP, out rounded up, 2]`.
        scales_and_zeros: Tensor,
    },
}

/// `x · weightᵀ + bias`.
#[derive(Debug)]
pub(super) struct Linear {
    pub(super) weights: Weights,
    /// `[out]`
    pub(super) bias: Option<Tensor>,
    pub(super) outputs: i64,
}

/// A vector for each token.
#[derive(Debug)]
pub(super) struct Embedding(pub(super) Weights);

impl Linear {
    /// `[rows, in]` to `[rows, out]`.
    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let operand = || x.f_to_kind(OPERAND);
        let y = match &self.weights {
            Weights::Float(weight) => return Ok(x.f_linear(weight, self.bias.as_ref())?),
            Weights::Int8 { values, scales } => {
                operand()?.f_internal_weight_int8pack_mm(values, scales)?
            }
            Weights::Int4 {
                packed,
                scales_and_zeros,
            } if packed.device().is_cuda() => {
                operand()?.f_internal_weight_int4pack_mm(packed, GROUP, scales_and_zeros)?
            }
            Weights::Int4 {
                packed,
                scales_and_zeros,
            } => {
                operand()?.f_internal_weight_int4pack_mm_for_cpu(packed, GROUP, scales_and_zeros)?
            }
        };
        let y = y.f_narrow(1, 0, self.outputs)?.f_to_kind(x.f_kind()?)?;
        Ok(match &self.bias {
            Some(bias) => y.f_add(bias)?,
            None => y,
        })
    }
}

impl Embedding {
    /// The tokens' vectors, `[tokens, hidden]`.
    pub(super) fn rows(&self, tokens: &Tensor, kind: Kind) -> Result<Tensor> {
        match &self.0 {
            Weights::Float(table) => Ok(table.f_index_select(0, tokens)?),
            Weights::Int8 { values, scales } => {
                let scales = scales.f_index_select(0, tokens)?.f_unsqueeze(1)?;
                let rows = values.f_index_select(0, tokens)?.f_to_kind(kind)?;
                Ok(rows.f_mul(&scales.f_to_kind(kind)?)?)
            }
            Weights::Int4 { .. } => Err(EngineError::Broken("an embedding in 4 bits").into()),
        }
    }
}

impl Weights {
    /// Another handle on the same memory.
    pub(super) fn share(&self) -> Self {
        match self {
            Self::Float(weight) => Self::Float(weight.shallow_clone()),
            Self::Int8 { values, scales } => Self::Int8 {
                values: values.shallow_clone(),
                scales: scales.shallow_clone(),
            },
            Self::Int4 {
                packed,
                scales_and_zeros,
            } => Self::Int4 {
                packed: packed.shallow_clone(),
                scales_and_zeros: scales_and_zeros.shallow_clone(),
            },
        }
    }

    /// Its tensors, for those who count bytes.
    pub(super) fn tensors(&self) -> Vec<&Tensor> {
        match self {
            Self::Float(weight) => vec![weight],
            Self::Int8 { values, scales } => vec![values, scales],
            Self::Int4 {
                packed,
                scales_and_zeros,
            } => vec![packed, scales_and_zeros],
        }
    }
}

/// A matrix that is quantized piece by piece, so that it never exists in 32 bits as a whole.
#[derive(Debug)]
pub(super) struct Quantizer {
    storage: Storage,
    columns: i64,
    values: Vec<Tensor>,
    scales: Vec<Tensor>,
}

impl Quantizer {
    /// For `Int8` or `Int4`.
    pub(super) fn new(storage: Storage, columns: i64) -> Self {
        Self {
            storage,
            columns,
            values: Vec::new(),
            scales: Vec::new(),
        }
    }

    /// Takes rows, `[rows, columns]` in 32 bits.
    ///
    /// # Errors
    /// `None` if one of them is not a finite number.
    pub(super) fn push(&mut self, rows: &Tensor) -> Result<Option<()>> {
        if !bool::try_from(rows.f_isfinite()?.f_all()?)? {
            return Ok(None);
        }
        // What the scale is rounded to is what values are divided by.
        let rounded = |x: &Tensor| x.f_to_kind(OPERAND)?.f_to_kind(Kind::Float);
        let nonzero = |scale: Tensor| {
            let is_zero = scale.f_eq(0.0)?;
            scale.f_masked_fill(&is_zero, 1.0)
        };
        let (values, scales) = if self.storage == Storage::Int8 {
            let largest = rows.f_abs()?.f_amax([1], true)?;
            let scale = nonzero(rounded(&largest.f_div_scalar(127.0)?)?)?; // [rows, 1]
            let values = rows.f_div(&scale)?.f_round()?.f_clamp(-127.0, 127.0)?;
            (values.f_to_kind(Kind::Int8)?, scale.f_squeeze_dim(1)?)
        } else {
            let groups = rows.f_view([-1, self.columns / GROUP, GROUP])?;
            let (low, high) = (groups.f_amin([2], true)?, groups.f_amax([2], true)?);
            let scale = nonzero(rounded(&high.f_sub(&low)?.f_div_scalar(15.0)?)?)?; // [rows, groups, 1]
            let zero = rounded(&low.f_add(&scale.f_mul_scalar(8.0)?)?)?;
            let values = groups.f_sub(&zero)?.f_div(&scale)?.f_add_scalar(8.0)?;
            let values = values
                .f_round()?
                .f_clamp(0.0, 15.0)?
                .f_to_kind(Kind::Uint8)?;
            (
                values.f_view([-1, self.columns])?,
                Tensor::f_cat(&[scale, zero], 2)?,
            )
        };
        self.values.push(values);
        self.scales.push(scales.f_to_kind(OPERAND)?);
        Ok(Some(()))
    }

    /// The matrix on a device, with rows of zeros up to a multiple of [`ROWS`].
    pub(super) fn finish(self, device: Device) -> Result<Weights> {
        let padded = |parts: &[Tensor]| -> Result<Tensor> {
            let whole = Tensor::f_cat(parts, 0)?;
            let missing = (ROWS - whole.size()[0] % ROWS) % ROWS;
            // A pair of numbers for each dimension, the last one first.
            let mut padding = vec![0; 2 * whole.dim()];
            if let Some(last) = padding.last_mut() {
                *last = missing;
            }
            Ok(whole.f_constant_pad_nd(padding)?.f_to_device(device)?)
        };
        let (values, scales) = (padded(&self.values)?, padded(&self.scales)?);
        if self.storage == Storage::Int8 {
            return Ok(Weights::Int8 { values, scales });
        }
        let packed = if device.is_cuda() {
            let pairs = values.f_view([-1, self.columns / 2, 2])?;
            let high = pairs
                .f_select(2, 0)?
                .f_bitwise_left_shift_tensor_scalar(4)?;
            let bytes = high.f_bitwise_or_tensor(&pairs.f_select(2, 1)?)?;
            bytes.f_internal_convert_weight_to_int4pack(inner_tiles(self.columns))?
        } else {
            let wide = values.f_to_kind(Kind::Int)?;
            // The number of tiles means something on CUDA only.
            wide.f_internal_convert_weight_to_int4pack_for_cpu(2)?
        };
        Ok(Weights::Int4 {
            packed,
            scales_and_zeros: scales.f_transpose(0, 1)?.f_contiguous()?,
        })
    }
}

/// Tiles of 16 columns that CUDA's operator reads at once: the most of 8, 4 and 2 that divide the columns.
fn inner_tiles(columns: i64) -> i64 {
    [8, 4]
        .into_iter()
        .find(|tiles| columns % (16 * tiles) == 0)
        .unwrap_or(2)
}
