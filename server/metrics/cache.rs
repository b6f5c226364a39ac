//! The cache in memory.

use code_explainer_cache::{CacheStats, Cause, Policy};
use metrics::{Counter, Gauge, KeyName, Recorder, Unit};
use metrics_exporter_prometheus::PrometheusRecorder;

use super::register::{counter, gauge};

const BYTES: &str = "code_explainer_cache_bytes";
const EVICTIONS: &str = "code_explainer_cache_evictions_total";
const POLICY: &str = "code_explainer_cache_policy";

/// Read when somebody asks.
pub(super) struct MemoryMetrics {
    bytes: Gauge,
    evictions: Vec<Counter>,
    policies: Vec<(Policy, Gauge)>,
}

impl MemoryMetrics {
    pub(super) fn new(r: &PrometheusRecorder) -> Self {
        r.describe_gauge(
            KeyName::from(BYTES),
            Some(Unit::Bytes),
            "bytes of the answers kept in memory".into(),
        );
        r.describe_counter(
            KeyName::from(EVICTIONS),
            Some(Unit::Count),
            "answers that left memory, by cause: entries or bytes (the bound), expired, replaced, cleared".into(),
        );
        r.describe_gauge(
            KeyName::from(POLICY),
            Some(Unit::Count),
            "1 for the policy in force in memory, which an adaptive cache changes".into(),
        );
        let fixed = Policy::ALL.into_iter().filter(|p| *p != Policy::Adaptive);
        Self {
            bytes: gauge(r, BYTES, &[]),
            evictions: Cause::ALL
                .map(|cause| counter(r, EVICTIONS, &[("cause", cause.as_str())]))
                .into(),
            policies: fixed
                .map(|policy| (policy, gauge(r, POLICY, &[("policy", policy.as_str())])))
                .collect(),
        }
    }

    pub(super) fn set(&self, now: &CacheStats) {
        self.bytes.set(now.memory_bytes as f64);
        for (counter, count) in self.evictions.iter().zip(now.memory_evictions) {
            counter.absolute(count);
        }
        for (policy, gauge) in &self.policies {
            gauge.set(f64::from(u8::from(now.memory_policy == Some(*policy))));
        }
    }
}
