//! What is behind a stream: its items and their order, what its client may have in flight, how far it is, and what of it
//! outlives its connection. Knows nothing of the wire.
//!
//! - `items`: those in flight. `kept`: those that ended, for a client that lost its connection.
//! - `credit`: what a client may have in flight, and what it has been told of that.
//! - `progress`: how a batch fares.
//! - `registry`: streams that can be gone on with on another connection.

mod credit;
mod items;
mod kept;
mod progress;
mod registry;

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

pub use credit::StreamLimits;
pub use registry::{ResumeOptions, Sessions};

use crate::error::Error;
use crate::explain::{
    Call, CancelReason, Client, EventKind, Explainer, GoAway, Has, ItemEvent, Opened, Outlet,
};
use crate::identity::Identity;
use crate::metrics::StreamMetrics;
use crate::request::{MAX_ID_BYTES, ValidRequest};
use crate::telemetry::TraceParent;
use items::{Entry, Items};
use progress::Reporter;
use registry::Registration;

/// Refusals that wait for their turn on a stream in order; then the stream is not read on.
const REFUSALS: usize = 64;

/// What is behind a stream.
#[derive(Debug)]
pub struct Session {
    /// Where its events go.
    pub out: Outlet,
    /// Whom it is for.
    pub identity: Arc<Identity>,
    /// Its items and what they send; the stream is not over before them.
    pub tasks: TaskTracker,
    parent: TraceParent,
    items: Mutex<Items>,
    refusals: Arc<Semaphore>,
    /// Set where the client asked for more than a stream of items.
    opened: OnceLock<Terms>,
}

/// What a client asked for when it opened its stream.
#[derive(Debug, Clone, Copy, Default)]
pub struct StreamOptions {
    /// Answers one after the other.
    pub in_order: bool,
    /// The stream is to outlive its connection.
    pub resumable: bool,
    /// Items to come; 0: not told.
    pub expected: u64,
}

#[derive(Debug)]
struct Terms {
    reporter: Mutex<Reporter>,
    /// Finished answers that are kept, in bytes; 0: the session cannot be resumed.
    keep_bytes: AtomicUsize,
    /// Its place among those that can be.
    registration: OnceLock<Registration>,
}

impl Session {
    /// Of a stream that nothing has been sent on.
    pub fn new(
        out: Outlet,
        limits: StreamLimits,
        identity: Arc<Identity>,
        parent: TraceParent,
    ) -> Arc<Self> {
        Arc::new(Self {
            out,
            identity,
            tasks: TaskTracker::new(),
            parent,
            items: Mutex::new(Items::new(limits)),
            refusals: Arc::new(Semaphore::new(REFUSALS)),
            opened: OnceLock::new(),
        })
    }

    /// Serves the stream on the client's terms, and says so. `unknown` are items that it hoped to find.
    pub async fn open(
        self: &Arc<Self>,
        wishes: StreamOptions,
        sessions: &Sessions,
        unknown: Vec<String>,
        metrics: &StreamMetrics,
    ) {
        let terms = Terms {
            reporter: Mutex::new(Reporter::new(wishes.expected, Instant::now())),
            keep_bytes: AtomicUsize::new(0),
            registration: OnceLock::new(),
        };
        // Called once, before the first item.
        let terms = self.opened.get_or_init(|| terms);
        if wishes.in_order {
            self.out.make_in_order();
        }
        let registered = (wishes.resumable)
            .then(|| sessions.register(self))
            .flatten();
        let mut token = String::new();
        if let Some((its_token, registration, displaced)) = registered {
            token = its_token;
            (terms.keep_bytes).store(sessions.options.bytes, Ordering::Release);
            let _ = terms.registration.set(registration);
            self.out.make_resumable();
            if let Some(displaced) = displaced {
                displaced.displace();
                metrics.displaced();
            }
        }
        let credit = self.lock().account.free();
        self.tell(EventKind::Opened(Box::new(Opened {
            token,
            ttl: sessions.options.ttl,
            resumed: false,
            unknown,
            credit,
        })))
        .await;
    }

    /// Goes on with the session on a new connection, from what its client has. What the client does not name is given
    /// up: it has it, or does not want it. Gives the connection's number; `None` if the session has just ended.
    pub fn resume(
        self: &Arc<Self>,
        token: &str,
        sessions: &Sessions,
        has: Vec<(String, Has)>,
        client: Client,
    ) -> Option<u64> {
        let mut has: HashMap<String, Has> = has.into_iter().collect();
        let mut items = self.lock();
        for (id, entry) in &items.in_flight {
            match has.remove(&**id) {
                Some(has) => entry.record.go_on_from(has),
                None => entry.cancel.cancel(CancelReason::Unclaimed),
            }
        }
        let (rest, forgotten) = items.kept.still_wanted(|id| has.remove(id));
        let mut unknown: Vec<String> = has.into_keys().collect();
        unknown.sort();
        let opened = Opened {
            token: token.to_owned(),
            ttl: sessions.options.ttl,
            resumed: true,
            unknown,
            credit: items.account.free(),
        };
        let kind = EventKind::Opened(Box::new(opened));
        let opened = ItemEvent {
            id: "".into(),
            kind,
        };
        // In their order, and before what comes after them. The last comes first to be before all.
        let mut rest: Vec<_> = (rest.into_iter().rev())
            .map(|(id, record)| (id, record, self.out.lane_before_all()))
            .collect();
        rest.reverse();
        self.tasks.reopen();
        // It has just been opened.
        items.retiring = false;
        // Under the lock, so that no item ends on the old connection from here on: see `leave`.
        let generation = self.out.attach(client, opened)?;
        drop(items);
        drop(forgotten);
        for (id, record, out) in rest {
            self.tasks.spawn(record.send_rest(id, out, generation));
        }
        Some(generation)
    }

    /// Takes an item in and works on it, until `deadline` at most; within `all`, which the server waits for.
    ///
    /// # Errors
    /// The item is refused.
    pub fn explain(
        self: &Arc<Self>,
        explainer: &Arc<Explainer>,
        request: ValidRequest,
        replaces: &str,
        deadline: Option<std::time::Instant>,
        all: &TaskTracker,
    ) -> Result<(), Error> {
        let id: Arc<str> = request.id.as_str().into();
        if replaces == request.id {
            return Err(Error::invalid("replaces", "is the item's own id"));
        }
        check_length("replaces", replaces)?;
        let code_bytes = request.code.len();
        let resumable = self.is_resumable();
        let admitted = explainer.admission.admit(&self.identity.tenant, &request)?;
        let entry = self.lock().add(&id, code_bytes, replaces, resumable)?;
        let request = Box::new(request);
        let (session, explainer, out) = (self.clone(), explainer.clone(), self.out.lane());
        let work = async move {
            let call = Call {
                out: &out,
                cancel: &entry.cancel,
                parent: &session.parent,
                identity: &session.identity,
                record: &entry.record,
                deadline,
            };
            let leave = |generation, kind: &EventKind| session.leave(&id, &entry, generation, kind);
            explainer.run(request, call, leave).await;
            drop(out);
            session.left(&id, &entry);
            drop(admitted);
            session.grant().await;
        };
        all.spawn(self.tasks.track_future(work));
        Ok(())
    }

    /// Gives an item up, if it is in flight.
    pub fn cancel(&self, id: &str, reason: CancelReason) {
        if id.len() > MAX_ID_BYTES {
            // There is none, and a long name takes long to look up.
            return;
        }
        if let Some(entry) = self.lock().in_flight.get(id) {
            entry.cancel.cancel(reason);
        }
    }

    /// The client has these whole: nothing of them need be kept.
    pub fn received(&self, ids: &[String]) {
        let forgotten = self.lock().kept.received(ids);
        drop(forgotten);
    }

    /// Sends the one event of an item that was not taken in.
    /// `cost`: the bytes of its code, if it was an item.
    pub async fn refuse(self: &Arc<Self>, id: &str, cost: Option<usize>, error: Error) {
        let id: Arc<str> = id[..id.floor_char_boundary(MAX_ID_BYTES)].into();
        if cost.is_some() {
            let mut items = self.lock();
            items.counts.received += 1;
            items.counts.failed += 1;
        }
        let generation = self.out.generation();
        let out = self.out.lane();
        let kind = EventKind::Failed(error);
        if let Some(room) = out.try_room() {
            self.give_back(cost);
            room.send(ItemEvent { id, kind });
            return self.grant().await;
        }
        let place = tokio::select! {
            place = self.refusals.clone().acquire_owned() => place,
            // Who comes back finds no such item, and sends it again.
            () = self.out.lost(generation) => return,
        };
        let session = self.clone();
        self.tasks.spawn(async move {
            let room = out.last_room().await;
            // On a later connection the client has been told all of its credit, and has sent the item again.
            if let Some(room) = room.filter(|room| room.generation == generation) {
                session.give_back(cost);
                room.send(ItemEvent { id, kind });
            }
            drop((out, place));
            session.grant().await;
        });
    }

    /// What an item has cost that was not taken in, with its last event and not before.
    fn give_back(&self, cost: Option<usize>) {
        if let Some(code_bytes) = cost {
            self.lock().account.refused(code_bytes);
        }
    }

    /// Takes no more items, says so, and hands those back that no engine has begun. For a client that knows what that
    /// is; others are served as before.
    pub async fn retire(&self, go_away: GoAway) {
        if self.opened.get().is_none() {
            return;
        }
        self.lock().retiring = true;
        let Some(room) = self.out.last_room().await else {
            return;
        };
        // From here on nothing is waited for, so that what is handed back is not begun meanwhile.
        let mut not_started: Vec<(Arc<str>, Entry)> = (self.lock().in_flight.iter())
            .filter(|(_, entry)| !entry.record.is_started() && !entry.cancel.is_cancelled())
            .map(|(id, entry)| (id.clone(), entry.clone()))
            .collect();
        not_started.sort_by(|(a, _), (b, _)| a.cmp(b));
        let go_away = GoAway {
            not_started: not_started.iter().map(|(id, _)| id.to_string()).collect(),
            ..go_away
        };
        let (id, kind) = ("".into(), EventKind::GoAway(Box::new(go_away)));
        room.send(ItemEvent { id, kind });
        for (_, entry) in not_started {
            entry.cancel.cancel(CancelReason::Retired);
        }
    }

    /// Tells how it stands, if there is room: who does not read need not know.
    pub fn report(&self) {
        let (Some(terms), Some(room)) = (self.opened.get(), self.out.try_room()) else {
            return;
        };
        let (counts, in_flight, running) = {
            let items = self.lock();
            let started = |entry: &&Entry| entry.record.is_started();
            let running = items.in_flight.values().filter(started).count();
            (items.counts, items.in_flight.len(), running)
        };
        let mut reporter = (terms.reporter.lock()).unwrap_or_else(PoisonError::into_inner);
        let progress = reporter.report(Instant::now(), counts, in_flight, running);
        room.send(ItemEvent {
            id: "".into(),
            kind: EventKind::Progress(progress),
        });
    }

    /// Whether a lost connection may be followed by another one.
    pub fn is_resumable(&self) -> bool {
        self.keep_bytes() > 0
    }

    /// Whether answers are kept that its client may not have.
    pub fn keeps_answers(&self) -> bool {
        self.is_resumable() && !self.lock().kept.is_empty()
    }

    fn keep_bytes(&self) -> usize {
        let terms = self.opened.get();
        terms.map_or(0, |terms| terms.keep_bytes.load(Ordering::Acquire))
    }

    /// The stream of another tenant takes its place among those that can be resumed. A client that is there is served on;
    /// one that is away is not waited for any more.
    fn displace(&self) {
        if let Some(terms) = self.opened.get() {
            terms.keep_bytes.store(0, Ordering::Release);
        }
        self.out.make_unresumable(CancelReason::Unclaimed);
        let forgotten = self.lock().kept.clear();
        drop(forgotten);
    }

    /// An item is about to have its last event on this connection. False if there is a later one: then the item goes on
    /// there from what the client has.
    fn leave(&self, id: &Arc<str>, entry: &Entry, generation: u64, kind: &EventKind) -> bool {
        let most_bytes = self.keep_bytes();
        let bytes = (most_bytes > 0).then(|| entry.record.kept_bytes());
        let mut items = self.lock();
        if self.out.generation() != generation {
            return false;
        }
        items.end(id, entry, kind);
        let forgotten = bytes.map(|bytes| items.kept.keep(id, &entry.record, bytes, most_bytes));
        drop(items);
        drop(forgotten);
        true
    }

    /// An item's work has ended, perhaps with nobody left to tell.
    fn left(&self, id: &Arc<str>, entry: &Entry) {
        let mut items = self.lock();
        let same = |e: &Entry| Arc::ptr_eq(&e.record, &entry.record);
        if items.in_flight.get(id).is_some_and(same) {
            let gone = EventKind::Failed(Error::Cancelled(CancelReason::StreamEnded));
            items.end(id, entry, &gone);
        }
    }

    async fn grant(&self) {
        if self.opened.get().is_none() {
            return;
        }
        let (grant, generation) = {
            let mut items = self.lock();
            (items.account.grant(), self.out.generation())
        };
        let Some(credit) = grant else { return };
        let room = self.out.last_room().await;
        // On a later connection the client has been told all of its credit.
        if let Some(room) = room.filter(|room| room.generation == generation) {
            room.send(ItemEvent {
                id: "".into(),
                kind: EventKind::Credit(credit),
            });
        }
    }

    /// Tells something of the stream itself; to nobody, where nobody is left.
    async fn tell(&self, kind: EventKind) {
        if let Some(room) = self.out.last_room().await {
            room.send(ItemEvent {
                id: "".into(),
                kind,
            });
        }
    }

    fn lock(&self) -> MutexGuard<'_, Items> {
        // Each operation leaves it whole.
        self.items.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What can be the id of an item is no longer than that.
fn check_length(field: &'static str, id: &str) -> Result<(), Error> {
    if id.len() > MAX_ID_BYTES {
        let problem = format!(
            "is {} bytes long, expected at most {MAX_ID_BYTES}",
            id.len()
        );
        return Err(Error::invalid(field, problem));
    }
    Ok(())
}
