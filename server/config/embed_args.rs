//! The part of `serve` about embeddings, and where the server keeps what is to survive it.

use std::path::PathBuf;

use clap::Args;
use code_explainer_engine::{DeviceSpec, Devices};

use crate::embed::{CacheLimits, EmbedConfig, Load};

/// Where `make setup` puts the model.
const DEFAULT_MODEL: &str = "models/all-MiniLM-L6-v2";

#[derive(Debug, Args)]
pub(super) struct EmbedArgs {
    /// The directory for what survives the server: computed embeddings and the corpus. Each server needs its own. Without
    /// it they are kept in memory, and gone with the server
    #[arg(long, env = "CODE_EXPLAINER_DATA_DIR", value_name = "DIR")]
    pub(super) data_dir: Option<PathBuf>,

    /// When the embedding model is loaded: lazy, start, or off
    #[arg(long, env = "CODE_EXPLAINER_EMBEDDINGS", default_value = "lazy")]
    pub(super) embeddings: Load,

    /// The embedding model: a directory with config.json (architecture bert), model.safetensors and tokenizer.json.
    /// Vectors are the mean of the tokens' last states, normalised
    #[arg(long, env = "CODE_EXPLAINER_EMBEDDING_MODEL", value_name = "DIR")]
    #[arg(default_value = DEFAULT_MODEL)]
    pub(super) embedding_model: PathBuf,

    /// Where the embedding model runs: auto (CUDA if there is a device), cpu, cuda or cuda:N
    #[arg(long, env = "CODE_EXPLAINER_EMBEDDING_DEVICE", default_value = "auto")]
    #[arg(value_parser = one_device, value_name = "DEVICE")]
    pub(super) embedding_device: DeviceSpec,

    /// Texts that the embedding model is run over at once, at most
    #[arg(long, env = "CODE_EXPLAINER_EMBEDDING_BATCH", value_name = "N")]
    #[arg(default_value_t = 32)]
    pub(super) embedding_batch: usize,

    /// Texts of clients' Embed calls that are looked up, wait for the embedding model or are computed, at most, each of up to
    /// --max-code-bytes. A tenant may have all of them while nobody else asks; then the tenant that has most gives up its
    /// newest call, which ends with RESOURCE_EXHAUSTED. Explanations' look-ups have room of their own
    #[arg(long, env = "CODE_EXPLAINER_EMBEDDING_QUEUE", value_name = "N")]
    #[arg(default_value_t = 1024)]
    pub(super) embedding_queue: usize,

    /// Texts that one request for embeddings may have
    #[arg(long, env = "CODE_EXPLAINER_EMBEDDING_TEXTS", value_name = "N")]
    #[arg(default_value_t = 256)]
    pub(super) embedding_texts: usize,

    /// Vectors that the embedding cache holds; the least recently used ones make room. 0: no cache
    #[arg(long, env = "CODE_EXPLAINER_EMBEDDING_CACHE_SIZE", value_name = "N")]
    #[arg(default_value_t = 100_000)]
    pub(super) embedding_cache_size: u64,

    /// Bytes that they may take. The default holds those of the model above
    #[arg(long, env = "CODE_EXPLAINER_EMBEDDING_CACHE_BYTES", value_name = "N")]
    #[arg(default_value_t = 256 << 20)]
    pub(super) embedding_cache_bytes: u64,
}

impl EmbedArgs {
    pub(super) fn validate(self, text_bytes: usize) -> Result<EmbedConfig, String> {
        for (flag, value, most) in [
            ("embedding-batch", self.embedding_batch, 1024),
            ("embedding-queue", self.embedding_queue, 1 << 20),
            ("embedding-texts", self.embedding_texts, 1 << 16),
        ] {
            if value == 0 || value > most {
                return Err(format!("--{flag} is {value}, expected 1 to {most}"));
            }
        }
        if self.embedding_texts > self.embedding_queue {
            return Err(format!(
                "--embedding-texts is {}, but only {} texts of --embedding-queue may wait",
                self.embedding_texts, self.embedding_queue
            ));
        }
        Ok(EmbedConfig {
            load: self.embeddings,
            model: self.embedding_model,
            device: self.embedding_device,
            batch_texts: self.embedding_batch,
            queue_texts: self.embedding_queue,
            request_texts: self.embedding_texts,
            text_bytes,
            cache: CacheLimits {
                entries: self.embedding_cache_size,
                bytes: self.embedding_cache_bytes,
            },
            directory: self.data_dir,
        })
    }
}

fn one_device(text: &str) -> Result<DeviceSpec, String> {
    match text.parse()? {
        Devices::Listed(devices) if devices.len() == 1 => Ok(devices[0]),
        devices => Err(format!("'{devices}' is not one device")),
    }
}
