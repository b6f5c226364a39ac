//! Prompts: how many are made, and how long it takes.

use std::time::Duration;

use metrics::{Histogram, KeyName, Recorder, Unit};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusRecorder};

use super::register::histogram;

const PROMPT: &str = "code_explainer_prompt_seconds";
const BUCKETS: &[f64] = &[
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0,
];

/// The metrics of prompts.
pub struct PromptMetrics(Histogram);

pub(super) fn with_buckets(builder: PrometheusBuilder) -> Result<PrometheusBuilder, BuildError> {
    builder.set_buckets_for_metric(Matcher::Full(PROMPT.into()), BUCKETS)
}

impl PromptMetrics {
    pub(super) fn new(r: &PrometheusRecorder) -> Self {
        let text = "time to make a prompt, waiting for a core included; cached answers need none";
        r.describe_histogram(KeyName::from(PROMPT), Some(Unit::Seconds), text.into());
        Self(histogram(r, PROMPT, &[]))
    }

    /// A prompt was made.
    pub fn made(&self, time: Duration) {
        self.0.record(time.as_secs_f64());
    }
}
