//! What is known of code that is near: documentation that the operator has loaded, and answers that this server gave.
//!
//! - [`config`]: what an operator can set and an item can ask for.
//! - [`chunk`]: a document to passages. [`record`]: what is kept of them. [`store`]: where, and [`index`]: found again.
//! - [`diversity`]: which of those that are near. [`fit`]: what of them a prompt has room for.
//! - [`corpus`]: loading, listing and removing documents.
//! - [`Retrieval`]: the door.
//!
//! Answers are kept by tenant, in indexes of their own: no search of another tenant comes near them. It fails open: without
//! a model, or with a busy one, an item is explained without, and its receipt says so.

pub mod chunk;
pub mod config;
pub mod corpus;
pub mod diversity;
pub mod fit;
pub mod index;
pub mod record;
pub mod store;

use std::sync::Arc;
use std::time::{Duration, Instant};

use code_explainer_host::share::Shares;
use tokio::sync::{OnceCell, Semaphore};

pub use config::{RetrievalConfig, RetrievalOptions, RetrievalWish};
pub use record::{Kind, Scope};

use crate::access::rates::Rates;
use crate::disk::DiskHealth;
use crate::embed::{Embedder, Lane};
use crate::error::Error;
use crate::metrics::{Metrics, Retrieved as Outcome};
use store::{NewDocument, NewPassage, Store, StoreStats};

/// Bytes of the code that a search looks for: more than the model reads.
const QUERY_BYTES: usize = 4096;
/// Candidates for each passage that is wanted, and at least: what diversity chooses among.
const CANDIDATES: usize = 4;
const FEWEST_CANDIDATES: usize = 32;
/// Bytes of a snippet that are quoted with its explanation.
const SNIPPET_BYTES: usize = 600;
/// Answers on their way into the store, of which tenants have shares; more are not kept.
const ANSWERS_UNDER_WAY: usize = 64;
/// Between looks whether a disk that failed works again, where nobody waits for it.
const DISK_WAIT: Duration = Duration::from_secs(5);
/// Passages that are given a new model's vectors at once.
const RENEWED: usize = 32;

/// A passage that a prompt may quote.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// Its document's name and its place therein.
    pub id: String,
    /// For people, and for the prompt.
    pub title: String,
    /// The cosine with the code.
    pub score: f32,
    /// What its document is.
    pub kind: Kind,
    /// What is quoted.
    pub text: String,
}

/// What a search gave.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Retrieved {
    /// The best first.
    pub passages: Vec<Found>,
    /// What the client should know.
    pub notes: Vec<String>,
}

/// The way to what is known. One for a server.
pub struct Retrieval {
    config: RetrievalConfig,
    embedder: Arc<Embedder>,
    store: OnceCell<Arc<Store>>,
    answers: Arc<Semaphore>,
    shares: Shares<Scope>,
    metrics: Arc<Metrics>,
}

impl Retrieval {
    /// Opens nothing yet.
    pub fn new(config: RetrievalConfig, embedder: Arc<Embedder>, metrics: Arc<Metrics>) -> Self {
        Self {
            config,
            embedder,
            store: OnceCell::new(),
            answers: Arc::new(Semaphore::new(ANSWERS_UNDER_WAY)),
            shares: Shares::new(ANSWERS_UNDER_WAY),
            metrics,
        }
    }

    /// What it may be asked for.
    pub fn config(&self) -> &RetrievalConfig {
        &self.config
    }

    /// What the store holds, if it is open.
    pub fn stats(&self) -> StoreStats {
        self.store
            .get()
            .map(|store| store.stats())
            .unwrap_or_default()
    }

    /// How the disk under the corpus fares. Waits for nothing.
    pub fn disk(&self) -> DiskHealth {
        let store = self.store.get();
        store.map_or_else(DiskHealth::default, |store| store.disk())
    }

    /// The store, opened with the embedding model when it is first needed.
    ///
    /// # Errors
    /// [`Error::NoEmbeddings`] says why there is none.
    pub async fn store(self: &Arc<Self>) -> Result<&Arc<Store>, Error> {
        let open = || async {
            let info = self.embedder.ready().await?;
            let directory = self.embedder.config().directory.clone();
            let opened = tokio::task::spawn_blocking(move || {
                Store::open(directory.as_deref(), &info.digest, info.dimensions)
            });
            let store = match opened.await {
                Ok(Ok(store)) => Arc::new(store),
                Ok(Err(error)) => {
                    tracing::error!("the corpus cannot be opened: {error}");
                    return Err(Error::NoEmbeddings(
                        "the corpus cannot be opened; the server's log says why",
                    ));
                }
                Err(panic) => {
                    tracing::error!(%panic, "the corpus could not be opened");
                    return Err(Error::Internal);
                }
            };
            let stats = store.stats();
            tracing::info!(?stats, "the corpus is open");
            if stats.stale > 0 {
                tokio::spawn(renew(store.clone(), self.embedder.clone()));
            }
            Ok(store)
        };
        self.store.get_or_try_init(open).await
    }

    /// What is known that is near a snippet, for the tenant with this salt.
    pub async fn retrieve(
        self: &Arc<Self>,
        salt: &[u8],
        code: &str,
        options: &RetrievalOptions,
    ) -> Retrieved {
        let started = Instant::now();
        let result = self.search(salt, code, options).await;
        let (outcome, retrieved) = match result {
            Ok(passages) if passages.is_empty() => (
                Outcome::Nothing,
                Retrieved {
                    passages,
                    notes: vec![
                        "nothing that is known is near the code; explained without".to_owned(),
                    ],
                },
            ),
            Ok(passages) => (
                Outcome::Found,
                Retrieved {
                    passages,
                    notes: Vec::new(),
                },
            ),
            Err(error) => (
                Outcome::Unavailable,
                Retrieved {
                    passages: Vec::new(),
                    notes: vec![format!("explained without what is known: {error}")],
                },
            ),
        };
        self.metrics.retrieval.retrieved(outcome, started.elapsed());
        retrieved
    }

    async fn search(
        self: &Arc<Self>,
        salt: &[u8],
        code: &str,
        options: &RetrievalOptions,
    ) -> Result<Vec<Found>, Error> {
        let mut scopes = Vec::new();
        scopes.extend(options.documentation.then_some(Scope::SHARED));
        scopes.extend(options.explanations.then(|| Scope::of_tenant(salt)));
        if options.top_k == 0 || scopes.is_empty() {
            return Ok(Vec::new());
        }
        let store = self.store().await?.clone();
        let code = code[..code.floor_char_boundary(QUERY_BYTES)].to_owned();
        let query = self
            .embedder
            .embed(Lane::Query, salt, &Rates::unlimited(), vec![code])
            .await?;
        let query = query.into_iter().next().ok_or(Error::Internal)?.values;
        let options = *options;
        let found = tokio::task::spawn_blocking(move || choose(&store, &scopes, &query, &options));
        match found.await {
            Ok(Ok(found)) => Ok(found),
            Ok(Err(error)) => Err(corpus::failed(&error)),
            Err(panic) => {
                tracing::error!(%panic, "the corpus could not be searched");
                Err(Error::Internal)
            }
        }
    }

    /// Whether answers are kept.
    pub fn keeps_answers(&self) -> bool {
        self.config.answers > 0
    }

    /// Keeps an answer, to be found by the tenant with this salt. Returns at once; an answer that comes when too many are
    /// on their way is not kept.
    pub fn keep_answer(self: &Arc<Self>, salt: &[u8], language: &str, code: &str, answer: &str) {
        if !self.keeps_answers() || answer.trim().is_empty() {
            return;
        }
        let scope = Scope::of_tenant(salt);
        let share = self.shares.take(&scope, 1);
        let turn = self.answers.clone().try_acquire_owned().ok();
        let Some(turn) = share.zip(turn) else {
            return self.metrics.retrieval.answer_dropped();
        };
        let (this, salt) = (self.clone(), salt.to_vec());
        let digest = *blake3::hash(code.as_bytes()).as_bytes();
        let cut = &code[..code.floor_char_boundary(SNIPPET_BYTES)];
        let more = if cut.len() < code.len() {
            "\n[...]"
        } else {
            ""
        };
        let text = format!("{}{more}\n\nExplanation: {}", cut.trim_end(), answer.trim());
        let subject = if language.is_empty() {
            "code"
        } else {
            language
        };
        let title = format!("An explanation of {subject} that was given before");
        let embedded = code[..code.floor_char_boundary(QUERY_BYTES)].to_owned();
        tokio::spawn(async move {
            let _turn = turn;
            let answer = (title, text, embedded, digest);
            if let Err(error) = this.store_answer(scope, &salt, answer).await {
                tracing::warn!(%error, "an answer could not be kept");
                this.metrics.retrieval.answer_dropped();
            }
        });
    }

    async fn store_answer(
        self: &Arc<Self>,
        scope: Scope,
        salt: &[u8],
        (title, text, embedded, digest): (String, String, String, [u8; 32]),
    ) -> Result<(), Error> {
        let store = self.store().await?.clone();
        let query = self
            .embedder
            .embed(
                Lane::Background,
                salt,
                &Rates::unlimited(),
                vec![embedded.clone()],
            )
            .await?;
        let vector = query.into_iter().next().ok_or(Error::Internal)?.values;
        let limit = self.config.answers;
        let document = NewDocument {
            scope,
            id: blake3::Hash::from_bytes(digest).to_hex()[..32].to_owned(),
            kind: Kind::Explanation,
            title: title.clone(),
            bytes: text.len() as u64,
            digest,
            passages: vec![NewPassage {
                title,
                text,
                embedded: Some(embedded),
                vector,
            }],
        };
        let stored = tokio::task::spawn_blocking(move || {
            store.put(document, usize::MAX)?;
            while store.stats().answers > limit as u64 {
                let Some((scope, id)) = store.oldest_answer()? else {
                    break;
                };
                if store.remove(scope, |found| found == id)? == (0, 0) {
                    break;
                }
            }
            Ok::<_, crate::disk::DiskError>(())
        });
        match stored.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(corpus::failed(&error)),
            Err(_) => Err(Error::Internal),
        }
    }

    /// Waits until every answer on its way has been kept.
    pub async fn settled(&self) {
        let _ = self.answers.acquire_many(ANSWERS_UNDER_WAY as u32).await;
    }
}

/// The nearest passages that are near enough, as different from each other as is wished for.
fn choose(
    store: &Store,
    scopes: &[Scope],
    query: &[f32],
    options: &RetrievalOptions,
) -> Result<Vec<Found>, crate::disk::DiskError> {
    let count = (options.top_k * CANDIDATES).max(FEWEST_CANDIDATES);
    let mut near = store.search(scopes, query, count);
    near.retain(|(neighbour, _)| neighbour.score >= options.threshold);
    let scores: Vec<f32> = near.iter().map(|(neighbour, _)| neighbour.score).collect();
    let vectors: Vec<&[f32]> = near.iter().map(|(_, vector)| vector.as_slice()).collect();
    let chosen = diversity::select(&scores, &vectors, options.top_k, options.diversity);
    let ids: Vec<u64> = chosen.iter().map(|&place| near[place].0.id).collect();
    let records = store.passages(&ids)?;
    let score = |id: u64| {
        near.iter()
            .find(|(n, _)| n.id == id)
            .map_or(0.0, |(n, _)| n.score)
    };
    let found = records.into_iter().map(|(id, record)| Found {
        id: match record.kind {
            Kind::Documentation => format!("{}#{}", record.document, record.number),
            Kind::Explanation => record.document,
        },
        title: record.title,
        score: score(id),
        kind: record.kind,
        text: record.text,
    });
    Ok(found.collect())
}

/// Gives every passage that another model's vector stands for one of this model's.
async fn renew(store: Arc<Store>, embedder: Arc<Embedder>) {
    tracing::info!("the embedding model is another one: the corpus gets new vectors");
    let mut done = 0;
    loop {
        let from = store.clone();
        let stale = tokio::task::spawn_blocking(move || from.stale(RENEWED)).await;
        let stale = match stale {
            Ok(Ok(stale)) => stale,
            Ok(Err(error)) if error.is_of_the_disk() => {
                tokio::time::sleep(DISK_WAIT).await;
                continue;
            }
            Ok(Err(_)) | Err(_) => return tracing::error!("the corpus cannot be read"),
        };
        if stale.is_empty() {
            if store.stats().stale > 0 {
                continue;
            }
            return tracing::info!(passages = done, "the corpus has its new vectors");
        }
        let texts = stale.iter().map(|(_, record)| record.to_embed()).collect();
        let vectors = match embedder
            .embed(Lane::Background, b"corpus", &Rates::unlimited(), texts)
            .await
        {
            Ok(vectors) => vectors,
            Err(error) => return tracing::error!(%error, "the corpus gets no new vectors"),
        };
        let ids = stale.into_iter().map(|(id, _)| id);
        let renewed: Vec<_> = ids.zip(vectors.into_iter().map(|e| e.values)).collect();
        let (to, count) = (store.clone(), renewed.len());
        match tokio::task::spawn_blocking(move || to.renew(renewed)).await {
            Ok(Ok(())) => done += count,
            // They are stale yet, and come again.
            Ok(Err(error)) if error.is_of_the_disk() => tokio::time::sleep(DISK_WAIT).await,
            Ok(Err(_)) | Err(_) => return tracing::error!("the corpus cannot be written"),
        }
    }
}
