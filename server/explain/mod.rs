//! One item from its valid request to its last event: prompt, cache, engine, text. Knows nothing of the wire.
//!
//! - [`events`](ItemEvent): what is told of an item, and [`Outlet`]: the bounded way to who reads it.
//! - `prepare`: from a request to a prompt, and to the key of its answer.
//! - `log`: an answer as it grows. `flight` writes it, once for all who ask for it; a `reader` has a place in it.
//! - `item`: what a reader finds, sent on at the client's pace.
//! - [`Cancel`]: how an item is given up, and why.

mod cancel;
mod events;
mod flight;
mod item;
mod log;
mod outlet;
mod prepare;
mod reader;

use std::sync::Arc;
use std::time::Instant;

pub use cancel::{Cancel, CancelReason};
pub use events::{Accepted, Done, Ending, EventKind, ItemEvent};
pub use outlet::{Outlet, Room};

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::cache::Cache;
use crate::engine::BackendInfo;
use crate::error::Error;
use crate::identity::Identity;
use crate::metrics::{Metrics, Outcome};
use crate::request::ValidRequest;
use crate::scheduler::{Scheduler, SchedulerOptions};
use crate::telemetry::{TraceParent, Traces};
use crate::text::Text;
use flight::{Boarding, Flights, Plan};
use item::Item;

/// Answers that are being generated, so that who asks for the same shares them. Starts empty.
#[derive(Debug, Default)]
pub struct InFlight(Arc<Flights>);

/// Explains items. One for a server, shared by all its streams.
pub struct Explainer {
    /// Tokenizer and chat template.
    pub text: Arc<Text>,
    /// The way to the engines.
    pub scheduler: Scheduler,
    /// How they run items.
    pub options: SchedulerOptions,
    /// Answers that were given before.
    pub cache: Arc<Cache>,
    /// Answers that are under way.
    pub in_flight: InFlight,
    /// Items that ask for the same answer at the same time share one generation.
    pub single_flight: bool,
    /// The model, as loaded.
    pub model: BackendInfo,
    /// Tells this model's answers from another's, in the cache.
    pub model_digest: String,
    /// With an identity's tenant it makes the salt of the cache's keys, and of the names of shared prefixes of the KV cache.
    pub cache_secret: String,
    /// Prompts that may be made at once.
    pub preparing: Arc<Semaphore>,
    /// Where to count.
    pub metrics: Arc<Metrics>,
    /// Where to trace.
    pub traces: Arc<Traces>,
    /// Items and flights that the server waits for when it drains.
    pub tasks: TaskTracker,
    /// Set when the server can wait for no item any more.
    pub closing: CancellationToken,
}

/// What an item brings along beside its request.
pub struct Call<'a> {
    /// Where its events go.
    pub out: &'a Outlet,
    /// Gives it up.
    pub cancel: &'a Cancel,
    /// The client's trace.
    pub parent: &'a TraceParent,
    /// Whom it is for.
    pub identity: &'a Identity,
    /// When the call that it came with ends.
    pub deadline: Option<Instant>,
}

impl Explainer {
    /// Works on an item until it has ended, was cancelled, or nobody listens any more. `before_last` is called when
    /// only the last event is left to send: from then on the client may use the id again.
    pub async fn run(
        self: &Arc<Self>,
        request: ValidRequest,
        call: Call<'_>,
        before_last: impl FnOnce(),
    ) {
        let id: Arc<str> = request.id.as_str().into();
        let trace = (self.traces).item(call.parent, &id, request.strategy.as_str());
        let item = Item {
            id: id.clone(),
            out: call.out,
            trace: &trace,
            metrics: &self.metrics,
            received: now(),
        };
        let own = request.timeout.map(|time| item.received + time);
        let deadline = own.into_iter().chain(call.deadline).min();
        // Who keeps what there is has it cut where it is read.
        let keep = request.keep_at_deadline;
        let result = tokio::select! {
            biased;
            reason = call.cancel.cancelled() => Err(Error::Cancelled(reason)),
            () = call.out.closed() => Err(Error::Cancelled(CancelReason::ClientGone)),
            () = self.closing.cancelled() => Err(Error::ShuttingDown),
            () = until(deadline.filter(|_| !keep)) => Err(Error::Deadline),
            result = self.explain(&item, request, call.identity, deadline) => result,
        };
        let (outcome, label) = match &result {
            Ok(_) => (Outcome::Done, None),
            Err(error @ Error::Cancelled(_)) => (Outcome::Cancelled, Some(error.label())),
            Err(error) => (Outcome::Failed, Some(error.label())),
        };
        self.metrics.item_ended(outcome);
        if let Some(reason) = given_up(&result) {
            self.metrics.life.cancelled(reason);
        }
        if matches!(result, Err(Error::SlowReader { .. })) {
            self.metrics.streams.shed();
        }
        trace.end(label);
        let kind = result.map_or_else(EventKind::Failed, |done| EventKind::Done(Box::new(done)));
        let room = call.out.last_room().await;
        before_last();
        if let Some(room) = room {
            room.send(ItemEvent { id, kind });
        }
    }

    async fn explain(
        self: &Arc<Self>,
        item: &Item<'_>,
        request: ValidRequest,
        identity: &Identity,
        deadline: Option<Instant>,
    ) -> Result<Done, Error> {
        (identity.rates.take_item()).inspect_err(|_| self.metrics.access.rate_limited("items"))?;
        let place = self.scheduler.enter(&identity.tenant)?;
        let request = Arc::new(request);
        let prepared = tokio::select! {
            prepared = self.prepare(&request) => Arc::new(prepared?),
            () = until(deadline) => return Err(Error::Deadline),
        };
        let boarded_at = now();
        item.trace.part("prompt", item.received, boarded_at);
        item.trace
            .set("code_explainer.prompt_tokens", prepared.tokens.len() as i64);
        let salt = identity.salt(self.cache_secret.as_bytes());
        let key = (self.single_flight || self.cache.enabled())
            .then(|| self.answer_key(&request, prepared.language.as_deref(), &salt))
            .flatten();
        let mut reader = match self.in_flight.0.board(key, self.single_flight, boarded_at) {
            Boarding::Joined(reader) => {
                // It waits for no engine: its place is another's.
                drop(place);
                self.metrics.streams.joined();
                reader
            }
            Boarding::Leads(reader, lead) => {
                let plan = Plan {
                    request: request.clone(),
                    prepared: prepared.clone(),
                    salt,
                    rates: identity.rates.clone(),
                };
                self.tasks.spawn(self.clone().fly(lead, plan, place));
                reader
            }
        };
        let followed = item
            .follow(&mut reader, &request, &prepared, deadline)
            .await?;
        item.done(&reader, followed, &request, &prepared)
    }
}

/// Why an item did not get its whole answer, if it was given up.
fn given_up(result: &Result<Done, Error>) -> Option<CancelReason> {
    match result {
        Ok(done) => (done.reason == Ending::Deadline).then_some(CancelReason::Deadline),
        Err(Error::Cancelled(reason)) => Some(*reason),
        Err(Error::Deadline) => Some(CancelReason::Deadline),
        Err(Error::SlowReader { .. }) => Some(CancelReason::SlowReader),
        Err(Error::ShuttingDown) => Some(CancelReason::Shutdown),
        Err(_) => None,
    }
}

/// Waits for a time; for ever, where there is none. Safe to drop.
async fn until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time.into()).await,
        None => std::future::pending().await,
    }
}

/// The time, as the engines' threads tell it; in a test with a paused clock, the test's.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
