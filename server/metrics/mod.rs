//! Every metric: its name, unit and labels, in one place. Labels come from closed sets, never from a client.
//!
//! Each server has its own registry, so that several can live in one process. A topic with more than a few metrics has a
//! module of its own, which registers and describes them.

mod bodies;
mod cache;
mod describe;
mod disk;
mod life;
mod prompts;
mod register;
mod remote;
mod streams;

mod access;
mod embeddings;
mod retrieval;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use hdrhistogram::Histogram as Quantiles;
use metrics::{Counter, Gauge, Histogram};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};

pub use streams::{Counted, StreamMetrics};

use cache::MemoryMetrics;
use code_explainer_cache::{BrokenValue, CacheStats};
use code_explainer_code::prompt::Strategy;
use code_explainer_scheduler::{Gauges, StepReport};
use describe::describe;
pub use life::Life;
pub use prompts::PromptMetrics;
use register::{counter, gauge, histogram};
use remote::RedisMetrics;

pub use bodies::BodyMetrics;

pub use access::{AccessMetrics, ConnectionGuard};
pub use embeddings::EmbeddingMetrics;
pub use retrieval::{RetrievalMetrics, Retrieved};

use crate::status::Phase;

const DURATION: &str = "explanation_duration_seconds";
const CACHE_HIT_RATIO: &str = "cache_hit_ratio";
const MEMORY: &str = "memory_usage_mb";
const ITEMS: &str = "code_explainer_items_total";
const FIRST_TOKEN: &str = "code_explainer_time_to_first_token_seconds";
const INTER_TOKEN: &str = "code_explainer_inter_token_latency_seconds";
const QUEUE_TIME: &str = "code_explainer_queue_seconds";
const TOKENS: &str = "code_explainer_tokens_total";
const STEP: &str = "code_explainer_step_duration_seconds";
const GRAPH_STEPS: &str = "code_explainer_graph_steps_total";
const STEP_SEQUENCES: &str = "code_explainer_step_sequences";
const QUEUE_DEPTH: &str = "code_explainer_queue_depth";
const RUNNING: &str = "code_explainer_running_sequences";
const PREFIX_CACHED: &str = "code_explainer_prefix_cached_tokens_total";
const DRAFTS: &str = "code_explainer_draft_tokens_total";
const PREEMPTIONS: &str = "code_explainer_preemptions_total";
const PAUSES: &str = "code_explainer_pauses_total";
const KV_BLOCKS: &str = "code_explainer_kv_blocks";
const CACHE_LOOKUPS: &str = "code_explainer_cache_lookups_total";
const CACHE_ENTRIES: &str = "code_explainer_cache_entries";
const BROKEN_VALUES: &str = "code_explainer_cache_broken_values_total";
const DROPPED_PUTS: &str = "code_explainer_cache_dropped_puts_total";
const BUILD: &str = "code_explainer_build_info";

const SECONDS: &[f64] = &[
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0,
];
const STEP_SECONDS: &[f64] = &[
    0.001, 0.0025, 0.005, 0.01, 0.02, 0.04, 0.08, 0.15, 0.3, 0.6, 1.2, 2.5, 5.0,
];
const BATCHES: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0];

/// How an item ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Answered.
    Done,
    /// Cancelled by the client.
    Cancelled,
    /// Refused or failed.
    Failed,
}

/// What an answered item took.
#[derive(Debug, Clone, Copy)]
pub struct ItemTimes {
    /// From receipt to the last token.
    pub total: Duration,
    /// From acceptance to the first step.
    pub queue: Duration,
    /// From acceptance to the first token.
    pub first_token: Duration,
}

/// A server's metrics.
pub struct Metrics {
    /// Connections, and who is let in.
    pub access: AccessMetrics,
    /// Bodies of requests.
    pub bodies: BodyMetrics,
    /// Of embeddings.
    pub embeddings: EmbeddingMetrics,
    /// Of retrieval.
    pub retrieval: RetrievalMetrics,
    /// Of prompts.
    pub prompts: PromptMetrics,
    prometheus: PrometheusHandle,
    durations: Vec<(Strategy, Histogram)>,
    items: [Counter; 3],
    first_token: Histogram,
    inter_token: Histogram,
    queue_time: Histogram,
    prefill_tokens: Counter,
    decode_tokens: Counter,
    generated_tokens: Counter,
    prefix_cached_tokens: Counter,
    /// Guesses that held, and those that did not.
    drafts: [Counter; 2],
    preemptions: Counter,
    pauses: Counter,
    step: Histogram,
    step_sequences: Histogram,
    graph_steps: [Counter; 2],
    /// Of streams and their readers.
    pub streams: StreamMetrics,
    /// The server's and its engines' life.
    pub life: Life,
    scraped: Scraped,
    items_report: Mutex<ItemTotals>,
    step_report: StepCounters,
}

/// Gauges that are read when somebody asks.
struct Scraped {
    hit_ratio: Gauge,
    memory: Vec<(&'static str, Gauge)>,
    queue_depth: Gauge,
    running: Gauge,
    kv_used: Gauge,
    kv_idle: Gauge,
    kv_total: Gauge,
    lookups: [Counter; 3],
    entries: Gauge,
    cache_memory: MemoryMetrics,
    redis: RedisMetrics,
    broken_values: [Counter; 4],
    dropped_puts: Counter,
}

/// What the performance report says of items; kept apart because Prometheus' histograms cannot be read back.
#[derive(Debug, Clone)]
pub struct ItemTotals {
    /// Items by [`Outcome`]: done, cancelled, failed.
    pub ended: [u64; 3],
    /// From receipt to the last token, in microseconds.
    pub total_us: Quantiles<u64>,
    /// From acceptance to the first token, in microseconds.
    pub first_token_us: Quantiles<u64>,
}

/// What the performance report says of steps.
#[derive(Debug, Clone, Copy, Default)]
pub struct StepTotals {
    /// Steps of the model.
    pub steps: u64,
    /// Sum of their sequences.
    pub sequences: u64,
    /// Sum of their times.
    pub time: Duration,
    /// Tokens sampled.
    pub generated_tokens: u64,
    /// Prompt tokens run.
    pub prefill_tokens: u64,
    /// Prompt tokens that were in the KV cache already.
    pub cached_tokens: u64,
}

/// Written by the engine thread, which must not wait for a reader: atomics and no lock.
#[derive(Debug, Default)]
struct StepCounters {
    steps: AtomicU64,
    sequences: AtomicU64,
    time_us: AtomicU64,
    generated_tokens: AtomicU64,
    prefill_tokens: AtomicU64,
    cached_tokens: AtomicU64,
}

/// What the gauges show at a scrape.
pub struct Snapshot<'a> {
    /// Queue and engine.
    pub gauges: &'a Gauges,
    /// The explanation cache.
    pub cache: &'a CacheStats,
    /// Where the server is in its life.
    pub phase: Phase,
    /// Memory by type, in bytes: "cpu" (the process), "gpu", "weights", "kv_pool".
    pub memory: &'a [(&'static str, u64)],
}

impl Metrics {
    /// Registers every metric.
    ///
    /// # Errors
    /// The buckets are not valid, which a test would have found.
    pub fn new() -> Result<Self, BuildError> {
        let recorder =
            retrieval::with_buckets(embeddings::with_buckets(PrometheusBuilder::new())?)?;
        let recorder = prompts::with_buckets(recorder)?
            .set_buckets_for_metric(Matcher::Full(DURATION.into()), SECONDS)?
            .set_buckets_for_metric(Matcher::Full(FIRST_TOKEN.into()), SECONDS)?
            .set_buckets_for_metric(Matcher::Full(QUEUE_TIME.into()), SECONDS)?
            .set_buckets_for_metric(Matcher::Full(INTER_TOKEN.into()), STEP_SECONDS)?
            .set_buckets_for_metric(Matcher::Full(STEP.into()), STEP_SECONDS)?
            .set_buckets_for_metric(Matcher::Full(STEP_SEQUENCES.into()), BATCHES)?
            .build_recorder();
        describe(&recorder);
        streams::describe(&recorder);
        let r = &recorder;
        let strategies = Strategy::ALL.iter();
        gauge(r, BUILD, &[("version", env!("CARGO_PKG_VERSION"))]).set(1.0);
        Ok(Self {
            access: AccessMetrics::new(r),
            bodies: BodyMetrics::new(r),
            embeddings: EmbeddingMetrics::new(r),
            retrieval: RetrievalMetrics::new(r),
            prompts: PromptMetrics::new(r),
            prometheus: r.handle(),
            durations: strategies
                .map(|s| (*s, histogram(r, DURATION, &[("strategy", s.as_str())])))
                .collect(),
            items: ["done", "cancelled", "failed"].map(|o| counter(r, ITEMS, &[("outcome", o)])),
            first_token: histogram(r, FIRST_TOKEN, &[]),
            inter_token: histogram(r, INTER_TOKEN, &[]),
            queue_time: histogram(r, QUEUE_TIME, &[]),
            prefill_tokens: counter(r, TOKENS, &[("kind", "prefill")]),
            decode_tokens: counter(r, TOKENS, &[("kind", "decode")]),
            generated_tokens: counter(r, TOKENS, &[("kind", "generated")]),
            prefix_cached_tokens: counter(r, PREFIX_CACHED, &[]),
            drafts: ["accepted", "rejected"].map(|o| counter(r, DRAFTS, &[("outcome", o)])),
            preemptions: counter(r, PREEMPTIONS, &[]),
            pauses: counter(r, PAUSES, &[]),
            step: histogram(r, STEP, &[]),
            step_sequences: histogram(r, STEP_SEQUENCES, &[]),
            graph_steps: ["replayed", "bypassed"]
                .map(|result| counter(r, GRAPH_STEPS, &[("result", result)])),
            streams: StreamMetrics::new(r),
            life: Life::new(r),
            scraped: Scraped {
                hit_ratio: gauge(r, CACHE_HIT_RATIO, &[]),
                memory: ["cpu", "gpu", "weights", "kv_pool"]
                    .map(|t| (t, gauge(r, MEMORY, &[("type", t)])))
                    .into(),
                queue_depth: gauge(r, QUEUE_DEPTH, &[]),
                running: gauge(r, RUNNING, &[]),
                kv_used: gauge(r, KV_BLOCKS, &[("state", "used")]),
                kv_idle: gauge(r, KV_BLOCKS, &[("state", "kept")]),
                kv_total: gauge(r, KV_BLOCKS, &[("state", "total")]),
                lookups: ["memory", "redis", "miss"]
                    .map(|result| counter(r, CACHE_LOOKUPS, &[("result", result)])),
                entries: gauge(r, CACHE_ENTRIES, &[]),
                cache_memory: MemoryMetrics::new(r),
                redis: RedisMetrics::new(r),
                broken_values: BrokenValue::KINDS
                    .map(|reason| counter(r, BROKEN_VALUES, &[("reason", reason)])),
                dropped_puts: counter(r, DROPPED_PUTS, &[]),
            },
            items_report: Mutex::new(ItemTotals::new()),
            step_report: StepCounters::default(),
        })
    }

    /// An item was answered.
    pub fn item_done(&self, strategy: Strategy, times: &ItemTimes) {
        if let Some((_, histogram)) = self.durations.iter().find(|(s, _)| *s == strategy) {
            histogram.record(times.total.as_secs_f64());
        }
        self.first_token.record(times.first_token.as_secs_f64());
        self.queue_time.record(times.queue.as_secs_f64());
        self.with_totals(|totals| {
            totals
                .total_us
                .saturating_record(times.total.as_micros() as u64);
            totals
                .first_token_us
                .saturating_record(times.first_token.as_micros() as u64);
        });
    }

    /// An item has ended, one way or the other.
    pub fn item_ended(&self, outcome: Outcome) {
        self.items[outcome as usize].increment(1);
        self.with_totals(|totals| totals.ended[outcome as usize] += 1);
    }

    /// A token came this long after the one before it.
    pub fn inter_token(&self, latency: Duration) {
        self.inter_token.record(latency.as_secs_f64());
    }

    /// A step was run. Called on the engine thread: nothing here waits.
    pub fn step(&self, step: &StepReport) {
        self.step.record(step.duration.as_secs_f64());
        self.step_sequences.record(step.sequences as f64);
        let [replayed, bypassed] = &self.graph_steps;
        replayed.increment(step.graph_steps.replayed);
        bypassed.increment(step.graph_steps.bypassed);
        self.prefill_tokens.increment(step.prefill_tokens as u64);
        self.decode_tokens.increment(step.decode_tokens as u64);
        self.generated_tokens
            .increment(step.generated_tokens as u64);
        self.prefix_cached_tokens
            .increment(step.cached_tokens as u64);
        let rejected = step.draft_tokens - step.accepted_tokens;
        for (counter, n) in self.drafts.iter().zip([step.accepted_tokens, rejected]) {
            counter.increment(n as u64);
        }
        self.preemptions.increment(step.preempted as u64);
        self.pauses.increment(step.paused as u64);
        let add = |counter: &AtomicU64, n: u64| {
            counter.fetch_add(n, Ordering::Relaxed);
        };
        add(&self.step_report.steps, 1);
        add(&self.step_report.sequences, step.sequences as u64);
        add(&self.step_report.time_us, step.duration.as_micros() as u64);
        add(
            &self.step_report.generated_tokens,
            step.generated_tokens as u64,
        );
        add(&self.step_report.prefill_tokens, step.prefill_tokens as u64);
        add(&self.step_report.cached_tokens, step.cached_tokens as u64);
    }

    /// Moves samples into their buckets. Histograms keep every sample until then, so this must run now and then also
    /// where nobody scrapes.
    pub fn upkeep(&self) {
        self.prometheus.run_upkeep();
    }

    /// The text that Prometheus reads.
    pub fn render(&self, now: &Snapshot<'_>) -> String {
        let s = &self.scraped;
        s.hit_ratio.set(now.cache.hit_ratio);
        for (name, bytes) in now.memory {
            if let Some((_, gauge)) = s.memory.iter().find(|(n, _)| n == name) {
                gauge.set(*bytes as f64 / (1024.0 * 1024.0));
            }
        }
        self.life.phase(now.phase);
        s.queue_depth.set(now.gauges.queued() as f64);
        s.running.set(now.gauges.running() as f64);
        s.kv_used.set(now.gauges.blocks_used() as f64);
        s.kv_idle.set(now.gauges.blocks_idle() as f64);
        s.kv_total.set(now.gauges.blocks_total() as f64);
        let lookups = [
            now.cache.memory_hits,
            now.cache.redis_hits,
            now.cache.misses,
        ];
        for (counter, count) in s.lookups.iter().zip(lookups) {
            counter.absolute(count);
        }
        s.entries.set(now.cache.memory_entries as f64);
        s.cache_memory.set(now.cache);
        s.redis.set(now.cache);
        for (counter, count) in s.broken_values.iter().zip(now.cache.broken_values) {
            counter.absolute(count);
        }
        s.dropped_puts.absolute(now.cache.dropped_puts);
        self.upkeep();
        self.prometheus.render()
    }

    /// What the performance report says of items.
    pub fn item_totals(&self) -> ItemTotals {
        self.with_totals(|totals| totals.clone())
    }

    /// What the performance report says of steps.
    pub fn step_totals(&self) -> StepTotals {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        StepTotals {
            steps: get(&self.step_report.steps),
            sequences: get(&self.step_report.sequences),
            time: Duration::from_micros(get(&self.step_report.time_us)),
            generated_tokens: get(&self.step_report.generated_tokens),
            prefill_tokens: get(&self.step_report.prefill_tokens),
            cached_tokens: get(&self.step_report.cached_tokens),
        }
    }

    fn with_totals<T>(&self, f: impl FnOnce(&mut ItemTotals) -> T) -> T {
        f(&mut self
            .items_report
            .lock()
            .unwrap_or_else(PoisonError::into_inner))
    }
}

impl ItemTotals {
    fn new() -> Self {
        // Up to a day, to three significant digits.
        let quantiles = || Quantiles::new_with_max(86_400_000_000, 3).expect("valid bounds");
        Self {
            ended: [0; 3],
            total_us: quantiles(),
            first_token_us: quantiles(),
        }
    }
}
