//! Connections, and who is let in.

use metrics::{Counter, Gauge, KeyName, Recorder, Unit};
use metrics_exporter_prometheus::PrometheusRecorder;

use super::register::{counter, gauge};

const CONNECTIONS: &str = "code_explainer_connections_open";
const CONNECTIONS_REFUSED: &str = "code_explainer_connections_refused_total";
const CALLS_REFUSED: &str = "code_explainer_calls_refused_total";
const RATE_LIMITED: &str = "code_explainer_rate_limited_total";
const RELOADS: &str = "code_explainer_file_reloads_total";
const REDACTED: &str = "code_explainer_secrets_redacted_total";
const CERTIFICATE_END: &str = "code_explainer_tls_certificate_not_after_seconds";

const PROTOCOLS: [&str; 2] = ["grpc", "http"];

/// What is counted of connections and of who is let in.
pub struct AccessMetrics {
    open: [Gauge; 2],
    refused_connections: [[Counter; 2]; 2],
    refused_calls: [Counter; 2],
    rate_limited: [Counter; 2],
    reloads: [[Counter; 2]; 2],
    certificate_end: Gauge,
    redacted: Counter,
}

/// Counts a connection as open for as long as it lives.
pub struct ConnectionGuard<'a>(&'a Gauge);

const REFUSED: [&str; 2] = ["limit", "handshake"];
const REASONS: [&str; 2] = ["unauthenticated", "permission_denied"];
const LIMITED: [&str; 2] = ["items", "tokens"];
const FILES: [&str; 2] = ["auth", "tls"];

impl AccessMetrics {
    pub(super) fn new(r: &PrometheusRecorder) -> Self {
        describe(r);
        Self {
            open: PROTOCOLS.map(|p| gauge(r, CONNECTIONS, &[("protocol", p)])),
            refused_connections: PROTOCOLS.map(|p| {
                REFUSED.map(|reason| {
                    counter(
                        r,
                        CONNECTIONS_REFUSED,
                        &[("protocol", p), ("reason", reason)],
                    )
                })
            }),
            refused_calls: REASONS.map(|reason| counter(r, CALLS_REFUSED, &[("reason", reason)])),
            rate_limited: LIMITED.map(|what| counter(r, RATE_LIMITED, &[("what", what)])),
            reloads: FILES.map(|file| {
                ["ok", "failed"]
                    .map(|result| counter(r, RELOADS, &[("file", file), ("result", result)]))
            }),
            certificate_end: gauge(r, CERTIFICATE_END, &[]),
            redacted: counter(r, REDACTED, &[]),
        }
    }

    /// A connection was made: "grpc" or "http".
    pub fn connection_opened(&self, protocol: &str) -> ConnectionGuard<'_> {
        let gauge = &self.open[place(&PROTOCOLS, protocol)];
        gauge.increment(1.0);
        ConnectionGuard(gauge)
    }

    /// A connection was closed before its first call: "limit" or "handshake".
    pub fn connection_refused(&self, protocol: &str, reason: &str) {
        self.refused_connections[place(&PROTOCOLS, protocol)][place(&REFUSED, reason)].increment(1);
    }

    /// A call was turned away at the door, for the reason that labels its error.
    pub fn call_refused(&self, reason: &str) {
        self.refused_calls[place(&REASONS, reason)].increment(1);
    }

    /// An item was more than its tenant may ask for now: "items" or "tokens".
    pub fn rate_limited(&self, what: &str) {
        self.rate_limited[place(&LIMITED, what)].increment(1);
    }

    /// Files have changed, and are in use or of no use.
    pub fn reloaded(&self, file: &str, good: bool) {
        self.reloads[place(&FILES, file)][usize::from(!good)].increment(1);
    }

    /// Secrets in a snippet were made unreadable.
    pub fn redacted(&self, secrets: usize) {
        self.redacted.increment(secrets as u64);
    }

    /// When the certificate in use ends, in seconds since 1970.
    pub fn certificate_ends(&self, at: i64) {
        self.certificate_end.set(at as f64);
    }
}

impl Drop for ConnectionGuard<'_> {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}

/// Labels come from the code, never from a client.
fn place(labels: &[&str; 2], label: &str) -> usize {
    usize::from(label != labels[0])
}

fn describe(recorder: &PrometheusRecorder) {
    let gauges = [
        (
            CONNECTIONS,
            Unit::Count,
            "connections that are open, by protocol",
        ),
        (
            CERTIFICATE_END,
            Unit::Seconds,
            "when the TLS certificate in use ends, in seconds since 1970; 0 without TLS",
        ),
    ];
    for (name, unit, text) in gauges {
        recorder.describe_gauge(KeyName::from(name), Some(unit), text.into());
    }
    let counters = [
        (
            CONNECTIONS_REFUSED,
            "connections closed before their first call, by reason: limit (too many are open), handshake (of TLS)",
        ),
        (
            CALLS_REFUSED,
            "calls turned away, by reason: unauthenticated or permission_denied",
        ),
        (
            RATE_LIMITED,
            "items refused because their tenant has asked for too many items or tokens",
        ),
        (
            RELOADS,
            "changed files of keys (auth) and certificates (tls), by result: ok (in use) or failed (of no use)",
        ),
    ];
    let redacted = (REDACTED, "secrets in snippets that were made unreadable");
    for (name, text) in counters.into_iter().chain([redacted]) {
        recorder.describe_counter(KeyName::from(name), Some(Unit::Count), text.into());
    }
}
