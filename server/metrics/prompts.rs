//! Prompts: how many are made, how long it takes, and what clients' code costs.

use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, KeyName, Recorder, Unit};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusRecorder};

use super::register::{counter, gauge, histogram};

const PROMPT: &str = "code_explainer_prompt_seconds";
const PASS: &str = "code_explainer_code_pass_cpu_seconds";
const CUT_SHORT: &str = "code_explainer_code_passes_cut_short_total";
const RUNNING: &str = "code_explainer_code_work_running";
const BUCKETS: &[f64] = &[
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0,
];

/// The metrics of prompts.
pub struct PromptMetrics {
    made: Histogram,
    passes: Histogram,
    cut_short: Counter,
    running: Gauge,
}

pub(super) fn with_buckets(builder: PrometheusBuilder) -> Result<PrometheusBuilder, BuildError> {
    builder
        .set_buckets_for_metric(Matcher::Full(PROMPT.into()), BUCKETS)?
        .set_buckets_for_metric(Matcher::Full(PASS.into()), BUCKETS)
}

impl PromptMetrics {
    pub(super) fn new(r: &PrometheusRecorder) -> Self {
        let text = "time to make a prompt, waiting for a core included; cached answers need none";
        r.describe_histogram(KeyName::from(PROMPT), Some(Unit::Seconds), text.into());
        let text = "CPU time of a pass over a client's code: telling its language by its words or one grammar, outlining it, redaction, tokenization";
        r.describe_histogram(KeyName::from(PASS), Some(Unit::Seconds), text.into());
        let text = "passes over clients' code that were ended because their CPU time was spent (--code-cpu-time)";
        r.describe_counter(KeyName::from(CUT_SHORT), Some(Unit::Count), text.into());
        let text = "threads that work on clients' code; as many as there are cores at most";
        r.describe_gauge(KeyName::from(RUNNING), Some(Unit::Count), text.into());
        Self {
            running: gauge(r, RUNNING, &[]),
            made: histogram(r, PROMPT, &[]),
            passes: histogram(r, PASS, &[]),
            cut_short: counter(r, CUT_SHORT, &[]),
        }
    }

    /// A prompt was made.
    pub fn made(&self, time: Duration) {
        self.made.record(time.as_secs_f64());
    }

    /// A thread works on a client's code, or does so no more.
    pub fn runs(&self, more: f64) {
        self.running.increment(more);
    }

    /// A pass over a client's code took so much CPU time; it may have been ended for that.
    pub fn pass(&self, time: Duration, cut_short: bool) {
        self.passes.record(time.as_secs_f64());
        self.cut_short.increment(u64::from(cut_short));
    }
}
