//! An encoder of the architecture `bert`, from token ids to one vector for each text, in 32 bits on any device.
//!
//! Every token attends to all tokens of its text. A text's vector is the mean of its tokens' last hidden states, scaled to
//! length 1.

use tch::{Device, Kind, Tensor};

use code_explainer_engine::{DeviceSpec, Encoder, EncoderInfo, EngineError};
use code_explainer_weights::{Activation, EncoderCheckpoint};

use super::device;
use crate::error::Result;

/// An encoder on a device.
#[derive(Debug)]
pub struct TorchEncoder {
    info: EncoderInfo,
    device: Device,
    /// `[vocabulary, hidden]`
    words: Tensor,
    /// Each position's vector and that of the first segment, `[positions, hidden]`.
    positions: Tensor,
    norm: Norm,
    layers: Vec<Layer>,
}

#[derive(Debug)]
struct Layer {
    /// Query, key and value as one, `[3 * hidden, hidden]`.
    qkv: Dense,
    output: Dense,
    attention_norm: Norm,
    up: Dense,
    down: Dense,
    norm: Norm,
    heads: i64,
    activation: Activation,
}

/// `x · weightᵀ + bias`
#[derive(Debug)]
struct Dense {
    weight: Tensor,
    bias: Tensor,
}

#[derive(Debug)]
struct Norm {
    weight: Tensor,
    bias: Tensor,
    eps: f64,
}

/// Copies an encoder's weights to the device. The checkpoint is not needed afterwards.
///
/// # Errors
/// [`EngineError::Device`] for a device that is not there, [`EngineError::OutOfMemory`] where the weights do not fit.
pub fn load_encoder(
    checkpoint: &EncoderCheckpoint,
    spec: DeviceSpec,
) -> std::result::Result<TorchEncoder, EngineError> {
    Ok(loaded(checkpoint, spec)?)
}

fn loaded(checkpoint: &EncoderCheckpoint, spec: DeviceSpec) -> Result<TorchEncoder> {
    let _no_grad = tch::no_grad_guard();
    let device = device::pick(spec)?;
    let config = checkpoint.config();
    let mut loader = Loader {
        checkpoint,
        device,
        eps: config.norm_eps,
        bytes: 0,
    };
    let words = loader.matrix("embeddings.word_embeddings.weight", config.hidden)?;
    let positions = loader.matrix("embeddings.position_embeddings.weight", config.hidden)?;
    let segments = loader.matrix("embeddings.token_type_embeddings.weight", config.hidden)?;
    let layers = (0..config.layers)
        .map(|n| loader.layer(n))
        .collect::<Result<_>>()?;
    Ok(TorchEncoder {
        device,
        words,
        positions: positions.f_add(&segments.f_select(0, 0)?)?,
        norm: loader.norm("embeddings.LayerNorm")?,
        layers,
        info: EncoderInfo {
            model: checkpoint.name().to_owned(),
            digest: checkpoint.digest().to_owned(),
            dimensions: config.hidden,
            positions: config.positions,
            vocabulary: config.vocabulary,
            device: device::name(device),
            weights_bytes: loader.bytes,
        },
    })
}

impl Encoder for TorchEncoder {
    fn info(&self) -> &EncoderInfo {
        &self.info
    }

    fn encode(&mut self, texts: &[&[u32]]) -> std::result::Result<Vec<Vec<f32>>, EngineError> {
        let longest = texts.iter().map(|text| text.len()).max().unwrap_or(0);
        if longest == 0 {
            return if texts.is_empty() {
                Ok(Vec::new())
            } else {
                Err(EngineError::Plan("a text without tokens".to_owned()))
            };
        }
        for text in texts {
            if text.is_empty() || text.len() > self.info.positions {
                return Err(EngineError::Plan(format!(
                    "a text of {} tokens",
                    text.len()
                )));
            }
            if let Some(token) = (text.iter()).find(|&&t| t as usize >= self.info.vocabulary) {
                return Err(EngineError::Plan(format!("token {token} of a text")));
            }
        }
        Ok(self.vectors(texts, longest)?)
    }
}

impl TorchEncoder {
    /// Of texts that have been looked at, of which the longest has so many tokens.
    fn vectors(&self, texts: &[&[u32]], longest: usize) -> Result<Vec<Vec<f32>>> {
        let mut ids = vec![0_i64; texts.len() * longest];
        let mut mask = vec![0_f32; texts.len() * longest];
        for (row, text) in texts.iter().enumerate() {
            for (column, &token) in text.iter().enumerate() {
                ids[row * longest + column] = token.into();
                mask[row * longest + column] = 1.0;
            }
        }
        let _no_grad = tch::no_grad_guard();
        let shape = [texts.len() as i64, longest as i64];
        let ids = Tensor::f_from_slice(&ids)?
            .f_view(shape)?
            .f_to_device(self.device)?;
        let mask = Tensor::f_from_slice(&mask)?
            .f_view(shape)?
            .f_to_device(self.device)?;
        let vectors = self.forward(&ids, &mask)?.f_to_device(Device::Cpu)?; // [texts, hidden]
        let width = self.info.dimensions;
        let mut values = vec![0_f32; texts.len() * width];
        let count = values.len();
        vectors.f_contiguous()?.f_copy_data(&mut values, count)?;
        Ok(values.chunks_exact(width).map(<[f32]>::to_vec).collect())
    }

    /// `ids` and `mask`, 1 where there is a token, are `[texts, tokens]`.
    fn forward(&self, ids: &Tensor, mask: &Tensor) -> Result<Tensor> {
        let (texts, tokens) = ids.size2()?;
        let words = self.words.f_index_select(0, &ids.f_view([-1])?)?;
        let words = words.f_view([texts, tokens, -1])?;
        let x = words.f_add(&self.positions.f_narrow(0, 0, tokens)?)?;
        let mut x = self.norm.forward(&x)?; // [texts, tokens, hidden]
        // Every query may see all tokens of its text and no padding.
        let visible = mask.f_gt(0.5)?.f_view([texts, 1, 1, tokens])?;
        for layer in &self.layers {
            x = layer.forward(&x, &visible)?;
        }
        let weights = mask.f_unsqueeze(2)?; // [texts, tokens, 1]
        let sum = x
            .f_mul(&weights)?
            .f_sum_dim_intlist([1_i64].as_slice(), false, Kind::Float)?;
        let mean =
            sum.f_div(&weights.f_sum_dim_intlist([1_i64].as_slice(), false, Kind::Float)?)?;
        let length = mean.f_norm_scalaropt_dim(2.0, [1_i64].as_slice(), true)?;
        Ok(mean.f_div(&length.f_clamp_min(1e-12)?)?)
    }
}

impl Layer {
    /// `[texts, tokens, hidden]` to the same.
    fn forward(&self, x: &Tensor, visible: &Tensor) -> Result<Tensor> {
        let (texts, tokens, hidden) = x.size3()?;
        let shape = [texts, tokens, 3, self.heads, hidden / self.heads];
        // [3, texts, heads, tokens, width of a head]
        let qkv = self
            .qkv
            .forward(x)?
            .f_view(shape)?
            .f_permute([2, 0, 3, 1, 4])?;
        let (q, k, v) = (
            qkv.f_select(0, 0)?,
            qkv.f_select(0, 1)?,
            qkv.f_select(0, 2)?,
        );
        let mixed = Tensor::f_scaled_dot_product_attention(
            &q,
            &k,
            &v,
            Some(visible),
            0.0,
            false,
            None,
            false,
        )?;
        let mixed = mixed
            .f_transpose(1, 2)?
            .f_reshape([texts, tokens, hidden])?;
        let x = self
            .attention_norm
            .forward(&x.f_add(&self.output.forward(&mixed)?)?)?;
        let wide = self.up.forward(&x)?;
        let wide = match self.activation {
            Activation::Silu => wide.f_silu()?,
            Activation::GeluTanh => wide.f_gelu("tanh")?,
            Activation::Gelu => wide.f_gelu("none")?,
        };
        self.norm.forward(&x.f_add(&self.down.forward(&wide)?)?)
    }
}

impl Dense {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Ok(x.f_linear(&self.weight, Some(&self.bias))?)
    }
}

impl Norm {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (weight, bias) = (Some(&self.weight), Some(&self.bias));
        Ok(x.f_layer_norm(self.weight.size(), weight, bias, self.eps, false)?)
    }
}

struct Loader<'a> {
    checkpoint: &'a EncoderCheckpoint,
    device: Device,
    eps: f64,
    /// Bytes of the weights loaded so far.
    bytes: u64,
}

impl Loader<'_> {
    fn layer(&mut self, number: usize) -> Result<Layer> {
        let config = self.checkpoint.config();
        let (hidden, intermediate) = (config.hidden, config.intermediate);
        let at = |name: &str| format!("encoder.layer.{number}.{name}");
        let parts = ["query", "key", "value"].map(|part| at(&format!("attention.self.{part}")));
        Ok(Layer {
            qkv: self.dense(&parts, hidden)?,
            output: self.dense(&[at("attention.output.dense")], hidden)?,
            attention_norm: self.norm(&at("attention.output.LayerNorm"))?,
            up: self.dense(&[at("intermediate.dense")], hidden)?,
            down: self.dense(&[at("output.dense")], intermediate)?,
            norm: self.norm(&at("output.LayerNorm"))?,
            heads: config.heads as i64,
            activation: config.activation,
        })
    }

    /// Layers of the same input, one above the other.
    fn dense(&mut self, names: &[String], inputs: usize) -> Result<Dense> {
        let mut both = |kind: &str, width: usize| -> Result<Tensor> {
            let parts = names
                .iter()
                .map(|name| self.matrix(&format!("{name}.{kind}"), width));
            Ok(Tensor::f_cat(&parts.collect::<Result<Vec<_>>>()?, 0)?)
        };
        let weight = both("weight", inputs)?;
        let bias = both("bias", 1)?.f_view([-1])?;
        Ok(Dense { weight, bias })
    }

    fn norm(&mut self, name: &str) -> Result<Norm> {
        Ok(Norm {
            weight: self.matrix(&format!("{name}.weight"), 1)?.f_view([-1])?,
            bias: self.matrix(&format!("{name}.bias"), 1)?.f_view([-1])?,
            eps: self.eps,
        })
    }

    /// `[rows, columns]`
    fn matrix(&mut self, name: &str, columns: usize) -> Result<Tensor> {
        let values = self.checkpoint.tensor(name)?;
        self.bytes += size_of_val(values.as_slice()) as u64;
        let matrix = Tensor::f_from_slice(&values)?.f_view([-1, columns as i64])?;
        Ok(matrix.f_to_device(self.device)?)
    }
}
