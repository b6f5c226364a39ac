//! The engine's door: what a step of the model is asked to do and what it gives back.
//!
//! Nothing here knows of libtorch. [`Backend`] is the one trait between the scheduler, which decides what runs, and the
//! device that runs it; the crates `code-explainer-engine-native` and `code-explainer-engine-torch` have the real ones, [`fake`]
//! is the one that tests steer.

pub mod devices;
mod encoder;
pub mod fake;
mod plan;
pub mod sampler;

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

pub use devices::{CpuShare, DeviceSpec, Devices};
pub use encoder::{Encoder, EncoderInfo};

/// Index of a block of the KV cache's pool.
pub type BlockId = u32;

/// A device's model, ready to run steps.
///
/// Synchronous and driven by one thread. The scheduler owns the KV blocks and says in each plan which ones a sequence
/// has; a backend only reads and writes them.
pub trait Backend: Send {
    /// What was loaded. Does not change.
    fn info(&self) -> &BackendInfo;

    /// Runs every sequence of the plan one chunk further and samples where the plan says so.
    ///
    /// The answer for a sequence does not depend on which others are in the plan, nor on how its prompt was cut into
    /// chunks: to the last bit in the native engine, to rounding in libtorch's.
    ///
    /// # Errors
    /// A failed step leaves the KV contents of the plan's sequences undefined from `past` on, and the backend usable.
    fn step(&mut self, plan: &StepPlan<'_>) -> Result<StepOutput, EngineError>;

    /// How many steps ran as recorded graphs so far; none for a backend that has no graphs.
    fn graph_steps(&self) -> GraphSteps {
        GraphSteps::default()
    }
}

/// Steps by whether a recorded graph ran them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct GraphSteps {
    /// A graph ran them.
    pub replayed: u64,
    /// They fitted no graph.
    pub bypassed: u64,
}

impl GraphSteps {
    /// What came to it since it was `before`.
    pub fn since(self, before: Self) -> Self {
        Self {
            replayed: self.replayed - before.replayed,
            bypassed: self.bypassed - before.bypassed,
        }
    }
}

/// What a backend has loaded and allocated.
#[derive(Debug, Clone, PartialEq)]
pub struct BackendInfo {
    /// Name of the model.
    pub model: String,
    /// "llama", "qwen2" or "gpt2".
    pub architecture: String,
    /// Number of parameters; shared ones count once.
    pub parameters: u64,
    /// Most tokens a sequence can have.
    pub context_length: usize,
    /// Number of tokens in the vocabulary.
    pub vocabulary: usize,
    /// Precision of weights and arithmetic.
    pub precision: Precision,
    /// "cpu", "cuda:0".
    pub device: String,
    /// Tokens in a KV block.
    pub block_tokens: usize,
    /// KV blocks in the pool.
    pub blocks: usize,
    /// How keys and values are stored.
    pub kv_precision: KvPrecision,
    /// Bytes of the KV pool.
    pub kv_pool_bytes: u64,
    /// Bytes of the weights.
    pub weights_bytes: u64,
}

/// One step of the model over several sequences.
#[derive(Debug, Clone, Copy)]
pub struct StepPlan<'a> {
    /// Each sequence at most once.
    pub sequences: &'a [SequenceStep<'a>],
}

/// One sequence's share of a step: a chunk of its prompt, or its last sampled token and drafts of the next ones.
#[derive(Debug, Clone, Copy)]
pub struct SequenceStep<'a> {
    /// Tokens to run through the model, at least one. The first has position `past`.
    pub tokens: &'a [u32],
    /// How many tokens of the sequence lie in its KV blocks already.
    pub past: usize,
    /// Its KV blocks in order; they hold at least `past + tokens.len()` tokens. Other sequences may have the blocks of
    /// the first `past` tokens too: nobody writes to those.
    pub blocks: &'a [BlockId],
    /// Sample the next token after the last of `tokens`, and after each draft before it. `None` for a chunk that does
    /// not end the prompt.
    pub sample: Option<SampleStep<'a>>,
}

/// How to pick a sequence's next tokens: one, and one more for each draft.
#[derive(Debug, Clone, Copy)]
pub struct SampleStep<'a> {
    /// The request's wishes.
    pub sampling: &'a Sampling,
    /// All tokens so far, prompt, answer and drafts, for the repetition penalty.
    pub history: &'a [u32],
    /// How many tokens were generated before: with the seed it fixes the random number.
    pub index: u64,
    /// Tokens that must not be picked (the end-of-sequence tokens before `min_new_tokens`).
    pub banned: &'a [u32],
    /// How many of the last tokens of the step are guesses. A token is sampled after the one before them and after each of
    /// them, as if those before it had been generated; which ones hold is the scheduler's to find out.
    pub drafts: usize,
}

impl SampleStep<'_> {
    /// How to pick the token after the first `drafts` drafts.
    ///
    /// # Panics
    /// If there are fewer.
    pub fn after(&self, drafts: usize) -> Self {
        Self {
            history: &self.history[..self.history.len() - (self.drafts - drafts)],
            index: self.index + drafts as u64,
            drafts: 0,
            ..*self
        }
    }
}

/// What a step gave.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StepOutput {
    /// For each sequence of the plan, in order, the sampled tokens: one more than drafts, or none if none was asked for.
    pub tokens: Vec<Vec<u32>>,
}

/// How tokens are picked. All values are valid: see `request`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampling {
    /// 0: greedy.
    pub temperature: f32,
    /// In (0, 1]; 1: off.
    pub top_p: f32,
    /// 0: off.
    pub top_k: u32,
    /// 1: off.
    pub repetition_penalty: f32,
    /// Same seed, same request: same answer.
    pub seed: u64,
}

impl Default for Sampling {
    fn default() -> Self {
        Self {
            temperature: 0.0,
            top_p: 1.0,
            top_k: 0,
            repetition_penalty: 1.0,
            seed: 0,
        }
    }
}

/// Precision of weights and arithmetic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Precision {
    /// 32-bit floats.
    Fp32,
    /// bfloat16.
    Bf16,
    /// IEEE half.
    Fp16,
    /// Weights in 8 bits and activations in bytes, both in groups of 32 with a scale.
    Int8,
    /// As [`Int8`](Self::Int8), with the blocks' weights in 4 bits with a scale and a minimum.
    Int4,
}

impl Precision {
    /// Its name in config, receipts and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fp32 => "fp32",
            Self::Bf16 => "bf16",
            Self::Fp16 => "fp16",
            Self::Int8 => "int8",
            Self::Int4 => "int4",
        }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Precision {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        match s {
            "fp32" => Ok(Self::Fp32),
            "bf16" => Ok(Self::Bf16),
            "fp16" => Ok(Self::Fp16),
            "int8" => Ok(Self::Int8),
            "int4" => Ok(Self::Int4),
            _ => Err(format!(
                "unknown precision '{s}': expected fp32, bf16, fp16, int8 or int4"
            )),
        }
    }
}

/// How keys and values are stored in the KV cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KvPrecision {
    /// 32-bit floats.
    Fp32,
    /// bfloat16.
    Bf16,
    /// IEEE half.
    Fp16,
    /// Bytes with a scale for each token and head.
    Int8,
}

impl KvPrecision {
    /// Its name in config.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fp32 => "fp32",
            Self::Bf16 => "bf16",
            Self::Fp16 => "fp16",
            Self::Int8 => "int8",
        }
    }
}

impl fmt::Display for KvPrecision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for KvPrecision {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        [Self::Fp32, Self::Bf16, Self::Fp16, Self::Int8]
            .into_iter()
            .find(|precision| precision.as_str() == s)
            .ok_or_else(|| format!("unknown KV precision '{s}': expected fp32, bf16, fp16 or int8"))
    }
}

/// What runs the model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EngineKind {
    /// The native engine where it can, else the eager one.
    Auto,
    /// Kernels of our own, on the CPU.
    Native,
    /// libtorch's operators.
    Eager,
    /// A module that `export --torchscript` wrote, run by libtorch's interpreter.
    TorchScript(PathBuf),
}

impl FromStr for EngineKind {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        match s {
            "auto" => Ok(Self::Auto),
            "native" => Ok(Self::Native),
            "eager" => Ok(Self::Eager),
            _ => match s.strip_prefix("torchscript:") {
                Some(path) if !path.is_empty() => Ok(Self::TorchScript(path.into())),
                Some(_) => Err("torchscript needs a module: torchscript:PATH".to_owned()),
                None => Err(format!(
                    "unknown engine '{s}': expected auto, native, eager or torchscript:PATH"
                )),
            },
        }
    }
}

/// How to load a model.
#[derive(Debug, Clone, PartialEq)]
pub struct EngineOptions {
    /// What runs it.
    pub engine: EngineKind,
    /// Where it runs.
    pub device: DeviceSpec,
    /// On the CPU, its part of the cores.
    pub cpu_share: CpuShare,
    /// `None`: fp32 on the CPU, bf16 on CUDA.
    pub precision: Option<Precision>,
    /// How keys and values are stored; `None`: as the engine finds best for the precision.
    pub kv_precision: Option<KvPrecision>,
    /// Tokens that the KV cache's pool holds, rounded up to whole blocks.
    pub kv_cache_tokens: usize,
    /// Tokens in a KV block.
    pub block_tokens: usize,
    /// Threads that a step may use; 0: one for each core of its part.
    pub threads: usize,
}

/// Why the engine could not load or run.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The model's files are missing, broken or of a kind that cannot be served.
    #[error(transparent)]
    Weights(#[from] code_explainer_weights::WeightsError),
    /// The device is not there.
    #[error("device {device} is not available: {reason}")]
    Device {
        /// As asked for.
        device: String,
        /// Why not.
        reason: String,
    },
    /// A TorchScript module cannot be written, or is not what serves this model.
    #[error("TorchScript module {}: {reason}", path.display())]
    Module {
        /// Its path.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// A tensor has a value that the precision cannot hold.
    #[error(
        "tensor '{tensor}' has a value that is too large for the precision, or not a number: use fp32"
    )]
    Unrepresentable {
        /// Its name.
        tensor: String,
    },
    /// There is not enough memory for what was asked.
    #[error("out of memory: {0}")]
    OutOfMemory(String),
    /// The plan does not fit the model or its KV pool: a fault of the caller, found before anything was computed.
    #[error("invalid step plan: {0}")]
    Plan(String),
    /// The backend panicked in a step, or gave an answer that does not fit the plan.
    #[error("the backend is broken: {0}")]
    Broken(&'static str),
    /// libtorch reported an error.
    #[error("libtorch: {0}")]
    Torch(String),
}
