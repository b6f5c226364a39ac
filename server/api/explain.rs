//! `ExplainService`: one snippet, or many over one stream.

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status, Streaming};

use crate::api::stream::StreamCall;
use crate::api::{Shared, convert, embed, identity};
use crate::explain::{Call, Cancel, Outlet, Record};
use crate::metrics::Outcome;
use crate::proto::explain_service_server::ExplainService;
use crate::proto::{
    EmbedRequest, EmbedResponse, ExplainRequest, ExplainResponse, ExplainStreamRequest,
    ExplainStreamResponse,
};
use crate::request::ValidRequest;
use crate::telemetry::TraceParent;

/// Events that wait for a slow reader; at the bound its items wait, and nothing else does.
const OUTLET_EVENTS: usize = 64;

type Responses<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// The service.
pub(super) struct ExplainApi {
    shared: Arc<Shared>,
}

impl ExplainApi {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }
}

#[tonic::async_trait]
impl ExplainService for ExplainApi {
    type ExplainStream = Responses<ExplainResponse>;
    type ExplainStreamStream = Responses<ExplainStreamResponse>;

    async fn explain(
        &self,
        request: Request<ExplainRequest>,
    ) -> Result<Response<Self::ExplainStream>, Status> {
        let parent = trace_parent(request.metadata());
        let identity = identity(request.extensions())?;
        let deadline = deadline(request.metadata());
        let shared = &self.shared;
        let explainer = shared.status.explainer().cloned();
        let valid = explainer
            .and_then(|e| Ok((e, ValidRequest::new(request.into_inner(), &shared.request)?)));
        let (explainer, request) =
            valid.inspect_err(|_| shared.metrics.item_ended(Outcome::Failed))?;
        let (out, events) = Outlet::new(OUTLET_EVENTS, shared.stream.slow_reader_timeout);
        shared.status.items.spawn(async move {
            let call = Call {
                out: &out,
                cancel: &Cancel::default(),
                parent: &parent,
                identity: &identity,
                deadline,
                record: &Record::default(),
            };
            explainer.run(request, call, |_, _| true).await;
        });
        let shared = self.shared.clone();
        let responses = ReceiverStream::new(events).map(move |e| convert::response(e, &shared));
        Ok(Response::new(Box::pin(responses)))
    }

    async fn embed(
        &self,
        request: Request<EmbedRequest>,
    ) -> Result<Response<EmbedResponse>, Status> {
        let identity = identity(request.extensions())?;
        embed::embed(&self.shared, &identity, request).await
    }

    async fn explain_stream(
        &self,
        request: Request<Streaming<ExplainStreamRequest>>,
    ) -> Result<Response<Self::ExplainStreamStream>, Status> {
        let shared = self.shared.clone();
        let (events, received) = mpsc::channel(OUTLET_EVENTS);
        let (broke, broken) = oneshot::channel();
        let call = StreamCall {
            shared: shared.clone(),
            events,
            broke,
            identity: identity(request.extensions())?,
            parent: trace_parent(request.metadata()),
            deadline: deadline(request.metadata()),
            open: shared.metrics.streams.opened(),
        };
        tokio::spawn(call.run(request.into_inner()));
        let answers =
            ReceiverStream::new(received).map(move |e| Ok(convert::stream_response(e, &shared)));
        // After the last answer: what broke the stream, if something did.
        let end = futures::FutureExt::into_stream(broken)
            .filter_map(|status: Result<Status, _>| status.ok().map(Err));
        let responses = answers.chain(end);
        Ok(Response::new(Box::pin(responses)))
    }
}

/// When the items of a call have to end, by its `grpc-timeout`: a little before the client ends it, so that it hears of it.
/// One that cannot be read is none, as for all who read it.
pub(super) fn deadline(metadata: &MetadataMap) -> Option<Instant> {
    const MARGIN: Duration = Duration::from_millis(50);
    let timeout = parse_timeout(metadata.get("grpc-timeout")?.to_str().ok()?)?;
    let time = timeout - MARGIN.min(timeout / 10);
    tokio::time::Instant::now().into_std().checked_add(time)
}

/// At most eight digits, and a unit.
fn parse_timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.len() > 8 || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let count = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(count * 3600)),
        "M" => Some(Duration::from_secs(count * 60)),
        "S" => Some(Duration::from_secs(count)),
        "m" => Some(Duration::from_millis(count)),
        "u" => Some(Duration::from_micros(count)),
        "n" => Some(Duration::from_nanos(count)),
        _ => None,
    }
}

pub(super) fn trace_parent(metadata: &MetadataMap) -> TraceParent {
    let header = |name| {
        metadata
            .get(name)
            .and_then(|v| v.to_str().ok())
            .map(str::to_owned)
    };
    TraceParent {
        traceparent: header("traceparent"),
        tracestate: header("tracestate"),
    }
}
