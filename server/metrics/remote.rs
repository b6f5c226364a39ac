//! The Redis that replicas share.

use code_explainer_cache::CacheStats;
use metrics::{Counter, Gauge, KeyName, Recorder, Unit};
use metrics_exporter_prometheus::PrometheusRecorder;

use super::register::{counter, gauge};

const ERRORS: &str = "code_explainer_redis_errors_total";
const AVAILABLE: &str = "code_explainer_redis_available";
const SHARED: &str = "code_explainer_redis_shared_answers_total";

/// Read when somebody asks.
pub(super) struct RedisMetrics {
    errors: Counter,
    available: Gauge,
    /// Led, followed, taken over, lost.
    shared: [Counter; 4],
}

impl RedisMetrics {
    pub(super) fn new(r: &PrometheusRecorder) -> Self {
        r.describe_counter(
            KeyName::from(ERRORS),
            Some(Unit::Count),
            "operations that Redis failed to do in time".into(),
        );
        r.describe_gauge(
            KeyName::from(AVAILABLE),
            Some(Unit::Count),
            "1 while Redis is asked, 0 without one or while it or a shard of it is left alone"
                .into(),
        );
        let shared = "answers made by one replica for all, by role: led here, followed while another made them, \
                      taken_over from one that did not finish, lost when Redis failed";
        r.describe_counter(KeyName::from(SHARED), Some(Unit::Count), shared.into());
        Self {
            errors: counter(r, ERRORS, &[]),
            available: gauge(r, AVAILABLE, &[]),
            shared: ["led", "followed", "taken_over", "lost"]
                .map(|role| counter(r, SHARED, &[("role", role)])),
        }
    }

    pub(super) fn set(&self, now: &CacheStats) {
        self.errors.absolute(now.redis_errors);
        self.available.set(f64::from(u8::from(now.redis_available)));
        let counts = [
            now.leases_led,
            now.leases_followed,
            now.leases_taken_over,
            now.leases_lost,
        ];
        for (counter, count) in self.shared.iter().zip(counts) {
            counter.absolute(count);
        }
    }
}
