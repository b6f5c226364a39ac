//! From a model's files to a model that runs.

use std::fmt::Display;

use code_explainer_engine::{BackendInfo, EngineError, EngineOptions, KvPrecision, Precision};
use code_explainer_weights::{Activation, ModelConfig};

use super::batch::Batch;
use super::cores::Cores;
use super::kernels::Compute;
use super::kernels::attention::Attention;
use super::kernels::isa::Isa;
use super::kernels::kv::{KvPool, KvShape};
use super::kernels::norm::Norm;
use super::kernels::panels::{Epilogue, PANEL};
use super::kernels::rope::Rope;
use super::model::{Activations, Layer, Model};
use super::pool::Pool;
use super::profile::Profile;
use super::shapes::{Shapes, runs};
use super::source::Source;
use super::{NativeBackend, backend};

/// Packs a checkpoint's weights, or maps those of a packed model, allocates the KV pool and starts the threads. The source
/// is not needed afterwards. If the engine has a part of the CPU, the calling thread is held to it from here on: it is the
/// one that runs the steps.
///
/// # Errors
/// When a tensor cannot be read or quantized, memory or threads are short, or an option is not for this engine: it computes
/// in fp32, int8 and int4, and a packed model only in its own precision. When the engine lacks what the model needs.
pub fn load<'a>(
    source: impl Into<Source<'a>>,
    options: &EngineOptions,
) -> Result<NativeBackend, EngineError> {
    load_for(source, options, Isa::detect())
}

/// As [`load`], with the instruction set chosen.
///
/// # Errors
/// See [`load`].
pub fn load_for<'a>(
    source: impl Into<Source<'a>>,
    options: &EngineOptions,
    isa: Isa,
) -> Result<NativeBackend, EngineError> {
    let unavailable = |reason: String| EngineError::Device {
        device: "cpu".into(),
        reason,
    };
    let source = source.into();
    let config = source.config();
    runs(config)?;
    let precision = source.precision(options.precision)?;
    let shapes = Shapes::new(config, precision).ok_or_else(|| {
        unavailable(format!(
            "the native engine computes in fp32, int8 and int4, not in {precision}"
        ))
    })?;
    // Halves cost quantized weights nothing that could be measured, and reading keys and values half the time.
    let kv_precision = options.kv_precision.unwrap_or(match precision {
        Precision::Fp32 => KvPrecision::Fp32,
        _ => KvPrecision::Fp16,
    });
    if options.block_tokens == 0 || options.kv_cache_tokens == 0 {
        return Err(unavailable(
            "the KV cache needs at least one token, and so does a block".into(),
        ));
    }
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
        source: &source,
        shapes,
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
    source.finish()?;
    let activations = Activations::new(&model, config.heads * config.head_dim, workers)?;
    let kv = KvPool::new(shape, kv_precision)?;
    let info = BackendInfo {
        model: source.name().to_owned(),
        architecture: config.architecture.to_string(),
        parameters: source.parameters(),
        context_length: config.context_length,
        vocabulary: config.vocabulary,
        precision,
        device: "cpu".into(),
        block_tokens: shape.block_tokens,
        blocks: shape.blocks,
        kv_precision,
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
        profile: Profile::default(),
    })
}

struct Loader<'a> {
    source: &'a Source<'a>,
    shapes: Shapes<'a>,
}

impl Loader<'_> {
    fn model(
        &self,
        shape: &KvShape,
        max_tokens: usize,
        workers: usize,
    ) -> Result<Model, EngineError> {
        let Self { source, shapes } = self;
        let config = shapes.config;
        let padded = |n: usize| n.next_multiple_of(PANEL);
        let (q, kv) = shapes.attention_widths();
        let positions = || {
            let name = "position_embd.weight";
            source.table(name, config.context_length, config.hidden)
        };
        Ok(Model {
            hidden: config.hidden,
            vocabulary: config.vocabulary,
            embedding: (shapes.embedding())
                .map(|table| source.matrix(&table))
                .transpose()?,
            positions: shapes.is_gpt2().then(positions).transpose()?,
            rope: Rope::new(&source.inverse_frequencies()?, max_tokens),
            layers: (0..config.layers)
                .map(|i| self.layer(i))
                .collect::<Result<_, _>>()?,
            norm: self.norm("output_norm")?,
            head: source.matrix(&shapes.head())?,
            attention: Attention::new(shape, config.heads, max_tokens, workers)?,
            kv_columns: (padded(q), padded(q) + padded(kv)),
            activation: match (shapes.is_gpt2(), config.activation) {
                (false, _) => Epilogue::SiluMul,
                (true, Activation::Gelu) => Epilogue::GeluErf,
                (true, _) => Epilogue::GeluTanh,
            },
        })
    }

    fn layer(&self, index: usize) -> Result<Layer, EngineError> {
        let shape = self.shapes.layer(index);
        Ok(Layer {
            attention_norm: self.norm(&shape.attention_norm)?,
            qkv: self.source.matrix(&shape.qkv)?,
            attention_out: self.source.matrix(&shape.attention_out)?,
            feed_forward_norm: self.norm(&shape.feed_forward_norm)?,
            up: self.source.matrix(&shape.up)?,
            down: self.source.matrix(&shape.down)?,
        })
    }

    fn norm(&self, name: &str) -> Result<Norm, EngineError> {
        let ModelConfig {
            hidden, norm_eps, ..
        } = *self.shapes.config;
        let vectors = (self.shapes.norm_vectors(name).iter())
            .map(|name| self.source.vector(name, hidden))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(match vectors.as_slice() {
            [weight, bias] => Norm::layer(weight, bias, norm_eps),
            [weight, ..] => Norm::rms(weight, norm_eps),
            [] => unreachable!("every norm has a weight"),
        })
    }
}
