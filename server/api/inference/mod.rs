//! The Open Inference Protocol: the same explanations, asked for and given as tensors.
//!
//! - `request`: from tensors to what `ExplainService` takes; `options`: from parameters, by their names.
//! - `stream`: many requests on one stream. `names`: what clients call them.
//! - `response`: from events to tensors.

mod names;
mod options;
mod request;
mod response;
mod stream;

use std::pin::Pin;
use std::sync::Arc;

use tokio_stream::Stream;
use tonic::{Request, Response, Status, Streaming};

use crate::api::Shared;
use crate::api::caller::Caller;
use crate::api::inbound::Inbound;
use crate::error::Error;
use crate::explain::{Call, Cancel, EventKind, Record};
use crate::metrics::Outcome;
use crate::proto::inference::grpc_inference_service_server::GrpcInferenceService;
use crate::proto::inference::model_metadata_response::TensorMetadata;
use crate::proto::inference::{
    ModelInferRequest, ModelInferResponse, ModelMetadataRequest, ModelMetadataResponse,
    ModelReadyRequest, ModelReadyResponse, ModelStreamInferResponse, ServerLiveRequest,
    ServerLiveResponse, ServerMetadataRequest, ServerMetadataResponse, ServerReadyRequest,
    ServerReadyResponse,
};
use crate::request::ValidRequest;
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

/// Events of a call that wait; they are read at once.
const CALL_EVENTS: usize = 4;

/// The service.
pub(super) struct InferenceApi {
    shared: Arc<Shared>,
}

impl InferenceApi {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    fn ready(&self) -> bool {
        self.shared.status.watch().borrow().is_ready()
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
        let ready = self.ready();
        Ok(Response::new(ServerReadyResponse { ready }))
    }

    async fn model_ready(
        &self,
        request: Request<ModelReadyRequest>,
    ) -> Result<Response<ModelReadyResponse>, Status> {
        let request = request.into_inner();
        let known = request::check_model(&request.name, &request.version).is_ok();
        let ready = known && self.ready();
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
        let shared = &self.shared;
        let wanted = Wanted::new(request.into_inner());
        let started = wanted.and_then(|wanted| {
            let explainer = shared.status.explainer()?.clone();
            let request = ValidRequest::new(wanted.item, &shared.request)?;
            let admitted = explainer
                .admission
                .admit(&caller.identity.tenant, &request)?;
            Ok((admitted, explainer, request))
        });
        // It is in flight for as long as this future is.
        let (_admitted, explainer, request) =
            started.inspect_err(|_| shared.metrics.item_ended(Outcome::Failed))?;
        let id = request.id.clone();
        let patience = shared.stream.slow_reader_timeout;
        let (out, mut events) = caller.outlet(&shared.events, CALL_EVENTS, patience);
        let request = Box::new(request);
        shared.status.items.spawn(async move {
            let call = Call {
                out: &out,
                cancel: &Cancel::default(),
                parent: &caller.parent,
                identity: &caller.identity,
                deadline: caller.deadline,
                record: &Record::default(),
            };
            explainer.run(request, call, |_, _| true).await;
        });
        let (mut text, mut prompt) = (String::new(), None);
        // Where the client goes away this future is dropped, and the item with its events.
        while let Some(event) = events.recv().await {
            match event.kind {
                EventKind::Delta { text: more, .. } => text.push_str(&more),
                EventKind::Done(done) => {
                    let response = response::last(&id, Some(text), prompt, *done, shared);
                    return Ok(Response::new(response));
                }
                EventKind::Failed(error) => return Err(error.into()),
                EventKind::Accepted(accepted) => prompt = accepted.prompt,
                EventKind::Queued(_)
                | EventKind::Opened(_)
                | EventKind::Credit(_)
                | EventKind::Progress(_)
                | EventKind::GoAway(_) => {}
            }
        }
        Err(Error::ShuttingDown.into())
    }

    async fn model_stream_infer(
        &self,
        request: Request<Streaming<ModelInferRequest>>,
    ) -> Result<Response<Self::ModelStreamInferStream>, Status> {
        let caller = Caller::of(&request)?;
        let responses = stream::serve(
            self.shared.clone(),
            caller,
            Inbound::of(request, &self.shared),
        );
        Ok(Response::new(Box::pin(responses)))
    }
}
