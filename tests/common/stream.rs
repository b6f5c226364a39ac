//! A bidirectional stream as a client's test sees it.

use std::collections::HashMap;

use code_explainer_client::proto::explain_service_client::ExplainServiceClient;
use code_explainer_client::proto::explain_stream_request::Request as Wish;
use code_explainer_client::proto::explain_stream_response::Event;
use code_explainer_client::proto::{
    Cancel, Done, ExplainRequest, ExplainStreamRequest, ExplainStreamResponse, ItemError,
};
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Request, Status, Streaming};

use crate::common::server::TestServer;

/// Both halves of a stream.
pub(crate) struct TestStream {
    /// `None` once half-closed.
    requests: Option<mpsc::Sender<ExplainStreamRequest>>,
    responses: Streaming<ExplainStreamResponse>,
}

/// What came of an item.
#[derive(Debug, Default, Clone)]
pub(crate) struct Outcome {
    pub(crate) accepted: bool,
    pub(crate) prompt: String,
    pub(crate) text: String,
    pub(crate) deltas: u64,
    pub(crate) done: Option<Done>,
    pub(crate) error: Option<ItemError>,
}

/// An item of default settings.
pub(crate) fn item(id: &str, code: &str) -> ExplainRequest {
    ExplainRequest {
        id: id.into(),
        code: code.into(),
        max_new_tokens: 16,
        ignore_eos: true,
        ..ExplainRequest::default()
    }
}

impl TestStream {
    pub(crate) async fn open(server: &TestServer) -> Self {
        Self::open_with(server, |_| {}).await
    }

    /// With metadata of the test's own.
    pub(crate) async fn open_with(
        server: &TestServer,
        change: impl FnOnce(&mut tonic::metadata::MetadataMap),
    ) -> Self {
        Self::open_by(server.client().await, change).await
    }

    /// Over a connection of the test's own.
    pub(crate) async fn open_on(client: ExplainServiceClient<Channel>) -> Self {
        Self::open_by(client, |_| {}).await
    }

    async fn open_by(
        mut client: ExplainServiceClient<Channel>,
        change: impl FnOnce(&mut tonic::metadata::MetadataMap),
    ) -> Self {
        let (requests, receiver) = mpsc::channel(64);
        let mut request = Request::new(ReceiverStream::new(receiver));
        change(request.metadata_mut());
        let responses = client.explain_stream(request).await.expect("a stream");
        Self {
            requests: Some(requests),
            responses: responses.into_inner(),
        }
    }

    /// Sends an item, and waits until it is accepted.
    pub(crate) async fn begin(&mut self, item: ExplainRequest) {
        let id = item.id.clone();
        self.explain(item).await;
        self.wait_for(&id, is_accepted).await;
    }

    pub(crate) async fn explain(&self, item: ExplainRequest) {
        self.send(Some(Wish::Explain(item))).await;
    }

    pub(crate) async fn cancel(&self, id: &str) {
        self.send(Some(Wish::Cancel(Cancel { id: id.into() })))
            .await;
    }

    pub(crate) async fn send(&self, request: Option<Wish>) {
        self.try_send(request).await.expect("the stream is open");
    }

    /// Fails where the server has ended the stream.
    pub(crate) async fn try_send(
        &self,
        request: Option<Wish>,
    ) -> Result<(), mpsc::error::SendError<ExplainStreamRequest>> {
        let requests = self
            .requests
            .as_ref()
            .expect("the stream is not half-closed");
        requests.send(ExplainStreamRequest { request }).await
    }

    pub(crate) fn half_close(&mut self) {
        self.requests = None;
    }

    /// The next event with its id; `None` at the end of the stream.
    pub(crate) async fn next(&mut self) -> Option<(String, Event)> {
        let response = self.try_next().await?.expect("the stream is not broken");
        Some((response.id, response.event.expect("an event")))
    }

    pub(crate) async fn try_next(&mut self) -> Option<Result<ExplainStreamResponse, Status>> {
        self.responses.next().await
    }

    /// Reads until the event is of the wanted item and kind.
    pub(crate) async fn wait_for(&mut self, id: &str, wanted: fn(&Event) -> bool) -> Event {
        loop {
            let (of, event) = self.next().await.expect("the stream goes on");
            if of == id && wanted(&event) {
                return event;
            }
        }
    }

    /// Reads until this many items have had their last event.
    pub(crate) async fn collect(&mut self, items: usize) -> HashMap<String, Outcome> {
        let mut outcomes: HashMap<String, Outcome> = HashMap::new();
        let mut ended = 0;
        while ended < items {
            let (id, event) = self.next().await.expect("the stream goes on");
            let outcome = outcomes.entry(id).or_default();
            ended += usize::from(matches!(event, Event::Done(_) | Event::Error(_)));
            outcome.take(event);
        }
        outcomes
    }
}

impl Outcome {
    /// Takes an event in, and checks that it may come here.
    pub(crate) fn take(&mut self, event: Event) {
        assert!(self.done.is_none(), "nothing comes after done");
        match event {
            Event::Accepted(accepted) => {
                assert!(!self.accepted, "accepted once");
                self.accepted = true;
                self.prompt = accepted.prompt;
            }
            Event::Queued(_) => {
                assert!(self.accepted && self.deltas == 0, "it waits");
            }
            Event::Delta(delta) => {
                assert!(self.accepted, "accepted comes first");
                assert_eq!(delta.sequence, self.deltas, "no gap and no repeat");
                self.deltas += 1;
                self.text.push_str(&delta.text);
            }
            Event::Done(done) => self.done = Some(done),
            Event::Error(error) => self.error = Some(error),
            // Of the stream, not of an item.
            Event::Session(_) | Event::Progress(_) | Event::GoAway(_) | Event::Credit(_) => {}
        }
    }
}

pub(crate) fn is_delta(event: &Event) -> bool {
    matches!(event, Event::Delta(_))
}

pub(crate) fn is_accepted(event: &Event) -> bool {
    matches!(event, Event::Accepted(_))
}

pub(crate) fn is_last(event: &Event) -> bool {
    matches!(event, Event::Done(_) | Event::Error(_))
}

/// Reads an answer of the typed client to its end.
pub(crate) async fn finish(
    mut answer: code_explainer_client::Explanation,
) -> code_explainer_client::Done {
    while let Some(event) = answer.next().await {
        if let code_explainer_client::Event::Done(done) = event.expect("no failure") {
            return done;
        }
    }
    panic!("no last event")
}
