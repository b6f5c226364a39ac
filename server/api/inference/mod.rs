//! The Open Inference Protocol: the same explanations, asked for and given as tensors.
//!
//! - `request`: from tensors and parameters to what `ExplainService` takes.
//! - `response`: from events to tensors.

mod request;
mod response;

use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use crate::api::explain::{deadline, trace_parent};
use crate::api::{Shared, identity};
use crate::error::Error;
use crate::explain::{Call, Cancel, EventKind, Explainer, ItemEvent, Outlet};
use crate::identity::Identity;
use crate::metrics::{Counted, Outcome};
use crate::proto::inference::grpc_inference_service_server::GrpcInferenceService;
use crate::proto::inference::model_metadata_response::TensorMetadata;
use crate::proto::inference::{
    ModelInferRequest, ModelInferResponse, ModelMetadataRequest, ModelMetadataResponse,
    ModelReadyRequest, ModelReadyResponse, ModelStreamInferResponse, ServerLiveRequest,
    ServerLiveResponse, ServerMetadataRequest, ServerMetadataResponse, ServerReadyRequest,
    ServerReadyResponse,
};
use crate::request::ValidRequest;
use crate::status::Phase;
use crate::telemetry::TraceParent;
pub use request::Wanted;

/// The one model's name.
const MODEL: &str = "code-explainer";
/// And its version.
const VERSION: &str = "1";
/// Name of the input.
const INPUT: &str = "code";
/// Name of the output.
const OUTPUT: &str = "text";
/// Type of both.
const BYTES: &str = "BYTES";

/// Responses that wait for a slow reader; at the bound their items wait.
const WAITING_RESPONSES: usize = 64;
/// Events between an item and its responses.
const WAITING_EVENTS: usize = 4;

/// The service.
pub(super) struct InferenceApi {
    shared: Arc<Shared>,
}

impl InferenceApi {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }
}

#[tonic::async_trait]
impl GrpcInferenceService for InferenceApi {
    type ModelStreamInferStream =
        Pin<Box<dyn Stream<Item = Result<ModelStreamInferResponse, Status>> + Send>>;

    async fn server_live(
        &self,
        _: Request<ServerLiveRequest>,
    ) -> Result<Response<ServerLiveResponse>, Status> {
        Ok(Response::new(ServerLiveResponse { live: true }))
    }

    async fn server_ready(
        &self,
        _: Request<ServerReadyRequest>,
    ) -> Result<Response<ServerReadyResponse>, Status> {
        let ready = self.shared.status.phase() == Phase::Serving;
        Ok(Response::new(ServerReadyResponse { ready }))
    }

    async fn model_ready(
        &self,
        request: Request<ModelReadyRequest>,
    ) -> Result<Response<ModelReadyResponse>, Status> {
        let request = request.into_inner();
        let known = request::check_model(&request.name, &request.version).is_ok();
        let ready = known && self.shared.status.phase() == Phase::Serving;
        Ok(Response::new(ModelReadyResponse { ready }))
    }

    async fn server_metadata(
        &self,
        _: Request<ServerMetadataRequest>,
    ) -> Result<Response<ServerMetadataResponse>, Status> {
        Ok(Response::new(ServerMetadataResponse {
            name: "code-explainer-server".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            extensions: vec!["parameters".into()],
        }))
    }

    async fn model_metadata(
        &self,
        request: Request<ModelMetadataRequest>,
    ) -> Result<Response<ModelMetadataResponse>, Status> {
        let request = request.into_inner();
        request::check_model(&request.name, &request.version)?;
        let tensor = |name: &str| TensorMetadata {
            name: name.into(),
            datatype: BYTES.into(),
            shape: vec![1],
        };
        Ok(Response::new(ModelMetadataResponse {
            name: MODEL.into(),
            versions: vec![VERSION.into()],
            platform: "code_explainer".into(),
            inputs: vec![tensor(INPUT)],
            outputs: vec![tensor(OUTPUT)],
        }))
    }

    async fn model_infer(
        &self,
        request: Request<ModelInferRequest>,
    ) -> Result<Response<ModelInferResponse>, Status> {
        let caller = Caller::of(&request)?;
        let wanted = Wanted::new(request.into_inner());
        let started = wanted.and_then(|wanted| start(&self.shared, wanted, &caller));
        let (id, _, mut events) = started.inspect_err(|_| self.failed())?;
        let mut text = String::new();
        // Where the client goes away this future is dropped, and the item with its events.
        while let Some(event) = events.recv().await {
            match event.kind {
                EventKind::Delta { text: more, .. } => text.push_str(&more),
                EventKind::Done(done) => {
                    let response = response::last(&id, Some(text), &done, &self.shared);
                    return Ok(Response::new(response));
                }
                EventKind::Failed(error) => return Err(error.into()),
                EventKind::Accepted(_) | EventKind::Queued(_) => {}
            }
        }
        Err(Error::ShuttingDown.into())
    }

    async fn model_stream_infer(
        &self,
        request: Request<Streaming<ModelInferRequest>>,
    ) -> Result<Response<Self::ModelStreamInferStream>, Status> {
        let (out, responses) = mpsc::channel(WAITING_RESPONSES);
        let session = Session {
            caller: Caller::of(&request)?,
            room: Arc::new(Semaphore::new(self.shared.stream_items)),
            open: Arc::new(self.shared.metrics.streams.opened()),
            shared: self.shared.clone(),
            out,
        };
        tokio::spawn(session.run(request.into_inner()));
        Ok(Response::new(Box::pin(ReceiverStream::new(responses))))
    }
}

impl InferenceApi {
    fn failed(&self) {
        self.shared.metrics.item_ended(Outcome::Failed);
    }
}

/// What a call's items bring along.
#[derive(Clone)]
struct Caller {
    identity: Arc<Identity>,
    parent: Arc<TraceParent>,
    deadline: Option<Instant>,
}

impl Caller {
    fn of<T>(request: &Request<T>) -> Result<Self, Error> {
        Ok(Self {
            identity: identity(request.extensions())?,
            parent: Arc::new(trace_parent(request.metadata())),
            deadline: deadline(request.metadata()),
        })
    }
}

type Started = (Arc<str>, bool, mpsc::Receiver<ItemEvent>);

/// Begins an item, in a task of its own that ends when its events are dropped. Gives its id, whether its last response has
/// no output, and its events.
fn start(shared: &Arc<Shared>, wanted: Wanted, caller: &Caller) -> Result<Started, Error> {
    let explainer: Arc<Explainer> = shared.status.explainer()?.clone();
    let request = ValidRequest::new(wanted.item, &shared.request)?;
    let id: Arc<str> = request.id.as_str().into();
    let (out, events) = Outlet::new(WAITING_EVENTS, shared.slow_reader_timeout);
    let caller = caller.clone();
    shared.status.items.spawn(async move {
        let call = Call {
            out: &out,
            cancel: &Cancel::default(),
            parent: &caller.parent,
            identity: &caller.identity,
            deadline: caller.deadline,
        };
        explainer.run(request, call, || {}).await;
    });
    Ok((id, wanted.empty_final, events))
}

type Outgoing = mpsc::Sender<Result<ModelStreamInferResponse, Status>>;

/// One stream.
struct Session {
    shared: Arc<Shared>,
    caller: Caller,
    /// For items in flight.
    room: Arc<Semaphore>,
    open: Arc<Counted>,
    out: Outgoing,
}

impl Session {
    /// Reads until the client half-closes, goes away, or the server closes; what is in flight at a half-close goes on. A
    /// message that does not parse ends the stream with its status once all is answered.
    async fn run(self, mut inbound: Streaming<ModelInferRequest>) {
        loop {
            let message = tokio::select! {
                biased;
                () = self.out.closed() => break,
                () = self.shared.status.closing.cancelled() => break,
                message = inbound.message() => message,
            };
            match message {
                Ok(Some(request)) => self.handle(request).await,
                Ok(None) => break,
                Err(status) => {
                    tracing::debug!(code = ?status.code(), "a stream broke");
                    // Every item gives its permit back when it has ended.
                    let all = self.shared.stream_items.try_into().unwrap_or(u32::MAX);
                    let _ended = self.room.acquire_many(all).await;
                    let _ = self.out.send(Err(status)).await;
                    break;
                }
            }
        }
    }

    async fn handle(&self, request: ModelInferRequest) {
        let id: Arc<str> = response::short(&request.id).into();
        let started = Wanted::new(request).and_then(|wanted| {
            let permit = self.room.clone().try_acquire_owned();
            let permit = permit.map_err(|_| Error::StreamFull {
                limit: self.shared.stream_items,
            })?;
            Ok((permit, start(&self.shared, wanted, &self.caller)?))
        });
        match started {
            Ok((permit, started)) => {
                let (shared, out, open) =
                    (self.shared.clone(), self.out.clone(), self.open.clone());
                self.shared
                    .status
                    .items
                    .spawn(forward(shared, out, open, permit, started));
            }
            Err(error) => {
                self.shared.metrics.item_ended(Outcome::Failed);
                // Where this fails the client is gone, which `run` sees.
                let _ = self.out.send(Ok(response::failed(&id, &error))).await;
            }
        }
    }
}

/// Sends an item's events on as responses, until its last, or until the client has gone.
async fn forward(
    shared: Arc<Shared>,
    out: Outgoing,
    _open: Arc<Counted>,
    _permit: OwnedSemaphorePermit,
    (id, empty_final, mut events): Started,
) {
    loop {
        let event = tokio::select! {
            biased;
            () = out.closed() => return,
            event = events.recv() => event,
        };
        let Some(event) = event else {
            // It gave up while the client read nothing.
            let waited = shared.slow_reader_timeout;
            let told = response::failed(&id, &Error::SlowReader { waited });
            let _ = out.send(Ok(told)).await;
            return;
        };
        let last = matches!(event.kind, EventKind::Done(_) | EventKind::Failed(_));
        let response = match event.kind {
            EventKind::Accepted(_) | EventKind::Queued(_) => continue,
            EventKind::Delta { text, .. } => response::piece(&id, text),
            EventKind::Done(done) => {
                let text = (!empty_final).then(String::new);
                response::sent(response::last(&id, text, &done, &shared))
            }
            EventKind::Failed(error) => response::failed(&id, &error),
        };
        if out.send(Ok(response)).await.is_err() || last {
            return;
        }
    }
}
