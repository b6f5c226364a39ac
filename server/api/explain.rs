//! `ExplainService`: one snippet, or many over one stream.

use std::pin::Pin;
use std::sync::Arc;

use tokio::sync::oneshot;
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status, Streaming};

use crate::api::caller::Caller;
use crate::api::inbound::Inbound;
use crate::api::stream::StreamCall;
use crate::api::{Shared, convert, embed};
use crate::explain::{Call, Cancel, EventKind, Record};
use crate::metrics::Outcome;
use crate::proto::explain_service_server::ExplainService;
use crate::proto::{
    EmbedRequest, EmbedResponse, ExplainRequest, ExplainResponse, ExplainStreamRequest,
    ExplainStreamResponse,
};
use crate::request::ValidRequest;

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
        let caller = Caller::of(&request)?;
        let shared = &self.shared;
        let explainer = shared.status.explainer().cloned();
        let valid = explainer
            .and_then(|e| Ok((e, ValidRequest::new(request.into_inner(), &shared.request)?)))
            .and_then(|(e, valid)| {
                Ok((
                    e.admission.admit(&caller.identity.tenant, &valid)?,
                    e,
                    valid,
                ))
            });
        let (admitted, explainer, request) =
            valid.inspect_err(|_| shared.metrics.item_ended(Outcome::Failed))?;
        let patience = shared.stream.slow_reader_timeout;
        let (out, events) = caller.outlet(&shared.events, OUTLET_EVENTS, patience);
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
        let shared = self.shared.clone();
        // Until its last event is taken, or nobody will.
        let mut in_flight = Some(admitted);
        let responses = events.map(move |e| {
            if matches!(e.kind, EventKind::Done(_) | EventKind::Failed(_)) {
                drop(in_flight.take());
            }
            convert::response(e, &shared)
        });
        Ok(Response::new(Box::pin(responses)))
    }

    async fn embed(
        &self,
        request: Request<EmbedRequest>,
    ) -> Result<Response<EmbedResponse>, Status> {
        let caller = Caller::of(&request)?;
        embed::embed(&self.shared, &caller.identity, request).await
    }

    async fn explain_stream(
        &self,
        request: Request<Streaming<ExplainStreamRequest>>,
    ) -> Result<Response<Self::ExplainStreamStream>, Status> {
        let shared = self.shared.clone();
        let caller = Caller::of(&request)?;
        let (events, received) = (shared.events).channel(&caller.identity.tenant, OUTLET_EVENTS);
        let (broke, broken) = oneshot::channel();
        let call = StreamCall {
            shared: shared.clone(),
            caller,
            events,
            broke,
            open: shared.metrics.streams.opened(),
        };
        let inbound = Inbound::of(request, &shared);
        tokio::spawn(call.run(inbound));
        let answers = received.map(move |e| Ok(convert::stream_response(e, &shared)));
        // After the last answer: what broke the stream, if something did.
        let end = futures::FutureExt::into_stream(broken)
            .filter_map(|status: Result<Status, _>| status.ok().map(Err));
        let responses = answers.chain(end);
        Ok(Response::new(Box::pin(responses)))
    }
}
