//! Metrics of retrieval and of its corpus.

use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, KeyName, Recorder, Unit};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusRecorder};

use super::STEP_SECONDS;
use super::disk::DiskMetrics;
use super::register::{counter, gauge, histogram};
use crate::retrieval::store::StoreStats;

const RETRIEVALS: &str = "code_explainer_retrievals_total";
const DURATION: &str = "code_explainer_retrieval_duration_seconds";
const DOCUMENTS: &str = "code_explainer_corpus_documents";
const PASSAGES: &str = "code_explainer_corpus_passages";
const ANSWERS: &str = "code_explainer_corpus_answers";
const BROKEN: &str = "code_explainer_corpus_broken_records";
const DROPPED: &str = "code_explainer_corpus_dropped_answers_total";

/// What a search for what is known gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retrieved {
    /// Passages.
    Found,
    /// None that is near enough.
    Nothing,
    /// There was no asking.
    Unavailable,
}

/// What there is to say of retrieval.
pub struct RetrievalMetrics {
    /// By [`Retrieved`].
    retrievals: [Counter; 3],
    duration: Histogram,
    documents: Gauge,
    passages: Gauge,
    answers: Gauge,
    broken: Gauge,
    dropped: Counter,
    disk: DiskMetrics,
}

pub(super) fn with_buckets(builder: PrometheusBuilder) -> Result<PrometheusBuilder, BuildError> {
    builder.set_buckets_for_metric(Matcher::Full(DURATION.into()), STEP_SECONDS)
}

impl RetrievalMetrics {
    pub(super) fn new(r: &PrometheusRecorder) -> Self {
        let text = "time to find what is known that is near a snippet";
        r.describe_histogram(KeyName::from(DURATION), Some(Unit::Seconds), text.into());
        for (name, text) in [
            (DOCUMENTS, "documents in the corpus"),
            (PASSAGES, "passages of the documents in the corpus"),
            (ANSWERS, "answers that are kept to be found"),
            (
                BROKEN,
                "records in the corpus that were not what had been stored",
            ),
        ] {
            r.describe_gauge(KeyName::from(name), Some(Unit::Count), text.into());
        }
        for (name, text) in [
            (
                RETRIEVALS,
                "searches for what is known, by result: found, nothing or unavailable",
            ),
            (DROPPED, "answers that could not be kept to be found"),
        ] {
            r.describe_counter(KeyName::from(name), Some(Unit::Count), text.into());
        }
        Self {
            retrievals: ["found", "nothing", "unavailable"]
                .map(|result| counter(r, RETRIEVALS, &[("result", result)])),
            duration: histogram(r, DURATION, &[]),
            documents: gauge(r, DOCUMENTS, &[]),
            passages: gauge(r, PASSAGES, &[]),
            answers: gauge(r, ANSWERS, &[]),
            broken: gauge(r, BROKEN, &[]),
            dropped: counter(r, DROPPED, &[]),
            disk: DiskMetrics::new(r, "corpus"),
        }
    }

    /// An item's search has ended.
    pub fn retrieved(&self, result: Retrieved, time: Duration) {
        self.retrievals[result as usize].increment(1);
        self.duration.record(time.as_secs_f64());
    }

    /// An answer is not kept.
    pub fn answer_dropped(&self) {
        self.dropped.increment(1);
    }

    /// What the gauges show from now on.
    pub fn scrape(&self, store: &StoreStats) {
        self.documents.set(store.documents as f64);
        self.passages.set(store.passages as f64);
        self.answers.set(store.answers as f64);
        self.broken.set(store.broken as f64);
        self.disk.scrape(&store.disk);
    }
}
