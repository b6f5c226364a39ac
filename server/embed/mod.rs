//! Texts to vectors: an embedding model on a thread of its own, behind a cache on disk.
//!
//! - [`config`]: what an operator can set, and [`EmbedError`].
//! - [`tokens`]: a text to the model's tokens.
//! - `waiting`: texts that wait, bounded, in three lanes, and whose turn it is; `queue`: the way there and back;
//!   `thread`: the loop that runs the model over them in batches.
//! - `prepare`: texts looked up in the cache and tokenized.
//! - [`cache`]: vectors that were computed before; it survives the process.
//! - [`Embedder`]: the door.
//!
//! The explain engines know nothing of it: a text never waits for an explanation, nor an explanation for a text.

pub mod cache;
pub mod config;
mod prepare;
mod queue;
mod thread;
pub mod tokens;
mod waiting;

use std::sync::Arc;
use std::time::Instant;

use code_explainer_engine::{Encoder, EncoderInfo};
use code_explainer_engine_torch as torch;
use code_explainer_host::cpu::thread_time;
use code_explainer_host::fair_semaphore::FairSemaphore;
use code_explainer_scheduler::waiting::Tenant;
use code_explainer_weights::EncoderCheckpoint;
use tokio::sync::OnceCell;

pub use cache::{CacheLimits, VectorCache, VectorCacheError, VectorCacheStats, VectorKey};
pub use config::{EmbedConfig, EmbedError, Load};
pub use queue::Lane;
pub use tokens::{TextTokenizer, Tokenized};

use crate::access::rates::Rates;
use crate::disk::DiskHealth;
use crate::error::Error;
use crate::metrics::Metrics;
use prepare::Prepared;
use queue::{Queue, Room};

/// A model that has been opened.
pub struct Opened {
    /// Its tokenizer.
    pub tokenizer: TextTokenizer,
    /// The model.
    pub encoder: Box<dyn Encoder>,
}

/// Opens the model, when it is first needed; again if that failed.
pub type Opener = Box<dyn Fn() -> Result<Opened, EmbedError> + Send + Sync>;

/// A text's vector.
#[derive(Debug, Clone, PartialEq)]
pub struct Embedding {
    /// Of length 1.
    pub values: Vec<f32>,
    /// Tokens of the text that the model saw, its own two included.
    pub tokens: u32,
    /// The text had more tokens than the model takes: the rest was not looked at.
    pub truncated: bool,
    /// It was computed before.
    pub cached: bool,
}

/// The way to the embedding model. One for a server.
pub struct Embedder {
    config: EmbedConfig,
    open: Opener,
    running: OnceCell<Running>,
    /// Look-ups and tokenizations that may run at once.
    preparing: FairSemaphore,
    /// A place for explanations alone.
    querying: FairSemaphore,
    metrics: Arc<Metrics>,
}

struct Running {
    info: EncoderInfo,
    tokenizer: Arc<TextTokenizer>,
    queue: Arc<Queue>,
    cache: Arc<VectorCache>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.queue.close();
    }
}

impl Embedder {
    /// For the model that the configuration names. Loads nothing yet.
    pub fn new(config: EmbedConfig, metrics: Arc<Metrics>) -> Self {
        let (path, device) = (config.model.clone(), config.device);
        let open = move || {
            let checkpoint = EncoderCheckpoint::open(&path)?;
            let tokenizer = TextTokenizer::open(&path, checkpoint.config())?;
            let encoder = torch::load_encoder(&checkpoint, device)?;
            Ok(Opened {
                tokenizer,
                encoder: Box::new(encoder),
            })
        };
        Self::with_opener(config, metrics, Box::new(open))
    }

    /// For a model that `open` makes.
    pub fn with_opener(config: EmbedConfig, metrics: Arc<Metrics>, open: Opener) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            config,
            open,
            running: OnceCell::new(),
            preparing: FairSemaphore::new(cores),
            querying: FairSemaphore::new(1),
            metrics,
        }
    }

    /// What it may be asked for.
    pub fn config(&self) -> &EmbedConfig {
        &self.config
    }

    /// Loads the model, if that has not been done.
    ///
    /// # Errors
    /// [`EmbedError`] says what is wrong with it.
    pub async fn load(self: &Arc<Self>) -> Result<&EncoderInfo, EmbedError> {
        let start = || async {
            let this = self.clone();
            let started = tokio::task::spawn_blocking(move || this.start()).await;
            started.unwrap_or(Err(EmbedError::Panicked))
        };
        Ok(&self.running.get_or_try_init(start).await?.info)
    }

    fn start(&self) -> Result<Running, EmbedError> {
        let started = Instant::now();
        let Opened { tokenizer, encoder } = (self.open)()?;
        let info = encoder.info().clone();
        if tokenizer.vocabulary() > info.vocabulary {
            return Err(EmbedError::Vocabulary {
                path: self.config.model.clone(),
                tokenizer: tokenizer.vocabulary(),
                model: info.vocabulary,
            });
        }
        let cache = VectorCache::open_or_without(
            self.config.directory.as_deref(),
            &info.digest,
            info.dimensions,
            self.config.cache,
        );
        let queue = Arc::new(Queue::new(self.config.queue_texts));
        thread::start(
            queue.clone(),
            encoder,
            self.config.batch_texts,
            self.metrics.clone(),
        )?;
        tracing::info!(
            model = info.model,
            device = info.device,
            dimensions = info.dimensions,
            weights_mb = info.weights_bytes >> 20,
            cached = cache.stats().entries,
            milliseconds = started.elapsed().as_millis() as u64,
            "the embedding model is loaded"
        );
        Ok(Running {
            info,
            tokenizer: Arc::new(tokenizer),
            queue,
            cache: Arc::new(cache),
        })
    }

    /// The model, loaded if that has not been done.
    ///
    /// # Errors
    /// [`Error::NoEmbeddings`] says why there is none.
    pub async fn ready(self: &Arc<Self>) -> Result<EncoderInfo, Error> {
        Ok(self.running().await?.info.clone())
    }

    async fn running(self: &Arc<Self>) -> Result<&Running, Error> {
        if self.config.load == Load::Off {
            return Err(Error::NoEmbeddings("embeddings are off on this server"));
        }
        if let Err(error) = self.load().await {
            tracing::error!("the embedding model cannot be loaded: {error}");
            return Err(Error::NoEmbeddings(
                "the embedding model cannot be loaded; the server's log says why",
            ));
        }
        self.running.get().ok_or(Error::Internal)
    }

    /// The model, if it is loaded.
    pub fn info(&self) -> Option<&EncoderInfo> {
        self.running.get().map(|running| &running.info)
    }

    /// What the cache of vectors did and holds; nothing before the model is loaded.
    pub fn cache_stats(&self) -> VectorCacheStats {
        self.running
            .get()
            .map(|running| running.cache.stats())
            .unwrap_or_default()
    }

    /// How the disk under the cache of vectors fares. Waits for nothing.
    pub fn disk(&self) -> DiskHealth {
        let running = self.running.get();
        running.map_or_else(DiskHealth::default, |running| running.cache.disk())
    }

    /// To be called every few seconds, for the rates of the cache of vectors.
    pub fn upkeep(&self) {
        if let Some(running) = self.running.get() {
            running.cache.upkeep();
        }
    }

    /// Texts that are ready to be computed.
    pub fn queued(&self) -> usize {
        let running = self.running.get();
        running.map_or(0, |running| running.queue.queued())
    }

    /// Texts that are being looked up, wait, or are being computed.
    pub fn waiting(&self) -> usize {
        self.running
            .get()
            .map_or(0, |running| running.queue.texts())
    }

    /// Waits until every vector that was put into the cache is on disk.
    pub async fn flush(&self) {
        if let Some(cache) = self.running.get().map(|running| running.cache.clone()) {
            let _ = tokio::task::spawn_blocking(move || cache.flush()).await;
        }
    }

    /// Drops every vector of the cache, on disk too.
    pub async fn clear_cache(&self) {
        if let Some(cache) = self.running.get().map(|running| running.cache.clone()) {
            let _ = tokio::task::spawn_blocking(move || cache.clear()).await;
        }
    }

    /// The vectors of texts, in order. Found in the cache under `salt`, or computed; equal texts are computed once. Tenants,
    /// whom the salt tells apart, take turns. Tokens that are to be computed are taken from `rates` first; those of cached
    /// vectors are free. Dropping the future takes back what has not begun.
    ///
    /// # Errors
    /// [`Error::NoEmbeddings`] without a model, [`Error::QueueFull`] where the queue has no room for the texts (only a
    /// [`Lane::Background`] waits for it), [`Error::RateLimited`], and the engine's failures.
    pub async fn embed(
        self: &Arc<Self>,
        lane: Lane,
        salt: &[u8],
        rates: &Rates,
        texts: Vec<String>,
    ) -> Result<Vec<Embedding>, Error> {
        let running = self.running().await?;
        let started = Instant::now();
        let tenant: Tenant = blake3::hash(salt).to_hex()[..16].into();
        // Before anything else is done for them: so what waits is bounded, wherever it waits.
        let mut room = running.queue.enter(lane, &tenant, texts.len()).await?;
        let mut prepared = self.prepare(running, lane, salt, texts, &room).await?;
        let missing = prepared.take_missing();
        let cached = prepared.found();
        if !missing.is_empty() {
            let tokens: Vec<Vec<u32>> = missing.iter().map(|m| m.text.tokens.clone()).collect();
            rates.take_tokens(tokens.iter().map(Vec::len).sum())?;
            let vectors = room.compute(tokens).await?;
            for (missing, values) in missing.into_iter().zip(vectors) {
                let embedding = Embedding {
                    values,
                    tokens: missing.text.tokens.len() as u32,
                    truncated: missing.text.truncated,
                    cached: false,
                };
                running.cache.put(missing.key, &embedding);
                prepared.put(&missing.places, &embedding);
            }
        }
        let embeddings = prepared.embeddings().ok_or(Error::Internal)?;
        self.metrics
            .embeddings
            .request(cached, embeddings.len() - cached, started.elapsed());
        Ok(embeddings)
    }

    /// Looks the texts up, and tokenizes those that are not there: on threads that may take their time, and some texts at a
    /// time, so that tenants' turns are short and a request that is over goes no further.
    async fn prepare(
        &self,
        running: &Running,
        lane: Lane,
        salt: &[u8],
        texts: Vec<String>,
        room: &Room,
    ) -> Result<Prepared, Error> {
        let bench = match lane {
            Lane::Query => &self.querying,
            Lane::Request | Lane::Background => &self.preparing,
        };
        let mut prepared = Prepared::new(salt, texts);
        while !prepared.is_done() {
            room.check()?;
            let place = bench.place(salt).await;
            let (cache, tokenizer) = (running.cache.clone(), running.tokenizer.clone());
            let digest = running.info.digest.clone();
            let work = tokio::task::spawn_blocking(move || {
                let (mut place, began) = (place, thread_time());
                let done = prepared.turn(&digest, &cache, &tokenizer);
                place.spend(thread_time().saturating_sub(began));
                done.map(|()| prepared)
            });
            let worked = work.await.map_err(|panic| {
                tracing::error!(%panic, "texts could not be tokenized");
                Error::Internal
            })?;
            prepared = worked.map_err(|reason| {
                tracing::error!(reason, "a text could not be tokenized");
                Error::Internal
            })?;
        }
        Ok(prepared)
    }
}
