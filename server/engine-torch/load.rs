//! From a checkpoint to tensors on a device.

use std::path::Path;

use code_explainer_engine::{
    BackendInfo, DeviceSpec, EngineError, EngineKind, EngineOptions, Precision,
};
use code_explainer_weights::{Architecture, Checkpoint, ModelConfig};
use tch::{Device, Kind, Tensor};

use super::backend::{Network, TorchBackend};
use super::kv_cache::{KvCache, KvShape};
use super::linear::{Embedding, GROUP, Linear, Quantizer, Storage, Weights};
use super::model::{Attention, Block, FeedForward, Model, Norm, Positions};
use super::torchscript::Script;
use super::{device, torchscript};
use crate::error::Result;

/// Elements that are dequantized before they are copied to the device: what loading needs beside the weights, 4 MiB.
const STAGED: usize = 1 << 20;

/// Copies a checkpoint's weights to the device in the chosen precision, or loads the module that `options` name, and
/// allocates the KV pool. The checkpoint is not needed afterwards.
///
/// `options.threads` is set for the whole process, because libtorch has one setting for its CPU operators.
///
/// # Errors
/// [`EngineError::Device`] for a device that is not there, another precision for the KV cache, or a KV cache of no tokens, [`EngineError::OutOfMemory`] where
/// weights and pool do not fit, [`EngineError::Weights`] for a tensor that cannot be read, [`EngineError::Module`] for a
/// TorchScript module that is not this model's.
pub fn load(
    checkpoint: &Checkpoint,
    options: &EngineOptions,
) -> std::result::Result<TorchBackend, EngineError> {
    Ok(loaded(checkpoint, options)?)
}

fn loaded(checkpoint: &Checkpoint, options: &EngineOptions) -> Result<TorchBackend> {
    let _no_grad = tch::no_grad_guard();
    let device = device::pick(options.device)?;
    set_threads(options.threads);
    let shape = kv_shape(checkpoint.config(), options)?;
    let (network, precision, kind, weights_bytes) = match &options.engine {
        EngineKind::TorchScript(path) => {
            let (script, description, precision) = Script::load(path, checkpoint, device)?;
            if options.precision.is_some_and(|asked| asked != precision) {
                return Err(EngineError::Module {
                    path: path.clone(),
                    reason: format!("its precision is {precision}: leave --precision out"),
                }
                .into());
            }
            let (kind, _) = device::arithmetic(precision, device);
            let bytes = description.weights_bytes;
            (Network::Script(script), precision, kind, bytes)
        }
        EngineKind::Auto | EngineKind::Native | EngineKind::Eager => {
            let precision = device::precision(options.precision, device);
            let (model, bytes) = model(checkpoint, precision, device)?;
            let kind = model.kind;
            (Network::Eager(model), precision, kind, bytes)
        }
    };
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
        }
        .into());
    }
    let too_large =
        || EngineError::OutOfMemory(format!("a KV pool of {shape:?} cannot be allocated"));
    let config = checkpoint.config();
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
        kv_pool_bytes: shape.bytes(kind).ok_or_else(too_large)?,
        weights_bytes,
    };
    let with_scratch = KvShape {
        blocks: shape.blocks + 1,
        ..shape
    };
    let backend = TorchBackend {
        info,
        device,
        network,
        cache: KvCache::new(with_scratch, kind, device)?,
        recorded: None,
    };
    #[cfg(feature = "cuda")]
    let backend = with_graphs(backend);
    Ok(backend)
}

/// Steps of more rows are recorded nowhere: they are large enough to keep a GPU busy while the next ones are launched.
#[cfg(feature = "cuda")]
const MOST_RECORDED_ROWS: usize = 64;

/// Records decode steps on a CUDA device. A backend is of use without them.
#[cfg(feature = "cuda")]
fn with_graphs(mut backend: TorchBackend) -> TorchBackend {
    if let Device::Cuda(number) = backend.device {
        let recorded = super::graphs::MemoryPool::new(number)
            .and_then(|pool| backend.record::<super::graphs::CudaGraph>(MOST_RECORDED_ROWS, &pool));
        if let Err(error) = recorded.map_err(EngineError::from) {
            tracing::warn!(%error, "no CUDA graphs: every step runs operator by operator");
        }
    }
    backend
}

/// Writes a checkpoint as a TorchScript module to `path`, and its description beside it: see
/// [`EngineKind::TorchScript`]. The precision is the device's own where none is given.
///
/// # Errors
/// As [`load`], and [`EngineError::Module`] if the files cannot be written.
pub fn export_torchscript(
    checkpoint: &Checkpoint,
    device: DeviceSpec,
    precision: Option<Precision>,
    path: &Path,
) -> std::result::Result<(), EngineError> {
    Ok(exported(checkpoint, device, precision, path)?)
}

fn exported(
    checkpoint: &Checkpoint,
    device: DeviceSpec,
    precision: Option<Precision>,
    path: &Path,
) -> Result<()> {
    let _no_grad = tch::no_grad_guard();
    let device = device::pick(device)?;
    let precision = device::precision(precision, device);
    let (model, bytes) = model(checkpoint, precision, device)?;
    torchscript::save(&model, checkpoint, (precision, device), bytes, path)
}

/// The model on a device, and the bytes of its weights.
fn model(checkpoint: &Checkpoint, precision: Precision, device: Device) -> Result<(Model, u64)> {
    let (kind, storage) = device::arithmetic(precision, device);
    let mut loader = Loader {
        checkpoint,
        config: checkpoint.config(),
        kind,
        storage,
        device,
        bytes: 0,
    };
    let model = loader.model()?;
    Ok((model, loader.bytes))
}

fn set_threads(threads: usize) {
    let threads = match threads {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        threads => threads,
    };
    tch::set_num_threads(i32::try_from(threads).unwrap_or(i32::MAX));
}

fn kv_shape(
    config: &ModelConfig,
    options: &EngineOptions,
) -> std::result::Result<KvShape, EngineError> {
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
    /// Of the linear layers in the blocks.
    storage: Storage,
    device: Device,
    /// Bytes of the weights loaded so far.
    bytes: u64,
}

impl Loader<'_> {
    fn model(&mut self) -> Result<Model> {
        // A file's head is a larger share of a small model than its layers forgive 4 bits: it stays at 8.
        let head = match self.storage {
            Storage::Float => Storage::Float,
            Storage::Int8 | Storage::Int4 => Storage::Int8,
        };
        let embedding = Embedding(self.weights(&["token_embd.weight"], head)?);
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
            head: Linear {
                weights: match self.config.tied_head {
                    true => embedding.0.share(),
                    false => self.weights(&["output.weight"], head)?,
                },
                bias: None,
                outputs: self.config.vocabulary as i64,
            },
            embedding,
            kind: self.kind,
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
        let weights: Vec<&str> = weights.iter().map(String::as_str).collect();
        let mut outputs = 0;
        for name in &weights {
            outputs += self.checkpoint.tensor(name)?.rows() as i64;
        }
        Ok(Linear {
            bias: biased.then(|| self.bias(&weights, &biases)).transpose()?,
            weights: self.weights(&weights, self.storage)?,
            outputs,
        })
    }

    /// A part without a bias has one of zeros here.
    fn bias(&mut self, weights: &[&str], biases: &[String]) -> Result<Tensor> {
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

    /// As [`matrix`](Self::matrix), stored so; in the arithmetic's precision where columns do not fill whole groups, which
    /// are all that libtorch's operators take.
    fn weights(&mut self, names: &[&str], storage: Storage) -> Result<Weights> {
        let columns = self.checkpoint.tensor(names[0])?.columns() as i64;
        if storage != Storage::Float && columns % GROUP == 0 {
            return self.quantized(names, storage, columns);
        }
        if storage != Storage::Float {
            tracing::debug!(tensor = names[0], columns, "not quantized");
        }
        Ok(Weights::Float(self.matrix(names)?))
    }

    fn quantized(&mut self, names: &[&str], storage: Storage, columns: i64) -> Result<Weights> {
        let mut quantizer = Quantizer::new(storage, columns);
        self.pieces(names, |name, piece| {
            let unrepresentable = || EngineError::Unrepresentable {
                tensor: name.to_owned(),
            };
            Ok(quantizer.push(piece)?.ok_or_else(unrepresentable)?)
        })?;
        let weights = quantizer.finish(self.device)?;
        for tensor in weights.tensors() {
            self.count(tensor);
        }
        Ok(weights)
    }

    /// Matrices of equally many columns below each other, `[rows of all, columns]`.
    fn matrix(&mut self, names: &[&str]) -> Result<Tensor> {
        let (mut rows, mut columns) = (0, 0);
        for name in names {
            let view = self.checkpoint.tensor(name)?;
            rows += view.rows() as i64;
            columns = view.columns() as i64;
        }
        let whole = Tensor::f_empty([rows, columns], (self.kind, self.device))?;
        let mut written = 0;
        self.pieces(names, |_, piece| {
            let count = piece.size()[0];
            whole.f_narrow(0, written, count)?.f_copy_(piece)?;
            written += count;
            Ok(())
        })?;
        self.count(&whole);
        Ok(whole)
    }

    /// Hands on the rows of matrices in order, in 32 bits and in pieces of `STAGED` elements: `[rows, columns]`, with the
    /// name of the tensor that they are from.
    fn pieces(
        &self,
        names: &[&str],
        mut take: impl FnMut(&str, &Tensor) -> Result<()>,
    ) -> Result<()> {
        for name in names {
            let view = self.checkpoint.tensor(name)?;
            let columns = view.columns();
            let at_once = (STAGED / columns).max(1);
            let mut staged = vec![0.0; at_once.min(view.rows()) * columns];
            for first in (0..view.rows()).step_by(at_once) {
                let part = first..view.rows().min(first + at_once);
                let sizes = [part.len() as i64, columns as i64];
                let staged = &mut staged[..part.len() * columns];
                view.rows_to_f32(part, staged);
                take(name, &Tensor::f_from_slice(staged)?.f_view(sizes)?)?;
            }
        }
        Ok(())
    }

    fn count(&mut self, tensor: &Tensor) {
        self.bytes += tensor.numel() as u64 * tensor.kind().elt_size_in_bytes() as u64;
    }
}
