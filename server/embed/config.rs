//! What an operator can set, and why an embedding model cannot be served.

use std::path::PathBuf;

use code_explainer_engine::{DeviceSpec, EngineError};
use code_explainer_weights::WeightsError;

use super::cache::CacheLimits;

/// When the model is loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Load {
    /// Never: what needs it is refused
    Off,
    /// When it is first needed
    Lazy,
    /// Before the server is ready; a model that cannot be loaded ends it
    Start,
}

/// Everything that the embeddings need; every value is valid.
#[derive(Debug, Clone, PartialEq)]
pub struct EmbedConfig {
    /// When the model is loaded.
    pub load: Load,
    /// The model's directory.
    pub model: PathBuf,
    /// Where it runs.
    pub device: DeviceSpec,
    /// Texts that the model is run over at once, at most.
    pub batch_texts: usize,
    /// Texts that wait at most; more are refused.
    pub queue_texts: usize,
    /// Texts of one request, at most.
    pub request_texts: usize,
    /// The largest text, in bytes.
    pub text_bytes: usize,
    /// What the cache may hold.
    pub cache: CacheLimits,
    /// Where the cache lies; `None`: in memory only.
    pub directory: Option<PathBuf>,
}

/// Why an embedding model cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum EmbedError {
    /// Its files.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// The engine.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// A file beside the weights.
    #[error("{path}: {reason}")]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and what is expected.
        reason: String,
    },
    /// The tokenizer is another model's.
    #[error("{path}: the tokenizer has {tokenizer} tokens, but the model only {model}")]
    Vocabulary {
        /// The model's directory.
        path: PathBuf,
        /// Tokens of the tokenizer.
        tokenizer: usize,
        /// Rows of the embedding.
        model: usize,
    },
    /// The operating system gives no thread.
    #[error("no thread for the embedding model: {0}")]
    Thread(#[from] std::io::Error),
    /// A mistake in this program.
    #[error("reading the embedding model panicked")]
    Panicked,
}
