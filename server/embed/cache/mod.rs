//! Vectors that were computed before, on disk.
//!
//! A vector is found under a keyed hash of the tenant's salt, the model's digest and the text: no text is stored. Values
//! carry a checksum over key and vector. Writes are gathered and synced together by a thread of their own, so that a
//! look-up never waits for the disk to write; what a crash can lose is what has not been synced, a fifth of a second at
//! most. The least recently used vectors of the tenant that has most make room.
//!
//! It fails open: a file that cannot be opened, or a read that fails, costs the vectors and nothing else. When the disk works
//! again, so does the cache.

mod shares;
mod value;
mod writer;

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use code_explainer_cache::{AccessTimes, Rates, Sample, Watch};
use redb::{Database, ReadableDatabase, ReadableTable, ReadableTableMetadata, TableDefinition};
use tokio::time::Instant;

use super::Embedding;
use crate::disk::recovering::{Adopter, Opener};
use crate::disk::{self, DiskError, DiskHealth, RecoveringDatabase};
use shares::Shares;
use value::value_bytes;
pub use value::{VectorKey, decode as decode_value, encode as encode_value};
use writer::Writer;

/// The file in the data directory.
pub const FILE: &str = "embeddings.redb";
/// Of the tables below and of the values in them.
const FORMAT: u64 = 2;

const VECTORS: TableDefinition<'static, &[u8; 32], &[u8]> = TableDefinition::new("vectors");
/// By when they were used last, the oldest first.
const ORDER: TableDefinition<'static, u64, &[u8; 32]> = TableDefinition::new("order");
const META: TableDefinition<'static, &str, &[u8]> = TableDefinition::new("meta");

/// What the cache may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheLimits {
    /// Vectors at most; 0: no cache.
    pub entries: u64,
    /// Bytes of keys and values at most. The file takes somewhat more.
    pub bytes: u64,
}

/// Why there is no cache.
#[derive(Debug, thiserror::Error)]
pub enum VectorCacheError {
    /// The file.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The operating system gives no thread.
    #[error("no thread for the embedding cache: {0}")]
    Thread(#[from] std::io::Error),
}

/// What the cache did and what it holds.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct VectorCacheStats {
    /// Vectors that are synced.
    pub entries: u64,
    /// Vectors at most.
    pub max_entries: u64,
    /// Bytes of their keys and values.
    pub bytes: u64,
    /// How long look-ups took, those of the texts of a request together; `None` before the first.
    pub times: Option<AccessTimes>,
    /// Over about the last minute.
    pub rates: Rates,
    /// Look-ups that found a vector.
    pub hits: u64,
    /// Look-ups that did not.
    pub misses: u64,
    /// Vectors that made room.
    pub evictions: u64,
    /// Vectors that were not what had been stored, and were dropped.
    pub broken: u64,
    /// Vectors that were not stored because the disk did not keep up, or failed.
    pub dropped: u64,
    /// Whether there is a cache at all.
    pub enabled: bool,
    /// Whether it survives the process.
    pub persistent: bool,
    /// How its disk fares.
    pub disk: DiskHealth,
}

#[derive(Debug, Default)]
struct Counters {
    hits: AtomicU64,
    misses: AtomicU64,
    evictions: AtomicU64,
    broken: AtomicU64,
    dropped: AtomicU64,
    entries: AtomicU64,
    /// What was used last has one less than this.
    sequence: AtomicU64,
    /// It was to be cleared while that could not be done.
    clear: AtomicBool,
    /// The writer's.
    shares: Mutex<Shares>,
}

impl Counters {
    fn shares(&self) -> MutexGuard<'_, Shares> {
        self.shares.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The cache. Off where nothing can be stored.
pub struct VectorCache {
    inner: Option<Inner>,
}

struct Inner {
    database: Arc<RecoveringDatabase>,
    counters: Arc<Counters>,
    writer: Writer,
    dimensions: usize,
    /// Vectors at most.
    limit: u64,
    persistent: bool,
    began: Instant,
    watch: Watch,
}

impl VectorCache {
    /// Opens the cache of a model in a directory, or one that lives as long as the process. Vectors of another model are
    /// dropped.
    ///
    /// # Errors
    /// The file is in use or cannot be made. A damaged one is put aside.
    pub fn open(
        directory: Option<&Path>,
        model_digest: &str,
        dimensions: usize,
        limits: CacheLimits,
    ) -> Result<Self, VectorCacheError> {
        let place = directory.map(Path::to_owned);
        let open = move || disk::open_or_renew(place.as_deref(), FILE);
        Self::open_by(
            Box::new(open),
            directory.is_some(),
            model_digest,
            dimensions,
            limits,
        )
    }

    /// As [`open`](Self::open), in a database that `open` opens, as often as its disk fails.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn open_by(
        open: Opener,
        persistent: bool,
        model_digest: &str,
        dimensions: usize,
        limits: CacheLimits,
    ) -> Result<Self, VectorCacheError> {
        let limit = limits.entries.min(limits.bytes / entry_bytes(dimensions));
        if limit == 0 {
            return Ok(Self { inner: None });
        }
        let counters = Arc::new(Counters::default());
        let (of, digest) = (counters.clone(), model_digest.to_owned());
        let adopt: Adopter = Box::new(move |database| {
            let clear = of.clear.swap(false, Ordering::Relaxed);
            let prepared = prepare(database, &digest, clear);
            let (entries, next, shares) = prepared.inspect_err(|_| {
                of.clear.fetch_or(clear, Ordering::Relaxed);
            })?;
            *of.shares() = shares;
            of.entries.store(entries, Ordering::Relaxed);
            of.sequence.fetch_max(next, Ordering::Relaxed);
            Ok(())
        });
        let database = Arc::new(RecoveringDatabase::open("embedding cache", open, adopt)?);
        let writer = Writer::start(database.clone(), counters.clone(), limit)?;
        Ok(Self {
            inner: Some(Inner {
                database,
                counters,
                writer,
                dimensions,
                limit,
                persistent,
                began: Instant::now(),
                watch: Watch::default(),
            }),
        })
    }

    /// As [`open`](Self::open); where that fails, the log says why and there is no cache.
    pub fn open_or_without(
        directory: Option<&Path>,
        model_digest: &str,
        dimensions: usize,
        limits: CacheLimits,
    ) -> Self {
        Self::open(directory, model_digest, dimensions, limits).unwrap_or_else(|error| {
            tracing::warn!("embeddings are not cached: {error}");
            Self { inner: None }
        })
    }

    /// The vectors of keys, in order, as far as they are there and whole.
    pub fn get(&self, keys: &[VectorKey]) -> Vec<Option<Embedding>> {
        let Some(inner) = &self.inner else {
            return vec![None; keys.len()];
        };
        let asked = Instant::now();
        let found = match inner.read(keys) {
            Ok(found) => found,
            Err(error) => inner.failed(&error, keys.len()),
        };
        inner.watch.took(asked.elapsed());
        let hits = found.iter().flatten().count() as u64;
        inner.counters.hits.fetch_add(hits, Ordering::Relaxed);
        let misses = keys.len() as u64 - hits;
        inner.counters.misses.fetch_add(misses, Ordering::Relaxed);
        found
    }

    /// Stores a vector with the next batch. Never waits.
    pub fn put(&self, key: VectorKey, embedding: &Embedding) {
        if let Some(inner) = &self.inner {
            let value = value::encode(&key, embedding);
            inner.writer.put(key, value);
        }
    }

    /// Waits until what was put before is on disk.
    pub fn flush(&self) {
        if let Some(inner) = &self.inner {
            inner.writer.flush();
        }
    }

    /// Drops every vector, on disk too.
    pub fn clear(&self) {
        if let Some(inner) = &self.inner {
            inner.writer.clear();
        }
    }

    /// To be called every few seconds: notes the counts of now for the rates.
    pub fn upkeep(&self) {
        if let Some(inner) = &self.inner {
            inner.watch.sample(inner.sampled());
        }
    }

    /// How its disk fares. Waits for nothing.
    pub fn disk(&self) -> DiskHealth {
        let inner = self.inner.as_ref();
        inner.map_or_else(DiskHealth::default, |inner| inner.database.health())
    }

    /// What the cache did so far and what it holds now.
    pub fn stats(&self) -> VectorCacheStats {
        let Some(inner) = &self.inner else {
            return VectorCacheStats::default();
        };
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counters = &inner.counters;
        let entries = get(&counters.entries);
        VectorCacheStats {
            entries,
            max_entries: inner.limit,
            bytes: entries * entry_bytes(inner.dimensions),
            times: inner.watch.times(),
            rates: inner.watch.rates(inner.began, inner.sampled()),
            hits: get(&counters.hits),
            misses: get(&counters.misses),
            evictions: get(&counters.evictions),
            broken: get(&counters.broken),
            dropped: get(&counters.dropped),
            enabled: true,
            persistent: inner.persistent,
            disk: self.disk(),
        }
    }
}

impl Inner {
    fn sampled(&self) -> Sample {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Sample {
            at: Instant::now(),
            lookups: get(&self.counters.hits) + get(&self.counters.misses),
            evictions: get(&self.counters.evictions),
        }
    }

    fn read(&self, keys: &[VectorKey]) -> Result<Vec<Option<Embedding>>, DiskError> {
        let newest = self.counters.sequence.load(Ordering::Relaxed);
        self.database.read(|database| {
            let vectors = database.begin_read()?.open_table(VECTORS)?;
            let mut found = Vec::with_capacity(keys.len());
            for key in keys {
                let Some(stored) = vectors.get(key.as_bytes())? else {
                    found.push(None);
                    continue;
                };
                let decoded = value::decode(key, stored.value(), self.dimensions);
                match &decoded {
                    // What is among the newest half is in no danger: that spares most hits a write.
                    Some((used, _)) if newest.saturating_sub(*used) > self.limit / 2 => {
                        self.writer.touch(*key);
                    }
                    Some(_) => {}
                    None => {
                        self.counters.broken.fetch_add(1, Ordering::Relaxed);
                        self.writer.remove(*key);
                    }
                }
                found.push(decoded.map(|(_, embedding)| embedding));
            }
            Ok(found)
        })
    }

    fn failed(&self, error: &DiskError, keys: usize) -> Vec<Option<Embedding>> {
        // That the disk is in trouble has been said once.
        if !matches!(error, DiskError::Away { .. }) {
            tracing::warn!(%error, "the embedding cache cannot be read");
        }
        vec![None; keys]
    }
}

/// Of a key and a value, in both tables.
fn entry_bytes(dimensions: usize) -> u64 {
    (2 * (32 + 8) + value_bytes(dimensions)) as u64
}

/// Makes the tables, empties them if they are another model's or to be cleared, and says how many vectors there are, what the
/// next one's place in the order is, and whose they are.
fn prepare(
    database: &Database,
    model_digest: &str,
    clear: bool,
) -> Result<(u64, u64, Shares), DiskError> {
    let failed = |e: redb::Error| DiskError::Failed(Box::new(e));
    let prepared = || -> Result<(u64, u64, Shares), redb::Error> {
        let transaction = database.begin_write()?;
        let result = {
            let mut meta = transaction.open_table(META)?;
            let ours = [
                ("format", FORMAT.to_le_bytes().to_vec()),
                ("model", model_digest.as_bytes().to_vec()),
            ];
            let mut same = !clear;
            for (name, value) in &ours {
                same &= meta
                    .get(*name)?
                    .is_some_and(|found| found.value() == value.as_slice());
            }
            if !same {
                transaction.delete_table(VECTORS)?;
                transaction.delete_table(ORDER)?;
                for (name, value) in &ours {
                    meta.insert(*name, value.as_slice())?;
                }
            }
            let vectors = transaction.open_table(VECTORS)?;
            let order = transaction.open_table(ORDER)?;
            let mut shares = Shares::default();
            let mut next = 0;
            for entry in order.iter()? {
                let (used, key) = entry?;
                next = used.value() + 1;
                shares.insert(VectorKey::owner(key.value()), used.value());
            }
            (vectors.len()?, next, shares)
        };
        transaction.commit()?;
        Ok(result)
    };
    prepared().map_err(failed)
}
