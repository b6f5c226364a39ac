//! Streams: how many there are, and what became of their readers.

use metrics::{Counter, Gauge, KeyName, Recorder, Unit};
use metrics_exporter_prometheus::PrometheusRecorder;

use super::register::{counter, gauge};

const OPEN: &str = "code_explainer_streams_open";
const PARKED: &str = "code_explainer_items_parked";
const DETACHED: &str = "code_explainer_streams_detached";
const RESUMED: &str = "code_explainer_streams_resumed_total";
const DISPLACED: &str = "code_explainer_sessions_displaced_total";
const SHED: &str = "code_explainer_items_shed_total";
const JOINED: &str = "code_explainer_items_joined_total";

/// The metrics of streams.
pub struct StreamMetrics {
    open: Gauge,
    parked: Gauge,
    detached: Gauge,
    resumed: Counter,
    displaced: Counter,
    shed: Counter,
    joined: Counter,
}

impl StreamMetrics {
    pub(super) fn new(recorder: &PrometheusRecorder) -> Self {
        Self {
            open: gauge(recorder, OPEN, &[]),
            parked: gauge(recorder, PARKED, &[]),
            detached: gauge(recorder, DETACHED, &[]),
            resumed: counter(recorder, RESUMED, &[]),
            displaced: counter(recorder, DISPLACED, &[]),
            shed: counter(recorder, SHED, &[]),
            joined: counter(recorder, JOINED, &[]),
        }
    }

    /// Counts a stream as open until the guard is dropped.
    pub fn opened(&self) -> Counted {
        Counted::new(&self.open)
    }

    /// Counts an item as parked, with an answer that its client does not read on, until the guard is dropped.
    pub fn parked(&self) -> Counted {
        Counted::new(&self.parked)
    }

    /// Counts a stream as waiting for its client to come back until the guard is dropped.
    pub fn detached(&self) -> Counted {
        Counted::new(&self.detached)
    }

    /// A client came back to its stream.
    pub fn resumed(&self) {
        self.resumed.increment(1);
    }

    /// A stream cannot be resumed any more, because one of another tenant took its place.
    pub fn displaced(&self) {
        self.displaced.increment(1);
    }

    /// An item was given up because its client did not read on.
    pub fn shed(&self) {
        self.shed.increment(1);
    }

    /// An item shares the answer of another one.
    pub fn joined(&self) {
        self.joined.increment(1);
    }
}

/// Something that a gauge counts as long as it is there.
pub struct Counted(Gauge);

impl Counted {
    fn new(gauge: &Gauge) -> Self {
        gauge.increment(1);
        Self(gauge.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.decrement(1);
    }
}

pub(super) fn describe(recorder: &PrometheusRecorder) {
    for (name, text) in [
        (OPEN, "bidirectional streams that are open"),
        (
            DETACHED,
            "streams whose connection was lost and whose client may come back",
        ),
        (PARKED, "items with more to say than their client reads"),
    ] {
        recorder.describe_gauge(KeyName::from(name), Some(Unit::Count), text.into());
    }
    for (name, text) in [
        (RESUMED, "streams that their client came back to"),
        (
            DISPLACED,
            "resumable streams whose place a tenant with fewer of them took",
        ),
        (
            SHED,
            "items that were given up because their client did not read on",
        ),
        (
            JOINED,
            "items that shared the answer of another one in flight",
        ),
    ] {
        recorder.describe_counter(KeyName::from(name), Some(Unit::Count), text.into());
    }
}
