//! What `/metrics` says of each metric.

use metrics::{KeyName, Recorder, Unit};
use metrics_exporter_prometheus::PrometheusRecorder;

use super::*;

pub(super) fn describe(recorder: &PrometheusRecorder) {
    let histograms = [
        (
            DURATION,
            Unit::Seconds,
            "time from the receipt of an item to its last token",
        ),
        (
            FIRST_TOKEN,
            Unit::Seconds,
            "time from acceptance to the first token",
        ),
        (
            INTER_TOKEN,
            Unit::Seconds,
            "time between two tokens of an item",
        ),
        (
            QUEUE_TIME,
            Unit::Seconds,
            "time from acceptance to the first step",
        ),
        (STEP, Unit::Seconds, "time of a step of the model"),
        (STEP_SEQUENCES, Unit::Count, "sequences in a step"),
    ];
    for (name, unit, text) in histograms {
        recorder.describe_histogram(KeyName::from(name), Some(unit), text.into());
    }
    let gauges = [
        (
            CACHE_HIT_RATIO,
            Unit::Count,
            "cache hits among all look-ups, 0 to 1",
        ),
        (
            MEMORY,
            Unit::Mebibytes,
            "MiB of memory by type: cpu (the process), gpu, weights, kv_pool",
        ),
        (QUEUE_DEPTH, Unit::Count, "items that wait to be worked on"),
        (RUNNING, Unit::Count, "sequences being worked on"),
        (
            KV_BLOCKS,
            Unit::Count,
            "blocks of the KV cache by state: used by sequences, kept for prompts to come, total",
        ),
        (CACHE_ENTRIES, Unit::Count, "answers kept in memory"),
        (BUILD, Unit::Count, "always 1; the version is a label"),
    ];
    for (name, unit, text) in gauges {
        recorder.describe_gauge(KeyName::from(name), Some(unit), text.into());
    }
    let counters = [
        (ITEMS, "items by outcome"),
        (
            TOKENS,
            "tokens by kind: prefill and decode were run, generated were sampled",
        ),
        (
            PREFIX_CACHED,
            "prompt tokens that were in the KV cache already when their prefill began",
        ),
        (
            DRAFTS,
            "guessed tokens that were tried, by outcome: accepted or rejected",
        ),
        (
            PREEMPTIONS,
            "sequences that gave their KV blocks to older ones and were computed again",
        ),
        (
            PAUSES,
            "sequences that gave their slot to a tenant that was served less, or to a more urgent one of their own",
        ),
        (
            GRAPH_STEPS,
            "steps of CUDA by result: replayed from a graph, or bypassed as they fit none",
        ),
        (CACHE_LOOKUPS, "cache look-ups by result"),
        (BROKEN_VALUES, "values in Redis that were no valid answer"),
        (
            DROPPED_PUTS,
            "answers that were not stored: too large, or Redis was busy or left alone",
        ),
    ];
    for (name, text) in counters {
        recorder.describe_counter(KeyName::from(name), Some(Unit::Count), text.into());
    }
}
