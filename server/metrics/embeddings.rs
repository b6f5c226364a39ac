//! Metrics of embeddings and of their cache.

use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, KeyName, Recorder, Unit};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusRecorder};

use super::disk::DiskMetrics;
use super::register::{counter, gauge, histogram};
use super::{BATCHES, STEP_SECONDS};
use crate::embed::VectorCacheStats;

const TEXTS: &str = "code_explainer_embedding_texts_total";
const DURATION: &str = "code_explainer_embedding_duration_seconds";
const BATCH: &str = "code_explainer_embedding_batch_texts";
const BATCH_DURATION: &str = "code_explainer_embedding_batch_duration_seconds";
const WAITING: &str = "code_explainer_embedding_queue_texts";
const ENTRIES: &str = "code_explainer_embedding_cache_entries";
const BYTES: &str = "code_explainer_embedding_cache_bytes";
const LOOKUPS: &str = "code_explainer_embedding_cache_lookups_total";
const EVICTIONS: &str = "code_explainer_embedding_cache_evictions_total";
const BROKEN: &str = "code_explainer_embedding_cache_broken_values_total";
const DROPPED: &str = "code_explainer_embedding_cache_dropped_puts_total";

/// What there is to say of embeddings.
pub struct EmbeddingMetrics {
    /// From the cache, and computed.
    texts: [Counter; 2],
    duration: Histogram,
    batch: Histogram,
    batch_duration: Histogram,
    waiting: Gauge,
    entries: Gauge,
    bytes: Gauge,
    /// Hits and misses.
    lookups: [Counter; 2],
    evictions: Counter,
    broken: Counter,
    dropped: Counter,
    disk: DiskMetrics,
}

pub(super) fn with_buckets(builder: PrometheusBuilder) -> Result<PrometheusBuilder, BuildError> {
    builder
        .set_buckets_for_metric(Matcher::Full(DURATION.into()), STEP_SECONDS)?
        .set_buckets_for_metric(Matcher::Full(BATCH_DURATION.into()), STEP_SECONDS)?
        .set_buckets_for_metric(Matcher::Full(BATCH.into()), BATCHES)
}

impl EmbeddingMetrics {
    pub(super) fn new(r: &PrometheusRecorder) -> Self {
        for (name, unit, text) in [
            (
                DURATION,
                Unit::Seconds,
                "time from a request for vectors to the last of them",
            ),
            (
                BATCH,
                Unit::Count,
                "texts that the embedding model was run over at once",
            ),
            (
                BATCH_DURATION,
                Unit::Seconds,
                "time of a run of the embedding model",
            ),
        ] {
            r.describe_histogram(KeyName::from(name), Some(unit), text.into());
        }
        for (name, unit, text) in [
            (
                WAITING,
                Unit::Count,
                "texts that are being looked up, wait for the embedding model, or are being computed",
            ),
            (ENTRIES, Unit::Count, "vectors in the embedding cache"),
            (
                BYTES,
                Unit::Bytes,
                "bytes of keys and values in the embedding cache",
            ),
        ] {
            r.describe_gauge(KeyName::from(name), Some(unit), text.into());
        }
        for (name, text) in [
            (TEXTS, "texts that got a vector, by source: cache or model"),
            (LOOKUPS, "look-ups in the embedding cache by result"),
            (EVICTIONS, "vectors that made room in the embedding cache"),
            (
                BROKEN,
                "vectors in the embedding cache that were not what had been stored",
            ),
            (
                DROPPED,
                "vectors that were not stored: the disk did not keep up, or failed",
            ),
        ] {
            r.describe_counter(KeyName::from(name), Some(Unit::Count), text.into());
        }
        Self {
            texts: ["cache", "model"].map(|source| counter(r, TEXTS, &[("source", source)])),
            duration: histogram(r, DURATION, &[]),
            batch: histogram(r, BATCH, &[]),
            batch_duration: histogram(r, BATCH_DURATION, &[]),
            waiting: gauge(r, WAITING, &[]),
            entries: gauge(r, ENTRIES, &[]),
            bytes: gauge(r, BYTES, &[]),
            lookups: ["hit", "miss"].map(|result| counter(r, LOOKUPS, &[("result", result)])),
            evictions: counter(r, EVICTIONS, &[]),
            broken: counter(r, BROKEN, &[]),
            dropped: counter(r, DROPPED, &[]),
            disk: DiskMetrics::new(r, "embeddings"),
        }
    }

    /// A request got its vectors.
    pub fn request(&self, cached: usize, computed: usize, time: Duration) {
        self.texts[0].increment(cached as u64);
        self.texts[1].increment(computed as u64);
        self.duration.record(time.as_secs_f64());
    }

    /// The model was run.
    pub fn batch(&self, texts: usize, time: Duration) {
        self.batch.record(texts as f64);
        self.batch_duration.record(time.as_secs_f64());
    }

    /// What the gauges show from now on.
    pub fn scrape(&self, cache: &VectorCacheStats, waiting: usize) {
        self.waiting.set(waiting as f64);
        self.entries.set(cache.entries as f64);
        self.bytes.set(cache.bytes as f64);
        self.lookups[0].absolute(cache.hits);
        self.lookups[1].absolute(cache.misses);
        self.evictions.absolute(cache.evictions);
        self.broken.absolute(cache.broken);
        self.dropped.absolute(cache.dropped);
        self.disk.scrape(&cache.disk);
    }
}
