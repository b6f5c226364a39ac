//! Bodies of requests, until they are received.

use metrics::{Counter, Gauge, KeyName, Recorder, Unit};
use metrics_exporter_prometheus::PrometheusRecorder;

use super::register::{counter, gauge};

const IN_FLIGHT: &str = "code_explainer_request_bytes_in_flight";
const REFUSED: &str = "code_explainer_requests_refused_total";

const REASONS: [&str; 5] = ["too_large", "not_one", "no_room", "too_slow", "crowded"];

/// What is counted of bodies.
pub struct BodyMetrics {
    in_flight: Gauge,
    refused: [Counter; REASONS.len()],
}

impl BodyMetrics {
    pub(super) fn new(r: &PrometheusRecorder) -> Self {
        let text = "bytes that are taken out of --request-bytes-in-flight";
        r.describe_gauge(KeyName::from(IN_FLIGHT), Some(Unit::Bytes), text.into());
        let text = "requests that were read no further, by reason: too_large (a message is longer than the call takes), \
                    not_one (it takes one message), no_room (in --request-bytes-in-flight), too_slow \
                    (--message-timeout), crowded (too many calls without credentials)";
        r.describe_counter(KeyName::from(REFUSED), Some(Unit::Count), text.into());
        Self {
            in_flight: gauge(r, IN_FLIGHT, &[]),
            refused: REASONS.map(|reason| counter(r, REFUSED, &[("reason", reason)])),
        }
    }

    /// There is room for so many bytes.
    pub fn received(&self, bytes: usize) {
        self.in_flight.increment(bytes as f64);
    }

    /// It is free again.
    pub fn consumed(&self, bytes: usize) {
        self.in_flight.decrement(bytes as f64);
    }

    /// A request is read no further, for a reason that comes from the code.
    pub fn refused(&self, reason: &str) {
        if let Some(place) = REASONS.iter().position(|known| *known == reason) {
            self.refused[place].increment(1);
        }
    }
}
