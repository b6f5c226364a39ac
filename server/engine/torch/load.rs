//! From a checkpoint to tensors on a device.

use tch::{Device, Kind, Tensor};

use super::backend::TorchBackend;
use super::device;
use super::kv_cache::{KvCache, KvShape};
use super::model::{Attention, Block, FeedForward, Linear, Model, Norm, Positions};
use crate::engine::{BackendInfo, EngineError, EngineOptions};
use crate::weights::{Architecture, Checkpoint, ModelConfig};

type Result<T> = std::result::Result<T, EngineError>;

/// Elements that are dequantized before they are copied to the device: what loading needs beside the weights, 4 MiB.
const STAGED: usize = 1 << 20;

/// Copies a checkpoint's weights to the device in the chosen precision and allocates the KV pool. The checkpoint is not
/// needed afterwards.
///
/// `options.threads` is set for the whole process, because libtorch has one setting for its CPU operators.
///
/// # Errors
/// [`EngineError::Device`] for a device that is not there, a precision that it does not have, another one for the KV cache
/// or a KV cache of no tokens, [`EngineError::OutOfMemory`] where
/// weights and pool do not fit, [`EngineError::Weights`] for a tensor that cannot be read.
pub fn load(checkpoint: &Checkpoint, options: &EngineOptions) -> Result<TorchBackend> {
    let _no_grad = tch::no_grad_guard();
    let device = device::pick(options.device)?;
    let precision = options
        .precision
        .unwrap_or_else(|| device::default_precision(device));
    let kind = device::kind(precision, device)?;
    let kv_precision = device::kv_precision(kind);
    if let Some(wanted) = options
        .kv_precision
        .filter(|&wanted| wanted != kv_precision)
    {
        return Err(EngineError::Device {
            device: device::name(device),
            reason: format!(
                "the eager engine stores keys and values in its own precision, {kv_precision}, not in {wanted}"
            ),
        });
    }
    set_threads(options.threads);
    let config = checkpoint.config();
    let shape = kv_shape(config, options)?;
    let too_large =
        || EngineError::OutOfMemory(format!("a KV pool of {shape:?} cannot be allocated"));
    let kv_pool_bytes = shape.bytes(kind).ok_or_else(too_large)?;

    let mut loader = Loader {
        checkpoint,
        config,
        kind,
        device,
        bytes: 0,
    };
    let model = loader.model()?;
    let info = BackendInfo {
        model: checkpoint.name().to_owned(),
        architecture: config.architecture.to_string(),
        parameters: checkpoint.parameters(),
        context_length: config.context_length,
        vocabulary: config.vocabulary,
        precision,
        device: device::name(device),
        block_tokens: shape.block_tokens,
        blocks: shape.blocks,
        kv_precision,
        kv_pool_bytes,
        weights_bytes: loader.bytes,
    };
    let cache = KvCache::new(shape, kind, device)?;
    Ok(TorchBackend {
        info,
        device,
        model,
        cache,
    })
}

fn set_threads(threads: usize) {
    let threads = match threads {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        threads => threads,
    };
    tch::set_num_threads(i32::try_from(threads).unwrap_or(i32::MAX));
}

fn kv_shape(config: &ModelConfig, options: &EngineOptions) -> Result<KvShape> {
    if options.block_tokens == 0 || options.kv_cache_tokens == 0 {
        return Err(EngineError::Device {
            device: options.device.to_string(),
            reason: "the KV cache needs at least one token, and so does a block".to_owned(),
        });
    }
    Ok(KvShape {
        layers: config.layers,
        blocks: options.kv_cache_tokens.div_ceil(options.block_tokens),
        block_tokens: options.block_tokens,
        kv_heads: config.kv_heads,
        head_dim: config.head_dim,
    })
}

struct Loader<'a> {
    checkpoint: &'a Checkpoint,
    config: &'a ModelConfig,
    kind: Kind,
    device: Device,
    /// Bytes of the weights loaded so far.
    bytes: u64,
}

impl Loader<'_> {
    fn model(&mut self) -> Result<Model> {
        let embedding = self.matrix(&["token_embd.weight"])?;
        let positions = match self.config.architecture {
            Architecture::Gpt2 => Positions::Learned(self.matrix(&["position_embd.weight"])?),
            Architecture::Llama | Architecture::Qwen2 => {
                let frequencies = self.checkpoint.inverse_frequencies();
                Positions::Rotary(Tensor::f_from_slice(&frequencies)?.f_to_device(self.device)?)
            }
        };
        Ok(Model {
            positions,
            blocks: (0..self.config.layers)
                .map(|layer| self.block(layer))
                .collect::<Result<_>>()?,
            norm: self.norm("output_norm")?,
            head: match self.config.tied_head {
                true => embedding.shallow_clone(),
                false => self.matrix(&["output.weight"])?,
            },
            embedding,
        })
    }

    fn block(&mut self, layer: usize) -> Result<Block> {
        let ModelConfig {
            heads,
            kv_heads,
            head_dim,
            activation,
            architecture,
            ..
        } = *self.config;
        let name = |part: &str| format!("blk.{layer}.{part}");
        let gated = architecture != Architecture::Gpt2;
        let (qkv, up): (&[&str], &[&str]) = if gated {
            (&["attn_q", "attn_k", "attn_v"], &["ffn_gate", "ffn_up"])
        } else {
            (&["attn_qkv"], &["ffn_up"])
        };
        Ok(Block {
            attention_norm: self.norm(&name("attn_norm"))?,
            attention: Attention {
                qkv: self.linear(layer, qkv)?,
                output: self.linear(layer, &["attn_output"])?,
                heads: heads as i64,
                kv_heads: kv_heads as i64,
                head_dim: head_dim as i64,
            },
            feed_forward_norm: self.norm(&name("ffn_norm"))?,
            feed_forward: FeedForward {
                up: self.linear(layer, up)?,
                down: self.linear(layer, &["ffn_down"])?,
                gated,
                activation,
            },
        })
    }

    /// Several linear layers of one input as one, below each other in the order given.
    fn linear(&mut self, layer: usize, parts: &[&str]) -> Result<Linear> {
        let names = |suffix: &str| -> Vec<String> {
            parts
                .iter()
                .map(|part| format!("blk.{layer}.{part}.{suffix}"))
                .collect()
        };
        let (weights, biases) = (names("weight"), names("bias"));
        let biased = biases.iter().any(|name| self.checkpoint.has_tensor(name));
        Ok(Linear {
            weight: self.matrix(&weights.iter().map(String::as_str).collect::<Vec<_>>())?,
            bias: biased.then(|| self.bias(&weights, &biases)).transpose()?,
        })
    }

    /// A part without a bias has one of zeros here.
    fn bias(&mut self, weights: &[String], biases: &[String]) -> Result<Tensor> {
        let mut bias = Vec::new();
        for (weight, name) in weights.iter().zip(biases) {
            let rows = self.checkpoint.tensor(weight)?.rows();
            if self.checkpoint.has_tensor(name) {
                bias.extend(self.checkpoint.tensor(name)?.to_f32());
            } else {
                bias.resize(bias.len() + rows, 0.0);
            }
        }
        self.vector(&bias, self.kind)
    }

    /// Weight and, for LayerNorm, bias of a norm. They stay in 32 bits, as norms are computed in those.
    fn norm(&mut self, name: &str) -> Result<Norm> {
        let eps = f64::from(self.config.norm_eps);
        let weight = self.checkpoint.tensor(&format!("{name}.weight"))?.to_f32();
        let weight = self.vector(&weight, Kind::Float)?;
        if self.config.architecture != Architecture::Gpt2 {
            return Ok(Norm::Rms { weight, eps });
        }
        let bias = self.checkpoint.tensor(&format!("{name}.bias"))?.to_f32();
        Ok(Norm::Layer {
            weight,
            bias: self.vector(&bias, Kind::Float)?,
            eps,
        })
    }

    fn vector(&mut self, values: &[f32], kind: Kind) -> Result<Tensor> {
        let tensor = Tensor::f_from_slice(values)?
            .f_to_device(self.device)?
            .f_to_kind(kind)?;
        self.count(&tensor);
        Ok(tensor)
    }

    /// Matrices of equally many columns below each other, `[rows of all, columns]`, staged in pieces of `STAGED` elements.
    fn matrix(&mut self, names: &[&str]) -> Result<Tensor> {
        let views = names
            .iter()
            .map(|name| Ok(self.checkpoint.tensor(name)?))
            .collect::<Result<Vec<_>>>()?;
        let columns = views[0].columns();
        let rows: usize = views.iter().map(|view| view.rows()).sum();
        let whole = Tensor::f_empty([rows as i64, columns as i64], (self.kind, self.device))?;
        let at_once = (STAGED / columns).max(1);
        let mut staged = vec![0.0; at_once.min(rows) * columns];
        let mut written = 0;
        for view in views {
            for first in (0..view.rows()).step_by(at_once) {
                let part = first..view.rows().min(first + at_once);
                let count = part.len();
                let staged = &mut staged[..count * columns];
                view.rows_to_f32(part, staged);
                let piece = Tensor::f_from_slice(staged)?.f_view([count as i64, columns as i64])?;
                whole.f_narrow(0, written, count as i64)?.f_copy_(&piece)?;
                written += count as i64;
            }
        }
        self.count(&whole);
        Ok(whole)
    }

    fn count(&mut self, tensor: &Tensor) {
        self.bytes += tensor.numel() as u64 * tensor.kind().elt_size_in_bytes() as u64;
    }
}
