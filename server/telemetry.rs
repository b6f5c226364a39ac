//! The log, and one OTLP trace per item.

use std::time::{Duration, Instant, SystemTime};

use opentelemetry::trace::{Span, SpanKind, Status, TraceContextExt, Tracer, TracerProvider};
use opentelemetry::{Context, KeyValue, propagation::TextMapPropagator};
use opentelemetry_otlp::{ExporterBuildError, Protocol, SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::resource::{EnvResourceDetector, ResourceDetector};
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};
use tracing_subscriber::EnvFilter;

use crate::config::LogFormat;

/// Sets the process's log up, on standard error.
///
/// # Errors
/// A filter that does not parse, or a log that is set up already.
pub fn init_log(filter: &str, format: LogFormat) -> anyhow::Result<()> {
    use std::io::IsTerminal;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::try_new(filter)?)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false);
    let set = match format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    set.map_err(|e| anyhow::anyhow!("the log cannot be set up: {e}"))
}

/// A client's trace context, as its headers had it.
#[derive(Debug, Clone, Default)]
pub struct TraceParent {
    /// W3C `traceparent`.
    pub traceparent: Option<String>,
    /// W3C `tracestate`.
    pub tracestate: Option<String>,
}

/// Makes traces, or nothing where no collector is set.
pub struct Traces {
    exporting: Option<(SdkTracerProvider, SdkTracer)>,
}

/// The trace of one item, from its receipt.
pub struct ItemTrace {
    open: Option<(SdkTracer, Context)>,
    began: (Instant, SystemTime),
}

impl Traces {
    /// Traces to an OTLP collector at `endpoint` in the background, over gRPC, or over HTTP where
    /// `OTEL_EXPORTER_OTLP_PROTOCOL` says so. Needs a tokio runtime.
    ///
    /// # Errors
    /// The endpoint is not a URL.
    pub fn new(endpoint: Option<&str>, replica: &str) -> anyhow::Result<Self> {
        let disabled = std::env::var("OTEL_SDK_DISABLED");
        let disabled = disabled.is_ok_and(|value| value.trim().eq_ignore_ascii_case("true"));
        let Some(endpoint) = endpoint.filter(|_| !disabled) else {
            return Ok(Self { exporting: None });
        };
        let exporter = exporter(endpoint)?;
        let resource = resource(replica);
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(exporter)
            .with_resource(resource)
            .build();
        let tracer = provider.tracer("code-explainer");
        Ok(Self {
            exporting: Some((provider, tracer)),
        })
    }

    /// Begins an item's trace, as a child of the client's where it sent one.
    pub fn item(&self, parent: &TraceParent, id: &str, strategy: &'static str) -> ItemTrace {
        let began = (Instant::now(), SystemTime::now());
        let open = self.exporting.as_ref().map(|(_, tracer)| {
            let parent = TraceContextPropagator::new().extract(parent);
            let span = tracer
                .span_builder("explain")
                .with_kind(SpanKind::Server)
                .with_start_time(began.1)
                .with_attributes([
                    KeyValue::new("code_explainer.item.id", id.to_owned()),
                    KeyValue::new("code_explainer.strategy", strategy),
                ])
                .start_with_context(tracer, &parent);
            (tracer.clone(), parent.with_span(span))
        });
        ItemTrace { open, began }
    }

    /// Sends what is left. Blocks for at most `timeout`.
    pub fn shutdown(&self, timeout: Duration) {
        if let Some((provider, _)) = &self.exporting
            && let Err(error) = provider.shutdown_with_timeout(timeout)
        {
            tracing::warn!(%error, "the last traces could not be sent");
        }
    }
}

/// Where OTLP over HTTP takes traces, under a collector's address.
const TRACES: &str = "/v1/traces";

/// Sends to a collector, by the protocol that the environment names: gRPC where it names none.
fn exporter(endpoint: &str) -> Result<SpanExporter, ExporterBuildError> {
    let variables = [
        "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
        "OTEL_EXPORTER_OTLP_PROTOCOL",
    ];
    let set = variables.into_iter().find_map(|variable| {
        let value = std::env::var(variable).ok()?;
        (!value.is_empty()).then_some((variable, value))
    });
    match set {
        Some((_, protocol)) if protocol == "http/protobuf" => {
            let base = endpoint.trim_end_matches('/');
            let base = base.strip_suffix(TRACES).unwrap_or(base);
            return SpanExporter::builder()
                .with_http()
                .with_protocol(Protocol::HttpBinary)
                .with_endpoint(format!("{base}{TRACES}"))
                .build();
        }
        Some((variable, protocol)) if protocol != "grpc" => tracing::warn!(
            variable,
            protocol,
            "no protocol for traces: they go out over gRPC; set the variable to grpc or http/protobuf, and give \
             --otlp-endpoint the collector's port for it (4317 or 4318 as a rule)"
        ),
        _ => {}
    }
    SpanExporter::builder()
        .with_tonic()
        .with_endpoint(endpoint)
        .build()
}

/// What traces are of. `OTEL_RESOURCE_ATTRIBUTES` and `OTEL_SERVICE_NAME` have the last word.
fn resource(replica: &str) -> Resource {
    let ours = [
        KeyValue::new("service.name", "code-explainer"),
        KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
        KeyValue::new("service.instance.id", replica.to_owned()),
    ];
    let theirs = EnvResourceDetector::new().detect();
    let name = std::env::var("OTEL_SERVICE_NAME")
        .ok()
        .filter(|name| !name.is_empty());
    let name = name.map(|name| KeyValue::new("service.name", name));
    let theirs = (theirs.iter()).map(|(key, value)| KeyValue::new(key.clone(), value.clone()));
    // The later of two of the same key counts.
    Resource::builder()
        .with_attributes(ours)
        .with_attributes(theirs)
        .with_attributes(name)
        .build()
}

impl ItemTrace {
    /// Adds a part that has been timed already, such as "prefill".
    pub fn part(&self, name: &'static str, from: Instant, to: Instant) {
        if let Some((tracer, context)) = &self.open {
            let mut span = tracer
                .span_builder(name)
                .with_start_time(self.wall(from))
                .start_with_context(tracer, context);
            span.end_with_timestamp(self.wall(to));
        }
    }

    /// Notes a number about the item.
    pub fn set(&self, key: &'static str, value: i64) {
        if let Some((_, context)) = &self.open {
            context.span().set_attribute(KeyValue::new(key, value));
        }
    }

    /// Ends the trace. An error is named by its label.
    pub fn end(self, error: Option<&'static str>) {
        if let Some((_, context)) = &self.open {
            context
                .span()
                .set_status(error.map_or(Status::Ok, Status::error));
            context.span().end();
        }
    }

    fn wall(&self, at: Instant) -> SystemTime {
        self.began.1 + at.saturating_duration_since(self.began.0)
    }
}

impl opentelemetry::propagation::Extractor for TraceParent {
    fn get(&self, key: &str) -> Option<&str> {
        match key {
            "traceparent" => self.traceparent.as_deref(),
            "tracestate" => self.tracestate.as_deref(),
            _ => None,
        }
    }

    fn keys(&self) -> Vec<&str> {
        vec!["traceparent", "tracestate"]
    }
}
