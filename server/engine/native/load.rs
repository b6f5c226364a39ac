//! From a checkpoint to a packed model.

use std::fmt::Display;
use std::ops::Range;

use super::batch::Batch;
use super::buffer::Buffer;
use super::cores::Cores;
use super::kernels::Compute;
use super::kernels::attention::Attention;
use super::kernels::gemm::PackedF32;
use super::kernels::isa::Isa;
use super::kernels::kv::{KvPool, KvShape};
use super::kernels::norm::Norm;
use super::kernels::panels::{Epilogue, PANEL};
use super::kernels::quantized_weights::{Bits, PackedQuantized};
use super::kernels::rope::Rope;
use super::linear::Linear;
use super::model::{Activations, Layer, Model};
use super::pool::Pool;
use super::quantize::quantize_rows;
use super::{NativeBackend, backend};
use crate::engine::{BackendInfo, EngineError, EngineOptions, Precision};
use crate::weights::{Activation, Architecture, Checkpoint, ModelConfig, TensorView};

/// Packs a checkpoint's weights, allocates the KV pool and starts the threads. The checkpoint is not needed afterwards.
/// If the engine has a part of the CPU, the calling thread is held to it from here on: it is the one that runs the steps.
///
/// # Errors
/// When a tensor cannot be read or quantized, memory or threads are short, or an option is not for this engine: it computes
/// in fp32, int8 and int4.
pub fn load(
    checkpoint: &Checkpoint,
    options: &EngineOptions,
) -> Result<NativeBackend, EngineError> {
    load_for(checkpoint, options, Isa::detect())
}

/// As [`load`], with the instruction set chosen.
///
/// # Errors
/// See [`load`].
pub fn load_for(
    checkpoint: &Checkpoint,
    options: &EngineOptions,
    isa: Isa,
) -> Result<NativeBackend, EngineError> {
    let unavailable = |reason: String| EngineError::Device {
        device: "cpu".into(),
        reason,
    };
    let precision = options.precision.unwrap_or(Precision::Fp32);
    let (bits, head_bits) = match precision {
        Precision::Fp32 => (None, None),
        // The head decides between tokens that are close: 4 bits are too few for it.
        Precision::Int8 => (Some(Bits::Eight), Some(Bits::Eight)),
        Precision::Int4 => (Some(Bits::Four), Some(Bits::Eight)),
        Precision::Bf16 | Precision::Fp16 => {
            return Err(unavailable(format!(
                "the native engine computes in fp32, int8 and int4, not in {precision}"
            )));
        }
    };
    if options.block_tokens == 0 || options.kv_cache_tokens == 0 {
        return Err(unavailable(
            "the KV cache needs at least one token, and so does a block".into(),
        ));
    }
    let config = checkpoint.config();
    let threads = |e: &dyn Display| unavailable(format!("cannot start the engine's threads: {e}"));
    let cores = Cores::of(options.cpu_share).map_err(|e| threads(&e))?;
    let pool = Pool::on(&cores, options.threads).map_err(|e| threads(&e))?;
    let shape = KvShape {
        layers: config.layers,
        blocks: options.kv_cache_tokens.div_ceil(options.block_tokens),
        block_tokens: options.block_tokens,
        kv_heads: config.kv_heads,
        head_dim: config.head_dim,
    };
    let max_tokens = config
        .context_length
        .min(shape.blocks.saturating_mul(shape.block_tokens));
    let loader = Loader {
        checkpoint,
        config,
        bits,
        head_bits,
    };
    let workers = pool.threads();
    let model = || loader.model(&shape, max_tokens, workers);
    let model = if cores.is_part() {
        // Packed on the engine's own cores, the weights lie in the memory next to them; and threads that are started
        // here, where this thread is pinned already, should not be those that everybody shares.
        let packers = rayon::ThreadPoolBuilder::new().num_threads(cores.count());
        packers.build().map_err(|e| threads(&e))?.install(model)?
    } else {
        model()?
    };
    let activations = Activations::new(&model, config.heads * config.head_dim)?;
    let kv = KvPool::new(shape)?;
    let info = BackendInfo {
        model: checkpoint.name().to_owned(),
        architecture: config.architecture.to_string(),
        parameters: checkpoint.parameters(),
        context_length: config.context_length,
        vocabulary: config.vocabulary,
        precision,
        device: "cpu".into(),
        block_tokens: shape.block_tokens,
        blocks: shape.blocks,
        kv_pool_bytes: kv.bytes(),
        weights_bytes: model.bytes(),
    };
    Ok(backend::NativeBackend {
        info,
        max_tokens,
        compute: Compute { pool, isa },
        model,
        kv,
        activations,
        batch: Batch::new(shape.blocks),
    })
}

struct Loader<'a> {
    checkpoint: &'a Checkpoint,
    config: &'a ModelConfig,
    /// Of the blocks' weights; `None`: fp32.
    bits: Option<Bits>,
    /// Of the head and the embeddings; `None`: fp32.
    head_bits: Option<Bits>,
}

/// Some rows of a tensor that become a part of a packed matrix.
struct Part {
    name: String,
    first: usize,
    rows: usize,
}

impl Loader<'_> {
    fn model(
        &self,
        shape: &KvShape,
        max_tokens: usize,
        workers: usize,
    ) -> Result<Model, EngineError> {
        let config = self.config;
        let padded = |n: usize| n.next_multiple_of(PANEL);
        let (q, kv) = (
            config.heads * config.head_dim,
            config.kv_heads * config.head_dim,
        );
        let gpt2 = config.architecture == Architecture::Gpt2;
        let head = if config.tied_head {
            "token_embd"
        } else {
            "output"
        };
        let table = |name| {
            let parts = [whole(name, config.vocabulary)];
            self.linear(self.head_bits, config.hidden, &parts)
        };
        Ok(Model {
            hidden: config.hidden,
            vocabulary: config.vocabulary,
            embedding: match config.tied_head {
                true => None,
                false => Some(table("token_embd")?),
            },
            positions: gpt2
                .then(|| self.floats("position_embd.weight"))
                .transpose()?,
            rope: Rope::new(&self.checkpoint.inverse_frequencies(), max_tokens),
            layers: (0..config.layers)
                .map(|i| self.layer(i))
                .collect::<Result<_, _>>()?,
            norm: self.norm("output_norm")?,
            head: table(head)?,
            attention: Attention::new(shape, config.heads, max_tokens, workers)?,
            kv_columns: (padded(q), padded(q) + padded(kv)),
            activation: match (gpt2, config.activation) {
                (false, _) => Epilogue::SiluMul,
                (true, Activation::Gelu) => Epilogue::GeluErf,
                (true, _) => Epilogue::GeluTanh,
            },
        })
    }

    fn layer(&self, index: usize) -> Result<Layer, EngineError> {
        let ModelConfig {
            hidden,
            intermediate,
            ..
        } = *self.config;
        let (q, kv) = (
            self.config.heads * self.config.head_dim,
            self.config.kv_heads * self.config.head_dim,
        );
        let name = |suffix: &str| format!("blk.{index}.{suffix}");
        let gpt2 = self.config.architecture == Architecture::Gpt2;
        let qkv = match gpt2 {
            true => [(0, q), (q, kv), (q + kv, kv)].map(|(first, rows)| Part {
                name: name("attn_qkv"),
                first,
                rows,
            }),
            false => [("attn_q", q), ("attn_k", kv), ("attn_v", kv)]
                .map(|(suffix, rows)| whole(&name(suffix), rows)),
        };
        let up = match gpt2 {
            true => vec![whole(&name("ffn_up"), intermediate)],
            false => ["ffn_gate", "ffn_up"]
                .map(|s| whole(&name(s), intermediate))
                .into(),
        };
        let linear = |inputs, parts: &[Part]| self.linear(self.bits, inputs, parts);
        Ok(Layer {
            attention_norm: self.norm(&name("attn_norm"))?,
            qkv: linear(hidden, &qkv)?,
            attention_out: linear(q, &[whole(&name("attn_output"), hidden)])?,
            feed_forward_norm: self.norm(&name("ffn_norm"))?,
            up: linear(hidden, &up)?,
            down: linear(intermediate, &[whole(&name("ffn_down"), hidden)])?,
        })
    }

    fn linear(
        &self,
        bits: Option<Bits>,
        inputs: usize,
        parts: &[Part],
    ) -> Result<Linear, EngineError> {
        let tensor = |part: &Part| self.checkpoint.tensor(&format!("{}.weight", part.name));
        let tensors = parts
            .iter()
            .map(tensor)
            .collect::<Result<Vec<TensorView<'_>>, _>>()?;
        let outputs: Vec<usize> = parts.iter().map(|part| part.rows).collect();
        let biases = self.biases(parts)?;
        let Some(bits) = bits else {
            let packed = PackedF32::pack(inputs, &outputs, "weights", |part, rows, out| {
                let first = parts[part].first;
                tensors[part].rows_to_f32(first + rows.start..first + rows.end, out);
            })?;
            return Ok(Linear::F32(match biases {
                Some(biases) => packed.with_bias(&biases),
                None => packed,
            }));
        };
        let rows = |part: usize, rows: Range<usize>, out: &mut [_]| {
            let first = parts[part].first;
            let rows = first + rows.start..first + rows.end;
            quantize_rows(bits, &tensors[part], rows, out)
        };
        let packed = PackedQuantized::pack(bits, inputs, &outputs, "weights", rows)?;
        Ok(Linear::Quantized(match biases {
            Some(biases) => packed.with_bias(&biases),
            None => packed,
        }))
    }

    /// The parts' biases, with zeros for parts that have none; `None` if no part has one.
    fn biases(&self, parts: &[Part]) -> Result<Option<Vec<Vec<f32>>>, EngineError> {
        let name = |part: &Part| format!("{}.bias", part.name);
        if !parts.iter().any(|p| self.checkpoint.has_tensor(&name(p))) {
            return Ok(None);
        }
        let bias = |part: &Part| {
            let name = name(part);
            if !self.checkpoint.has_tensor(&name) {
                return Ok(vec![0.0; part.rows]);
            }
            let all = self.checkpoint.tensor(&name)?.to_f32();
            Ok(all[part.first..][..part.rows].to_vec())
        };
        parts.iter().map(bias).collect::<Result<_, _>>().map(Some)
    }

    fn norm(&self, name: &str) -> Result<Norm, EngineError> {
        let weight = self.checkpoint.tensor(&format!("{name}.weight"))?.to_f32();
        let eps = self.config.norm_eps;
        Ok(match self.config.architecture {
            Architecture::Llama | Architecture::Qwen2 => Norm::rms(&weight, eps),
            Architecture::Gpt2 => Norm::layer(
                &weight,
                &self.checkpoint.tensor(&format!("{name}.bias"))?.to_f32(),
                eps,
            ),
        })
    }

    fn floats(&self, name: &str) -> Result<Buffer, EngineError> {
        let tensor = self.checkpoint.tensor(name)?;
        let mut table = Buffer::zeroed(tensor.len(), name)?;
        tensor.write_f32(table.as_mut_slice());
        Ok(table)
    }
}

fn whole(name: &str, rows: usize) -> Part {
    Part {
        name: name.to_owned(),
        first: 0,
        rows,
    }
}
