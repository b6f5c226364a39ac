//! The part of `serve` that says which model runs, where and how.

use std::path::PathBuf;

use clap::Args;

use code_explainer_engine::{Devices, EngineKind, KvPrecision, Precision};
use code_explainer_weights::ModelMemory;

/// Where `make setup` puts the model.
pub(super) const DEFAULT_MODEL: &str = "models/SmolLM2-135M-Instruct.Q4_1.gguf";

#[derive(Debug, Args)]
pub(super) struct ModelArgs {
    /// A GGUF file, a Hugging Face directory (config.json, safetensors, tokenizer.json), or a directory that
    /// `code-explainer-server quantize` has written
    #[arg(long, env = "CODE_EXPLAINER_MODEL", value_name = "PATH")]
    #[arg(default_value = DEFAULT_MODEL)]
    pub(super) model: PathBuf,

    /// How the files with the weights are held. map: a packed model is served from its file's own pages, which all servers
    /// on a machine share; then the file must never be written or cut in place, or answers change or the process ends
    /// (SIGBUS): replace it by renaming another over it, as `quantize` and every downloader do. copy: in memory of the
    /// server's own, read and checked once, whatever happens to the file; takes as much memory as the file has bytes, and
    /// that time at start
    #[arg(long, env = "CODE_EXPLAINER_MODEL_MEMORY", default_value = "map")]
    pub(super) model_memory: ModelMemory,

    /// Where the model runs: auto (CUDA if there is a device), cpu, cuda, cuda:N. Several engines share one queue: a list
    /// (cuda:0,cuda:1), all (every CUDA device), or cpu:N (N engines, each on its own part of the cores). Each has the KV
    /// cache and the batch that are set below
    #[arg(long, env = "CODE_EXPLAINER_DEVICE", default_value = "auto")]
    pub(super) device: Devices,

    /// Precision of weights and arithmetic: fp32, bf16, fp16, int8 or int4; by default that of a quantized directory, or chosen by --optimize,
    /// else fp32 on the CPU and bf16 on CUDA
    #[arg(long, env = "CODE_EXPLAINER_PRECISION")]
    pub(super) precision: Option<Precision>,

    /// Quantize the linear weights while they are loaded: int8 or int4. The rest stays as it is, so that with it --precision can only be fp32, or the same as this
    #[arg(long, env = "CODE_EXPLAINER_QUANTIZATION", value_parser = quantization)]
    pub(super) quantization: Option<Precision>,

    /// What runs the model: native (kernels of our own; fp32, int8 and int4 on the CPU, answers never depend on
    /// the batch), eager (libtorch's operators; any device and precision), torchscript MODULE (what `export` wrote; also
    /// written torchscript:MODULE), or auto (native where it can)
    #[arg(long, env = "CODE_EXPLAINER_ENGINE", default_value = "auto")]
    #[arg(num_args = 1..=2, value_names = ["ENGINE", "MODULE"])]
    pub(super) engine: Vec<String>,

    /// Threads that a step of the model may use; 0: one for each core
    #[arg(
        long,
        env = "CODE_EXPLAINER_THREADS",
        default_value_t = 0,
        value_name = "N"
    )]
    pub(super) threads: usize,

    /// Tokens that the KV cache of an engine holds for all its sequences together; its memory is taken at start. Chosen by
    /// --optimize, else 16384
    #[arg(long, env = "CODE_EXPLAINER_KV_CACHE_TOKENS", value_name = "N")]
    pub(super) kv_cache_tokens: Option<usize>,

    /// Choose what is left open, by the model and the machine: precision, tokens of the KV cache, sequences and tokens of a
    /// step. The log says what was chosen, and why
    #[arg(long, env = "CODE_EXPLAINER_OPTIMIZE", default_value = "on")]
    pub(super) optimize: Optimize,

    /// How the KV cache stores keys and values: fp32, bf16, fp16, or int8 with a scale for each token and head; by
    /// default fp16 for int8 and int4, else the model's precision. The eager engine has its own precision only
    #[arg(long, env = "CODE_EXPLAINER_KV_PRECISION", value_name = "PRECISION")]
    pub(super) kv_precision: Option<KvPrecision>,

    /// Tokens in a block of the KV cache
    #[arg(
        long,
        env = "CODE_EXPLAINER_KV_BLOCK_TOKENS",
        default_value_t = 16,
        value_name = "N"
    )]
    pub(super) kv_block_tokens: usize,
}

/// Whether settings that are left open are chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Optimize {
    /// For the model and the machine
    On,
    /// Fixed defaults
    Off,
}

impl ModelArgs {
    /// What runs the model, if the devices have it.
    pub(super) fn engine(&self) -> Result<EngineKind, String> {
        let engine: EngineKind =
            (self.engine.join(":").parse()).map_err(|problem| format!("--engine: {problem}"))?;
        if engine == EngineKind::Native && self.device.names_cuda() {
            return Err("--engine native runs on the CPU only; use --engine eager for CUDA".into());
        }
        Ok(engine)
    }

    /// The precision that `--precision` and `--quantization` make together, if the engine has it.
    pub(super) fn precision(&self, engine: &EngineKind) -> Result<Option<Precision>, String> {
        let precision = match (self.precision, self.quantization) {
            (precision, None) => precision,
            (None | Some(Precision::Fp32), quantization) => quantization,
            (precision, quantization) if precision == quantization => precision,
            (Some(precision), Some(quantization)) => {
                return Err(format!(
                    "--quantization {quantization} with --precision {precision}: what is not quantized is in fp32; \
                     leave --precision out"
                ));
            }
        };
        if let (EngineKind::Native, Some(Precision::Bf16 | Precision::Fp16)) = (engine, precision) {
            return Err(
                "--engine native runs fp32, int8 and int4 only; choose one of them as \
                        --precision, or use --engine eager"
                    .into(),
            );
        }
        Ok(precision)
    }
}

fn quantization(text: &str) -> Result<Precision, String> {
    match text.parse() {
        Ok(precision @ (Precision::Int8 | Precision::Int4)) => Ok(precision),
        _ => Err("expected int8 or int4".into()),
    }
}
