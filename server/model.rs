//! From a model's files to what serves it: the tokenizer, and a backend that is made on the engine thread.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use code_explainer_engine::{
    Backend, BackendInfo, DeviceSpec, EngineError, EngineKind, EngineOptions, KvPrecision,
    Precision,
};
use code_explainer_engine_native as native;
use code_explainer_engine_torch as torch;
use code_explainer_scheduler::{Loader, StepLimits};
use code_explainer_text::{Text, TextError};
use code_explainer_weights::{Checkpoint, ModelConfig, ModelMemory, PackedModel, WeightsError};

use crate::config::{Config, ExportConfig};
use crate::optimize::{Choice, Hardware, ModelFacts, OpenSettings};

/// A model whose files have been read; its weights are loaded by `backend`.
pub struct Model {
    /// Tokenizer and chat template.
    pub text: Arc<Text>,
    /// Tells it from other models.
    pub digest: String,
    /// For each engine, loads the weights. Called on the thread that will run its steps.
    pub backends: Vec<Loader>,
    /// What a step may hold, if that was chosen for this model.
    pub step: Option<StepLimits>,
}

/// Why a model cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// Its files.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// Its tokenizer or chat template.
    #[error(transparent)]
    Text(#[from] TextError),
    /// The engine.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The engines compute differently.
    #[error(
        "the engines would run in {0} and in {1}: set one --precision, and one --kv-precision, for all"
    )]
    Precisions(String, String),
    /// There is nothing to run it.
    #[error("there is no engine")]
    NoEngine,
    /// The tokenizer is another model's.
    #[error("{path}: the tokenizer has {tokenizer} tokens, but the model only {model}")]
    Vocabulary {
        /// The model's path.
        path: PathBuf,
        /// Tokens of the tokenizer, added ones included.
        tokenizer: usize,
        /// Rows of the embedding.
        model: usize,
    },
}

impl Model {
    /// Opens a GGUF file, a Hugging Face directory, or a directory that `quantize` has written, for one or more engines.
    ///
    /// # Errors
    /// [`ModelError`] names the file and what is wrong with it.
    pub fn open(path: &Path, engines: Vec<EngineOptions>) -> Result<Self, ModelError> {
        let files = Files::open(path, ModelMemory::Map)?;
        Self::from_files(path, files, engines, None)
    }

    /// Opens the model that the configuration names, for the engines that it asks for, and chooses what it leaves open.
    ///
    /// # Errors
    /// See [`Model::open`] and [`Devices::engines`](code_explainer_engine::Devices::engines).
    pub fn open_for(config: &Config) -> Result<Self, ModelError> {
        let files = Files::open(&config.model, config.model_memory)?;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let cuda_devices = torch::cuda_devices();
        let mut common = config.engine.clone();
        let mut engines = config.devices.engines(&common, cuda_devices, cores)?;
        let mut step = None;
        if let Some(settings) = config.optimize {
            let choice = choose(settings, &files, &engines, cuda_devices);
            for reason in &choice.reasons {
                tracing::info!("optimize: {reason}");
            }
            common.precision = choice.precision;
            common.kv_cache_tokens = choice.kv_cache_tokens;
            step = Some(choice.step);
            engines = config.devices.engines(&common, cuda_devices, cores)?;
        }
        Self::from_files(&config.model, files, engines, step)
    }

    fn from_files(
        path: &Path,
        files: Files,
        engines: Vec<EngineOptions>,
        step: Option<StepLimits>,
    ) -> Result<Self, ModelError> {
        for note in &files.config().notes {
            tracing::warn!("{note}");
        }
        let text = Arc::new(files.text()?);
        Self::check_vocabulary(path, &text, files.config())?;
        let digest = files.digest().to_owned();
        let files = Arc::new(files);
        let backends = engines.into_iter().map(|options| {
            let files = files.clone();
            Box::new(move || backend(&files, &options)) as Loader
        });
        Ok(Self {
            text,
            digest,
            backends: backends.collect(),
            step,
        })
    }

    /// That every token of the tokenizer is a row of the model's embedding.
    ///
    /// # Errors
    /// [`ModelError::Vocabulary`].
    pub fn check_vocabulary(
        path: &Path,
        text: &Text,
        config: &ModelConfig,
    ) -> Result<(), ModelError> {
        let (tokenizer, model) = (text.vocabulary_size(), config.vocabulary);
        if tokenizer <= model {
            return Ok(());
        }
        Err(ModelError::Vocabulary {
            path: path.into(),
            tokenizer,
            model,
        })
    }
}

/// A model's files, whichever kind.
enum Files {
    Checkpoint(Checkpoint),
    Packed(PackedModel),
}

impl Files {
    fn open(path: &Path, memory: ModelMemory) -> Result<Self, WeightsError> {
        Ok(match PackedModel::is_at(path) {
            true => Self::Packed(native::open_packed_with(path, memory)?),
            false => Self::Checkpoint(Checkpoint::open_with(path, memory)?),
        })
    }

    fn config(&self) -> &ModelConfig {
        match self {
            Self::Checkpoint(checkpoint) => checkpoint.config(),
            Self::Packed(packed) => packed.config(),
        }
    }

    fn text(&self) -> Result<Text, TextError> {
        match self {
            Self::Checkpoint(checkpoint) => Text::from_checkpoint(checkpoint),
            Self::Packed(packed) => Text::from_packed(packed),
        }
    }

    fn parameters(&self) -> u64 {
        match self {
            Self::Checkpoint(checkpoint) => checkpoint.parameters(),
            Self::Packed(packed) => packed.parameters(),
        }
    }

    /// The precision of a packed model.
    fn packed_precision(&self) -> Option<Precision> {
        match self {
            Self::Checkpoint(_) => None,
            Self::Packed(packed) if packed.bits() == 4 => Some(Precision::Int4),
            Self::Packed(_) => Some(Precision::Int8),
        }
    }

    fn digest(&self) -> &str {
        match self {
            Self::Checkpoint(checkpoint) => checkpoint.digest(),
            Self::Packed(packed) => packed.digest(),
        }
    }
}

/// What `--optimize` makes of the settings that were left open.
fn choose(
    settings: OpenSettings,
    files: &Files,
    engines: &[EngineOptions],
    cuda_devices: usize,
) -> Choice {
    let on_cuda = |engine: &EngineOptions| match engine.device {
        DeviceSpec::Cuda(_) => true,
        DeviceSpec::Auto => {
            // What only the native engine has stays on the CPU.
            let native = engine.engine == EngineKind::Native || matches!(files, Files::Packed(_));
            cuda_devices > 0 && !native
        }
        DeviceSpec::Cpu => false,
    };
    let machine = if engines.iter().any(on_cuda) {
        Hardware::Cuda
    } else {
        let memory = code_explainer_host::memory::available_bytes().unwrap_or(0);
        Hardware::Cpu {
            memory: memory / engines.len().max(1) as u64,
        }
    };
    let native = (engines.iter())
        .all(|engine| matches!(engine.engine, EngineKind::Auto | EngineKind::Native))
        && native::lacks(files.config()).is_none();
    let module = engines.first().and_then(|engine| match &engine.engine {
        EngineKind::TorchScript(path) => torch::module_precision(path),
        _ => None,
    });
    let config = files.config();
    let quantized = native && settings.precision != Some(Precision::Fp32);
    let bytes = match engines.first().and_then(|engine| engine.kv_precision) {
        Some(KvPrecision::Int8) => 1,
        Some(KvPrecision::Bf16 | KvPrecision::Fp16) => 2,
        None if quantized || machine == Hardware::Cuda => 2,
        None | Some(KvPrecision::Fp32) => 4,
    };
    let facts = ModelFacts {
        four_bits: matches!(files, Files::Checkpoint(c) if c.is_in_four_bits()),
        packed: module.or(files.packed_precision()),
        kv_token_bytes: (config.layers * config.kv_heads * config.head_dim * 2 * bytes) as u64,
        parameters: files.parameters(),
        context_length: config.context_length,
    };
    settings.optimized(&facts, machine, native)
}

/// What clients are told of engines that serve together.
///
/// # Errors
/// [`ModelError::Precisions`] where an answer would depend on the engine that gives it; there is at least one engine.
pub fn together(engines: Vec<BackendInfo>) -> Result<BackendInfo, ModelError> {
    let mut engines = engines.into_iter().map(|mut info| {
        info.context_length = info.context_length.min(info.blocks * info.block_tokens);
        info
    });
    let mut all = engines.next().ok_or(ModelError::NoEngine)?;
    for engine in engines {
        let precisions = |info: &BackendInfo| {
            format!(
                "{} with keys and values in {}",
                info.precision, info.kv_precision
            )
        };
        if precisions(&engine) != precisions(&all) {
            return Err(ModelError::Precisions(
                precisions(&all),
                precisions(&engine),
            ));
        }
        all.context_length = all.context_length.min(engine.context_length);
        all.device = format!("{},{}", all.device, engine.device);
        all.blocks += engine.blocks;
        all.kv_pool_bytes += engine.kv_pool_bytes;
        all.weights_bytes += engine.weights_bytes;
    }
    Ok(all)
}

/// Writes a model as a TorchScript module.
///
/// # Errors
/// [`ModelError`] names the file and what is wrong with it.
pub fn export(config: &ExportConfig) -> Result<(), ModelError> {
    let checkpoint = Checkpoint::open(&config.model)?;
    torch::export_torchscript(
        &checkpoint,
        config.device,
        config.precision,
        &config.torchscript,
    )?;
    Ok(())
}

/// The engine that `options` ask for. `auto` is the native one for fp32, int8 and int4 on the CPU where it can run the model,
/// and libtorch's otherwise; a packed model runs on the CPU alone, so for it a device that is `auto` is the CPU.
fn backend(files: &Files, options: &EngineOptions) -> Result<Box<dyn Backend>, EngineError> {
    let packed = matches!(files, Files::Packed(_));
    let fits_native = match (options.precision, options.device) {
        (_, DeviceSpec::Auto | DeviceSpec::Cpu) if packed => true,
        (_, DeviceSpec::Cuda(_)) | (Some(Precision::Bf16 | Precision::Fp16), _) => false,
        (_, DeviceSpec::Cpu) => true,
        (_, DeviceSpec::Auto) => torch::cuda_devices() == 0,
    };
    let lacks = native::lacks(files.config()).filter(|_| fits_native && !packed);
    if options.engine == EngineKind::Auto
        && let Some(lacks) = lacks
    {
        tracing::warn!(
            lacks,
            "the native engine cannot run this model; libtorch does, with fewer tokens a second"
        );
    }
    let (native, engine) = match options.engine {
        EngineKind::Auto if fits_native && lacks.is_none() => (true, "native"),
        EngineKind::Native => (true, "native"),
        EngineKind::Auto | EngineKind::Eager => (false, "eager"),
        EngineKind::TorchScript(_) => (false, "torchscript"),
    };
    tracing::info!(
        engine,
        device = %options.device,
        "loading the weights"
    );
    Ok(match (files, native) {
        (Files::Checkpoint(checkpoint), true) => Box::new(native::load(checkpoint, options)?),
        (Files::Checkpoint(checkpoint), false) => Box::new(torch::load(checkpoint, options)?),
        (Files::Packed(packed), true) => Box::new(native::load(packed, options)?),
        (Files::Packed(packed), false) => {
            return Err(EngineError::Device {
                device: options.device.to_string(),
                reason: format!(
                    "{} is packed for the native engine on the CPU; use --device cpu and --engine auto",
                    packed.path().display()
                ),
            });
        }
    })
}
