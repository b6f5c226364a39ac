//! `ModelStreamInfer`: many requests on one stream, each with its responses.

use std::sync::Arc;

use tokio::sync::oneshot;
use tokio_stream::{Stream, StreamExt};
use tonic::Status;

use super::names::Names;
use super::request::Wanted;
use super::response;
use crate::api::Shared;
use crate::api::caller::Caller;
use crate::api::inbound::Inbound;
use crate::api::unreadable::Unreadable;
use crate::error::Error;
use crate::explain::{EventSender, Outlet};
use crate::metrics::{Counted, Outcome};
use crate::proto::inference::{ModelInferRequest, ModelStreamInferResponse};
use crate::request::ValidRequest;
use crate::session::{Session, StreamLimits};

/// Events that wait for a slow reader; at the bound its items wait, and nothing else does.
const WAITING_EVENTS: usize = 64;

type Message = Result<Option<Result<ModelInferRequest, Unreadable>>, Status>;

/// Serves a stream, and gives what is to be sent on it.
pub(super) fn serve(
    shared: Arc<Shared>,
    caller: Caller,
    inbound: Inbound<ModelInferRequest>,
) -> impl Stream<Item = Result<ModelStreamInferResponse, Status>> + Send + use<> {
    let (events, received) = (shared.events).channel(&caller.identity.tenant, WAITING_EVENTS);
    let (broke, broken) = oneshot::channel();
    let names = Arc::new(Names::default());
    let served = Served {
        open: shared.metrics.streams.opened(),
        names: names.clone(),
        deadline: caller.deadline,
        session: session(&shared, caller, events),
        broke: Some(broke),
        reading: true,
        shared: shared.clone(),
    };
    tokio::spawn(served.run(inbound));
    let responses = received.filter_map(move |event| response::of(event, &names, &shared).map(Ok));
    // After the last answer: what broke the stream, if something did.
    let end = futures::FutureExt::into_stream(broken)
        .filter_map(|status: Result<Status, _>| status.ok().map(Err));
    responses.chain(end)
}

fn session(shared: &Shared, caller: Caller, events: EventSender) -> Arc<Session> {
    let limits = StreamLimits {
        items: shared.stream_items,
        code_bytes: shared.stream.code_bytes,
    };
    let out = Outlet::on(caller.client(events), shared.stream.slow_reader_timeout);
    Session::new(out, limits, caller.identity, caller.parent)
}

/// A stream that is served.
struct Served {
    shared: Arc<Shared>,
    session: Arc<Session>,
    names: Arc<Names>,
    deadline: Option<std::time::Instant>,
    broke: Option<oneshot::Sender<Status>>,
    reading: bool,
    /// The stream counts as open until its last item has ended.
    open: Counted,
}

impl Served {
    /// Reads until the client half-closes, goes away, or the server closes; what is in flight at a half-close goes on. A
    /// message that does not parse, and names no item, ends the stream with its status once all is answered.
    async fn run(mut self, mut inbound: Inbound<ModelInferRequest>) {
        let (session, shared) = (self.session.clone(), self.shared.clone());
        let out = &session.out;
        let connection = out.generation();
        loop {
            tokio::select! {
                biased;
                () = out.lost(connection) => break,
                () = shared.status.closing.cancelled(), if self.reading => self.read_no_more(),
                message = inbound.item(), if self.reading => self.hear(message).await,
                () = session.tasks.wait(), if !self.reading => break,
            }
        }
        if out.given_up() {
            let waited = shared.stream.slow_reader_timeout;
            self.end_with(Error::SlowReader { waited }.into());
        }
        out.close_after(connection);
        drop(self.open);
    }

    fn read_no_more(&mut self) {
        self.reading = false;
        self.session.tasks.close();
    }

    async fn hear(&mut self, message: Message) {
        match message {
            Ok(Some(Ok(request))) => self.handle(request).await,
            Ok(Some(Err(Unreadable { id, cost, error }))) => {
                let name = self.names.take(&id, false);
                self.refuse(&name, cost, error).await;
            }
            Ok(None) => self.read_no_more(),
            Err(status) => {
                tracing::debug!(code = ?status.code(), "a stream broke");
                self.end_with(status);
                self.read_no_more();
            }
        }
    }

    fn end_with(&mut self, status: Status) {
        if let Some(broke) = self.broke.take() {
            // Where nobody reads any more, nobody need be told.
            let _ = broke.send(status);
        }
    }

    async fn handle(&self, request: ModelInferRequest) {
        let id = request.id.clone();
        match Wanted::new(request) {
            Ok(wanted) => {
                let name = self.names.take(&id, wanted.empty_final);
                let cost = Some(wanted.item.code.len());
                if let Err(error) = self.explain(wanted, &name) {
                    self.refuse(&name, cost, error).await;
                }
            }
            Err(error) => {
                let name = self.names.take(&id, false);
                self.refuse(&name, None, error).await;
            }
        }
    }

    fn explain(&self, wanted: Wanted, name: &str) -> Result<(), Error> {
        let shared = &self.shared;
        let explainer = shared.status.explainer()?;
        let mut item = wanted.item;
        let replaces = std::mem::take(&mut item.replaces);
        let mut request = ValidRequest::new(item, &shared.request)?;
        request.id = name.into();
        let all = &shared.status.items;
        (self.session).explain(explainer, request, &replaces, self.deadline, all)
    }

    async fn refuse(&self, name: &str, cost: Option<usize>, error: Error) {
        self.shared.metrics.item_ended(Outcome::Failed);
        self.session.refuse(name, cost, error).await;
    }
}
