//! Connections, and who is let in.

use metrics::{Counter, Gauge, KeyName, Recorder, Unit};
use metrics_exporter_prometheus::PrometheusRecorder;

use super::register::{counter, gauge};

const CONNECTIONS: &str = "code_explainer_connections_open";
const CONNECTIONS_REFUSED: &str = "code_explainer_connections_refused_total";
const CONNECTIONS_CLOSED: &str = "code_explainer_connections_closed_total";
const OPEN_DESCRIPTORS: &str = "process_open_fds";
const MOST_DESCRIPTORS: &str = "process_max_fds";
const CALLS_REFUSED: &str = "code_explainer_calls_refused_total";
const RATE_LIMITED: &str = "code_explainer_rate_limited_total";
const RELOADS: &str = "code_explainer_file_reloads_total";
const REDACTED: &str = "code_explainer_secrets_redacted_total";
const CERTIFICATE_END: &str = "code_explainer_tls_certificate_not_after_seconds";
const REVOCATIONS_END: &str = "code_explainer_tls_client_crl_next_update_seconds";
const STALE: &str = "code_explainer_file_stale";
const CALLERS_KNOWN: &str = "code_explainer_callers_known";

const PROTOCOLS: [&str; 2] = ["grpc", "http"];

/// What is counted of connections and of who is let in.
pub struct AccessMetrics {
    open: [Gauge; 2],
    refused_connections: [[Counter; REFUSED.len()]; 2],
    closed_connections: [[Counter; CLOSED.len()]; 2],
    descriptors: [Gauge; 2],
    refused_calls: [Counter; 3],
    rate_limited: [Counter; 2],
    reloads: [[Counter; 2]; 3],
    stale: [Gauge; 3],
    callers_known: Gauge,
    certificate_end: Gauge,
    revocations_end: Gauge,
    redacted: Counter,
}

/// Counts a connection as open for as long as it lives.
pub struct ConnectionGuard<'a>(&'a Gauge);

const REFUSED: [&str; 4] = ["limit", "handshake", "address", "flood"];
const CLOSED: [&str; 8] = [
    "silent",
    "displaced",
    "stalled",
    "idle",
    "age",
    "slow",
    "revoked",
    "flood",
];
const REASONS: [&str; 3] = ["unauthenticated", "permission_denied", "callers_unknown"];
const LIMITED: [&str; 2] = ["items", "tokens"];
const FILES: [&str; 3] = ["auth", "tls", "tls_client"];

impl AccessMetrics {
    pub(super) fn new(r: &PrometheusRecorder) -> Self {
        describe(r);
        let callers_known = gauge(r, CALLERS_KNOWN, &[]);
        callers_known.set(1.0);
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
            closed_connections: PROTOCOLS.map(|p| {
                CLOSED.map(|reason| {
                    counter(
                        r,
                        CONNECTIONS_CLOSED,
                        &[("protocol", p), ("reason", reason)],
                    )
                })
            }),
            descriptors: [OPEN_DESCRIPTORS, MOST_DESCRIPTORS].map(|name| gauge(r, name, &[])),
            refused_calls: REASONS.map(|reason| counter(r, CALLS_REFUSED, &[("reason", reason)])),
            rate_limited: LIMITED.map(|what| counter(r, RATE_LIMITED, &[("what", what)])),
            reloads: FILES.map(|file| {
                ["ok", "failed"]
                    .map(|result| counter(r, RELOADS, &[("file", file), ("result", result)]))
            }),
            stale: FILES.map(|file| gauge(r, STALE, &[("file", file)])),
            callers_known,
            certificate_end: gauge(r, CERTIFICATE_END, &[]),
            revocations_end: gauge(r, REVOCATIONS_END, &[]),
            redacted: counter(r, REDACTED, &[]),
        }
    }

    /// A connection was made: "grpc" or "http".
    pub fn connection_opened(&self, protocol: &str) -> ConnectionGuard<'_> {
        let gauge = &self.open[place(&PROTOCOLS, protocol)];
        gauge.increment(1.0);
        ConnectionGuard(gauge)
    }

    /// A connection was closed before its first call: "limit", "address", "flood" or "handshake".
    pub fn connection_refused(&self, protocol: &str, reason: &str) {
        self.refused_connections[place(&PROTOCOLS, protocol)][place(&REFUSED, reason)].increment(1);
    }

    /// A connection was closed by the server: "silent", "displaced", "stalled", "idle", "age",
    /// "slow", "revoked" or "flood".
    pub fn connection_closed(&self, protocol: &str, reason: &str) {
        self.closed_connections[place(&PROTOCOLS, protocol)][place(&CLOSED, reason)].increment(1);
    }

    /// File descriptors: how many are open, where that is known, and how many may be.
    pub fn descriptors(&self, open: Option<u64>, most: u64) {
        let [now, limit] = &self.descriptors;
        now.set(open.unwrap_or_default() as f64);
        limit.set(most as f64);
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

    /// Whether what lies on the disk is of no use, so that something else is in force.
    pub fn file_stale(&self, file: &str, stale: bool) {
        self.stale[place(&FILES, file)].set(f64::from(u8::from(stale)));
    }

    /// Whether it can be told who may call.
    pub fn callers_known(&self, known: bool) {
        self.callers_known.set(f64::from(u8::from(known)));
    }

    /// When the first list of revoked certificates is past its next update, in seconds since 1970.
    pub fn revocations_end(&self, at: Option<i64>) {
        self.revocations_end.set(at.unwrap_or(0) as f64);
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
fn place(labels: &[&str], label: &str) -> usize {
    let place = labels.iter().position(|known| *known == label);
    place.unwrap_or(labels.len() - 1)
}

fn describe(recorder: &PrometheusRecorder) {
    let gauges = [
        (
            STALE,
            Unit::Count,
            "1 while files as they lie there are of no use, so that what they said before counts: of keys (auth), the server's own certificate (tls), or clients' authorities and revoked certificates (tls_client)",
        ),
        (
            CALLERS_KNOWN,
            Unit::Count,
            "0 while all calls are refused, because a file that says who may call cannot be read",
        ),
        (
            REVOCATIONS_END,
            Unit::Seconds,
            "when the first list of --tls-client-crl is past its next update, in seconds since 1970, and its authority's certificates are refused; 0 without one",
        ),
        (
            CONNECTIONS,
            Unit::Count,
            "connections that are open, by protocol",
        ),
        (
            OPEN_DESCRIPTORS,
            Unit::Count,
            "file descriptors that are open; 0 where the system does not tell",
        ),
        (
            MOST_DESCRIPTORS,
            Unit::Count,
            "file descriptors that may be open",
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
            "connections closed before their first call, by reason: limit (too many are open and at work), address (of \
             this address), handshake (of TLS)",
        ),
        (
            CONNECTIONS_CLOSED,
            "connections closed by the server, by reason: silent (no call after --handshake-timeout), displaced (idle, for \
             a new one), stalled (its client does not read), idle, age, slow (a request over HTTP), revoked (its certificate)",
        ),
        (
            CALLS_REFUSED,
            "calls turned away, by reason: unauthenticated, permission_denied, or callers_unknown (a file that says who may call cannot be read)",
        ),
        (
            RATE_LIMITED,
            "items refused because their tenant has asked for too many items or tokens",
        ),
        (
            RELOADS,
            "changed files of keys (auth), the server's own certificate (tls), and clients' authorities and revoked certificates (tls_client), by result: ok (in use) or failed (of no use)",
        ),
    ];
    let redacted = (REDACTED, "secrets in snippets that were made unreadable");
    for (name, text) in counters.into_iter().chain([redacted]) {
        recorder.describe_counter(KeyName::from(name), Some(Unit::Count), text.into());
    }
}
