//! A bidirectional stream: from the wire's messages to its session, for as long as its connection lasts.

use std::future::pending;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio::task::yield_now;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at, sleep_until, timeout};
use tonic::Status;

use crate::api::Shared;
use crate::api::caller::Caller;
use crate::api::inbound::Inbound;
use crate::api::unreadable::Unreadable;
use crate::error::Error;
use crate::explain::{CancelReason, Client, EventSender, GoAway, GoAwayReason, Has, Outlet};
use crate::metrics::{Counted, Outcome};
use crate::proto::explain_stream_request::Request as Wish;
use crate::proto::{ExplainRequest, ExplainStreamRequest, Have, Open, Order};
use crate::request::{self, MAX_ID_BYTES, ValidRequest};
use crate::session::{Session, StreamLimits, StreamOptions};
use crate::status::{Phase, State};

/// Reports more often than this are noise.
const MIN_PROGRESS: Duration = Duration::from_millis(100);
/// When a server drains, its clients come to the others spread over this time.
const SPREAD: Duration = Duration::from_secs(1);

type Message = Result<Option<Result<ExplainStreamRequest, Unreadable>>, Status>;

/// A connection's stream.
pub(super) struct StreamCall {
    pub(super) shared: Arc<Shared>,
    pub(super) caller: Caller,
    /// To the client.
    pub(super) events: EventSender,
    /// What broke the stream, told after the last event.
    pub(super) broke: oneshot::Sender<Status>,
    /// The stream counts as open until its last item has ended.
    pub(super) open: Counted,
}

/// A stream that is served.
struct Served {
    shared: Arc<Shared>,
    session: Arc<Session>,
    /// Its connection, as the session counts them.
    generation: u64,
    broke: Option<oneshot::Sender<Status>>,
    deadline: Option<std::time::Instant>,
    ticks: Option<Interval>,
    /// When it is to end, if its client knows what that means.
    retires: Option<Instant>,
    phases: watch::Receiver<State>,
    reading: bool,
}

impl StreamCall {
    /// Serves the stream until its client half-closes it and all is answered, or goes away, or the server closes.
    pub(super) async fn run(self, mut inbound: Inbound<ExplainStreamRequest>) {
        let shared = self.shared.clone();
        let first = tokio::select! {
            biased;
            () = self.events.closed() => return,
            () = shared.status.closing.cancelled() => return,
            message = inbound.item() => message,
        };
        let Self {
            caller,
            events,
            broke,
            open: counted,
            ..
        } = self;
        let client = caller.client(events);
        let (opening, first) = match first {
            Ok(Some(Ok(ExplainStreamRequest {
                request: Some(Wish::Open(open)),
            }))) => match check_have(&open.have, shared.stream_items) {
                Ok(()) => (Some(open), None),
                Err(error) => (None, Some(Err(error.into()))),
            },
            first => (None, Some(first)),
        };
        let mut served = Served {
            ticks: opening.as_ref().and_then(ticks),
            retires: opening.as_ref().map(|_| retires(shared.stream.max_age)),
            phases: shared.status.watch(),
            broke: Some(broke),
            deadline: caller.deadline,
            reading: true,
            generation: 0,
            session: Session::new(
                Outlet::on(client.clone(), shared.stream.slow_reader_timeout),
                StreamLimits {
                    items: shared.stream_items,
                    code_bytes: shared.stream.code_bytes,
                },
                caller.identity,
                caller.parent,
            ),
            shared,
        };
        if let Some(open) = opening {
            served.open(open, client).await;
        } else {
            drop(client);
        }
        served.serve(&mut inbound, first).await;
        drop((inbound, counted));
        served.part().await;
    }
}

impl Served {
    /// Goes on with the client's old session, or begins one on its terms.
    async fn open(&mut self, open: Open, client: Client) {
        let sessions = &self.shared.sessions;
        let has = (open.have.into_iter()).map(|have| {
            let deltas = usize::try_from(have.next_sequence).unwrap_or(usize::MAX);
            let accepted = have.accepted;
            (have.id, Has { accepted, deltas })
        });
        let has: Vec<(String, Has)> = has.collect();
        let token = &open.resume_token;
        if !token.is_empty()
            && let Some(old) = sessions.find(token, &self.session.identity.tenant)
            && let Some(generation) = old.resume(token, sessions, has.clone(), client)
        {
            self.shared.metrics.streams.resumed();
            self.session.out.close(CancelReason::StreamEnded);
            (self.session, self.generation) = (old, generation);
            return;
        }
        let wishes = StreamOptions {
            in_order: open.order == i32::from(Order::InOrder),
            resumable: open.resumable || !token.is_empty(),
            expected: open.expected_items,
        };
        let unknown = has.into_iter().map(|(id, _)| id).collect();
        // What is resumable waits for its client to come back, and the stream has to end before it can.
        let metrics = &self.shared.metrics.streams;
        tokio::select! {
            () = self.session.open(wishes, sessions, unknown, metrics) => {}
            () = self.session.out.lost(self.generation) => {}
        }
    }

    async fn serve(&mut self, inbound: &mut Inbound<ExplainStreamRequest>, first: Option<Message>) {
        if let Some(first) = first {
            self.hear(first).await;
        }
        let shared = self.shared.clone();
        loop {
            let session = self.session.clone();
            tokio::select! {
                biased;
                () = session.out.lost(self.generation) => return,
                () = shared.status.closing.cancelled(), if self.reading => self.read_no_more(),
                () = tick(&mut self.ticks) => session.report(),
                reason = retirement(self.retires, &mut self.phases), if self.retires.is_some() => {
                    self.retires = None;
                    tokio::select! {
                        () = session.out.lost(self.generation) => return,
                        () = session.retire(go_away(reason)) => {}
                    }
                }
                message = inbound.item(), if self.reading => {
                    let generation = self.generation;
                    tokio::select! {
                        () = session.out.lost(generation) => return,
                        () = self.hear(message) => {}
                    }
                }
                () = session.tasks.wait(), if !self.reading => {
                    // What is said may wait to be read, and its client be lost before it has.
                    if !session.keeps_answers() {
                        session.out.close(CancelReason::StreamEnded);
                    }
                    return;
                }
            }
        }
    }

    /// The connection is lost, or all is said. What can be resumed is kept for a while.
    async fn part(mut self) {
        let (out, options) = (self.session.out.clone(), self.shared.stream.resume);
        if out.given_up()
            && let Some(broke) = self.broke.take()
        {
            let waited = self.shared.stream.slow_reader_timeout;
            // Where nobody reads any more, nobody need be told.
            let _ = broke.send(Error::SlowReader { waited }.into());
        }
        if self.session.is_resumable() {
            let over = !self.reading && self.session.tasks.is_empty();
            out.detach(self.generation, over);
            // Nothing is told after the last event: a stream that is over ends here for its client.
            drop(self.broke.take());
            let _detached = (!over).then(|| self.shared.metrics.streams.detached());
            let draining = draining(&mut self.phases);
            tokio::select! {
                _ = timeout(options.ttl, out.followed(self.generation)) => {}
                // Its client comes back to another server.
                () = draining => {}
                () = self.shared.status.closing.cancelled() => {}
            }
        }
        out.close_after(self.generation);
    }

    fn read_no_more(&mut self) {
        self.reading = false;
        self.session.tasks.close();
    }

    async fn hear(&mut self, message: Message) {
        match message {
            Ok(Some(Ok(message))) => self.handle(message).await,
            Ok(Some(Err(Unreadable { id, cost, error }))) => {
                self.refuse(&id, cost, error).await;
                yield_now().await;
            }
            Ok(None) => self.read_no_more(),
            Err(status) => {
                tracing::debug!(code = ?status.code(), "a stream broke");
                if let Some(broke) = self.broke.take() {
                    // Where nobody reads any more, nobody need be told.
                    let _ = broke.send(status);
                }
                self.read_no_more();
            }
        }
    }

    async fn handle(&self, message: ExplainStreamRequest) {
        let session = &self.session;
        match message.request {
            Some(Wish::Explain(item)) => {
                let (id, cost) = (item.id.clone(), item.code.len());
                if let Err(error) = self.explain(item) {
                    self.refuse(&id, Some(cost), error).await;
                }
                // Others are served before the next one, however many come at once.
                yield_now().await;
            }
            Some(Wish::Cancel(cancel)) => session.cancel(&cancel.id, CancelReason::Asked),
            Some(Wish::Received(received)) => session.received(&received.ids),
            Some(Wish::Open(_)) => {
                let error = Error::invalid("open", "is not the first message of the stream");
                self.refuse("", None, error).await;
            }
            None => {
                let error = Error::invalid("request", "is empty, expected explain or cancel");
                self.refuse("", None, error).await;
            }
        }
    }

    fn explain(&self, mut item: ExplainRequest) -> Result<(), Error> {
        let shared = &self.shared;
        let explainer = shared.status.explainer()?;
        if item.id.is_empty() {
            return Err(Error::invalid(
                "id",
                "is empty, expected a name for the item",
            ));
        }
        let replaces = std::mem::take(&mut item.replaces);
        let request = ValidRequest::new(item, &shared.request)?;
        let (all, deadline) = (&shared.status.items, self.deadline);
        (self.session).explain(explainer, request, &replaces, deadline, all)
    }

    async fn refuse(&self, id: &str, cost: Option<usize>, error: Error) {
        self.shared.metrics.item_ended(Outcome::Failed);
        self.session.refuse(id, cost, error).await;
    }
}

/// A client waits for as many items as may be in flight, and for as many at most whose last events it has missed.
fn check_have(have: &[Have], stream_items: usize) -> Result<(), Error> {
    let most = 2 * stream_items;
    if have.len() > most {
        let problem = format!("has {} items, expected at most {most}", have.len());
        return Err(Error::invalid("open.have", problem));
    }
    if let Some(long) = have.iter().find(|have| have.id.len() > MAX_ID_BYTES) {
        let bytes = long.id.len();
        let problem = format!("has an id of {bytes} bytes, expected at most {MAX_ID_BYTES}");
        return Err(Error::invalid("open.have", problem));
    }
    Ok(())
}

fn ticks(open: &Open) -> Option<Interval> {
    let wanted = open.progress_interval?;
    // One that is negative or too long to be told apart from never.
    let every = request::time(&wanted)?.max(MIN_PROGRESS);
    let first = Instant::now().checked_add(every)?;
    let mut ticks = interval_at(first, every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    Some(ticks)
}

async fn tick(ticks: &mut Option<Interval>) {
    match ticks {
        Some(ticks) => {
            ticks.tick().await;
        }
        None => pending().await,
    }
}

/// Streams that were opened together do not end together.
fn retires(age: Duration) -> Instant {
    let now = Instant::now();
    // Of a server that sets no age: in thirty years.
    let never = now + Duration::from_secs(1 << 30);
    if age.is_zero() {
        return never;
    }
    now.checked_add(age.mul_f64(0.9 + 0.2 * random_fraction()))
        .unwrap_or(never)
}

async fn retirement(at: Option<Instant>, phases: &mut watch::Receiver<State>) -> GoAwayReason {
    tokio::select! {
        biased;
        () = draining(phases) => GoAwayReason::Drain,
        () = sleep_until(at.unwrap_or_else(Instant::now)) => GoAwayReason::Age,
    }
}

fn go_away(reason: GoAwayReason) -> GoAway {
    GoAway {
        reason,
        not_started: Vec::new(),
        reconnect_after: match reason {
            GoAwayReason::Age => Duration::ZERO,
            GoAwayReason::Drain => SPREAD.mul_f64(random_fraction()),
        },
    }
}

/// From 0 to 1, from the keys that the standard library draws for each hasher.
fn random_fraction() -> f64 {
    RandomState::new().hash_one(0) as f64 / u64::MAX as f64
}

async fn draining(phases: &mut watch::Receiver<State>) {
    // Closed, the server is gone.
    let _ = phases
        .wait_for(|state| state.phase == Phase::Draining)
        .await;
}
