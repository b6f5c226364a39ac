//! `ExplainService`: one snippet, or many over one stream.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status, Streaming};

use crate::api::{Shared, convert, embed, identity};
use crate::error::Error;
use crate::explain::{Call, Cancel, CancelReason, EventKind, ItemEvent, Outlet};
use crate::identity::Identity;
use crate::metrics::{Counted, Outcome};
use crate::proto::explain_service_server::ExplainService;
use crate::proto::explain_stream_request::Request as Wish;
use crate::proto::{
    EmbedRequest, EmbedResponse, ExplainRequest, ExplainResponse, ExplainStreamRequest,
    ExplainStreamResponse,
};
use crate::request::{MAX_ID_BYTES, ValidRequest};
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
        let (out, events) = Outlet::new(OUTLET_EVENTS, shared.slow_reader_timeout);
        shared.status.items.spawn(async move {
            let call = Call {
                out: &out,
                cancel: &Cancel::default(),
                parent: &parent,
                identity: &identity,
                deadline,
            };
            explainer.run(request, call, || {}).await;
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
        let salt = identity.salt(self.shared.cache_secret.as_bytes());
        embed::embed(&self.shared, &salt, request).await
    }

    async fn explain_stream(
        &self,
        request: Request<Streaming<ExplainStreamRequest>>,
    ) -> Result<Response<Self::ExplainStreamStream>, Status> {
        let parent = Arc::new(trace_parent(request.metadata()));
        let identity = identity(request.extensions())?;
        let deadline = deadline(request.metadata());
        let shared = self.shared.clone();
        let (out, events) = Outlet::new(OUTLET_EVENTS, shared.slow_reader_timeout);
        let items = Arc::new(InFlight {
            items: Mutex::default(),
            _open: shared.metrics.streams.opened(),
        });
        let session = Session {
            shared: shared.clone(),
            out,
            parent,
            identity,
            deadline,
            items,
        };
        let (broke, broken) = oneshot::channel();
        tokio::spawn(session.run(request.into_inner(), broke));
        let answers =
            ReceiverStream::new(events).map(move |e| Ok(convert::stream_response(e, &shared)));
        // After the last answer: what broke the stream, if something did.
        let end = futures::FutureExt::into_stream(broken)
            .filter_map(|status: Result<Status, _>| status.ok().map(Err));
        let responses = answers.chain(end);
        Ok(Response::new(Box::pin(responses)))
    }
}

/// One bidirectional stream.
struct Session {
    shared: Arc<Shared>,
    out: Outlet,
    parent: Arc<TraceParent>,
    identity: Arc<Identity>,
    /// When the call ends, by its grpc-timeout.
    deadline: Option<Instant>,
    items: Arc<InFlight>,
}

/// The items of a stream that have not had their last event, and how to cancel each.
struct InFlight {
    items: Mutex<HashMap<Arc<str>, Cancel>>,
    /// The stream counts as open until its reader and its last item have ended.
    _open: Counted,
}

impl Session {
    /// Reads until the client half-closes, goes away, or the server closes. What is in flight at a half-close goes on:
    /// its tasks hold the outlet open.
    ///
    /// A message that does not parse, or is far too large, ends the reading in the same way, and the stream with its
    /// status once all is answered. A connection that is gone closes the outlet, which cancels the items.
    async fn run(
        self,
        mut inbound: Streaming<ExplainStreamRequest>,
        broke: oneshot::Sender<Status>,
    ) {
        loop {
            let message = tokio::select! {
                biased;
                () = self.out.closed() => {
                    if self.out.given_up() {
                        let waited = self.shared.slow_reader_timeout;
                        let _ = broke.send(Error::SlowReader { waited }.into());
                    }
                    break;
                }
                () = self.shared.status.closing.cancelled() => break,
                message = inbound.message() => message,
            };
            match message {
                Ok(Some(message)) => self.handle(message).await,
                Ok(None) => break,
                Err(status) => {
                    tracing::debug!(code = ?status.code(), "a stream broke");
                    // Where nobody reads any more, nobody need be told.
                    let _ = broke.send(status);
                    break;
                }
            }
        }
    }

    async fn handle(&self, message: ExplainStreamRequest) {
        match message.request {
            Some(Wish::Explain(item)) => {
                let id = item.id.clone();
                if let Err(error) = self.explain(item) {
                    self.refuse(&id, error).await;
                }
            }
            Some(Wish::Cancel(cancel)) => self.items.cancel(&cancel.id),
            None => {
                let error = Error::invalid("request", "is empty, expected explain or cancel");
                self.refuse("", error).await;
            }
        }
    }

    fn explain(&self, item: ExplainRequest) -> Result<(), Error> {
        let shared = &self.shared;
        let explainer = shared.status.explainer()?.clone();
        if item.id.is_empty() {
            return Err(Error::invalid(
                "id",
                "is empty, expected a name for the item",
            ));
        }
        let request = ValidRequest::new(item, &shared.request)?;
        let id: Arc<str> = request.id.as_str().into();
        let cancel = self.items.add(&id, shared.stream_items)?;
        let (items, out, parent) = (self.items.clone(), self.out.clone(), self.parent.clone());
        let (identity, deadline) = (self.identity.clone(), self.deadline);
        shared.status.items.spawn(async move {
            let call = Call {
                out: &out,
                cancel: &cancel,
                parent: &parent,
                identity: &identity,
                deadline,
            };
            explainer.run(request, call, || items.remove(&id)).await;
        });
        Ok(())
    }

    async fn refuse(&self, id: &str, error: Error) {
        self.shared.metrics.item_ended(Outcome::Failed);
        let id = id[..id.floor_char_boundary(MAX_ID_BYTES)].into();
        let kind = EventKind::Failed(error);
        if let Some(room) = self.out.last_room().await {
            room.send(ItemEvent { id, kind });
        }
    }
}

impl InFlight {
    fn add(&self, id: &Arc<str>, limit: usize) -> Result<Cancel, Error> {
        let mut items = self.lock();
        if items.contains_key(id) {
            return Err(Error::DuplicateId(id.to_string()));
        }
        if items.len() >= limit {
            return Err(Error::StreamFull { limit });
        }
        let cancel = Cancel::default();
        items.insert(id.clone(), cancel.clone());
        Ok(cancel)
    }

    fn remove(&self, id: &str) {
        self.lock().remove(id);
    }

    fn cancel(&self, id: &str) {
        if let Some(cancel) = self.lock().get(id) {
            cancel.cancel(CancelReason::Asked);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<str>, Cancel>> {
        // Each operation leaves the map whole.
        self.items.lock().unwrap_or_else(PoisonError::into_inner)
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
