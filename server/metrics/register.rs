//! Handles of metrics, made once.

use metrics::{Counter, Gauge, Histogram, Key, Label, Level, Metadata, Recorder};
use metrics_exporter_prometheus::PrometheusRecorder;

const METADATA: Metadata<'static> = Metadata::new("code_explainer", Level::INFO, None);

/// Names and values; both from closed sets.
pub(super) type Labels<'a> = &'a [(&'static str, &'static str)];

fn key(name: &'static str, labels: Labels<'_>) -> Key {
    Key::from_parts(name, labels.iter().map(Label::from).collect::<Vec<_>>())
}

/// A counter with these labels, at 0.
pub(super) fn counter(
    recorder: &PrometheusRecorder,
    name: &'static str,
    labels: Labels<'_>,
) -> Counter {
    recorder.register_counter(&key(name, labels), &METADATA)
}

/// A gauge with these labels.
pub(super) fn gauge(
    recorder: &PrometheusRecorder,
    name: &'static str,
    labels: Labels<'_>,
) -> Gauge {
    recorder.register_gauge(&key(name, labels), &METADATA)
}

/// A histogram with these labels.
pub(super) fn histogram(
    recorder: &PrometheusRecorder,
    name: &'static str,
    labels: Labels<'_>,
) -> Histogram {
    recorder.register_histogram(&key(name, labels), &METADATA)
}
