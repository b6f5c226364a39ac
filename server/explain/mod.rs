//! One item from its valid request to its last event: prompt, cache, engine, text. Knows nothing of the wire.
//!
//! - [`events`](ItemEvent): what is told of an item, and [`Outlet`]: the way to who reads it, through a bounded `channel`.
//! - [`Presence`]: how who reads it has left. [`Admission`]: how many items all streams may have in flight.
//! - `secrets`: what of the code nothing else may see.
//! - `prepare`: from a request to a prompt, and to the key of its answer. `work`: where, and for how long.
//! - `log`: an answer as it grows, in `deltas`. `flight` writes it, once for all who ask for it; a `reader` has a place in it.
//! - `single_flight`: who shares a flight.
//! - `hit`: an answer that is in memory, told without a prompt or a flight.
//! - `item`: what a reader finds, sent on at the client's pace.
//! - [`Record`]: what a stream remembers of an item, to go on with it on another connection.
//! - [`Cancel`]: how an item is given up, and why.

mod admission;
mod cancel;
mod channel;
mod deltas;
mod events;
mod flight;
mod hit;
mod item;
mod log;
mod outlet;
mod prepare;
mod presence;
mod reader;
mod record;
mod secrets;
mod single_flight;
mod turns;
mod work;

use std::sync::Arc;
use std::time::{Duration, Instant};

pub use admission::Admission;
pub use cancel::{Cancel, CancelReason};
pub use channel::{EventReceiver, EventSender, WAITING_BYTES, WaitingEvents};
pub use events::{
    Accepted, Credit, Done, Ending, EventKind, GoAway, GoAwayReason, ItemEvent, Opened, Progress,
    Source,
};
pub use hit::Snippets;
pub use outlet::{Client, Outlet, Room};
pub use presence::Presence;
pub use record::{Has, Record};

use code_explainer_cache::Cache;
use code_explainer_code::prompt::Strategy;
use code_explainer_code::prompt::normal::Normalize;
use code_explainer_engine::BackendInfo;
use code_explainer_host::cpu::Budget;
use code_explainer_host::fair_semaphore::FairSemaphore;
use code_explainer_host::machine::Machine;
use code_explainer_scheduler::{Scheduler, SchedulerOptions};
use code_explainer_text::Text;
use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::error::Error;
use crate::identity::Identity;
use crate::metrics::{Metrics, Outcome};
use crate::request::{CacheMode, ValidRequest};
use crate::retrieval::Retrieval;
use crate::telemetry::{TraceParent, Traces};
use flight::Plan;
use hit::{Snippet, replay_kept};
use item::{Found, Item, Telling};
use prepare::Prepared;
use single_flight::{Flights, Role};

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
    /// What is known of snippets.
    pub snippets: Snippets,
    /// What two snippets may differ in and have the same answer.
    pub normalize: Normalize,
    /// Secrets in code are made unreadable.
    pub redact_secrets: bool,
    /// CPU time that an item may take before an engine gets it.
    pub code_cpu_time: Duration,
    /// Answers that are under way.
    pub in_flight: InFlight,
    /// Items that ask for the same answer at the same time share one generation.
    pub single_flight: bool,
    /// Clients are told of the load that others make.
    pub reports_load: bool,
    /// What is known of code that is near.
    pub retrieval: Arc<Retrieval>,
    /// The model, as loaded.
    pub model: BackendInfo,
    /// Tells this model's answers from another's, in the cache.
    pub model_digest: String,
    /// With an identity's tenant it makes the salt of the cache's keys, and of the names of shared prefixes of the KV cache.
    pub cache_secret: String,
    /// What prompts are made on.
    pub machine: Machine,
    /// Where they are: as many at once as there are cores, in turns between tenants.
    pub preparing: FairSemaphore,
    /// Where to count.
    pub metrics: Arc<Metrics>,
    /// Where to trace.
    pub traces: Arc<Traces>,
    /// How many items all clients may have in flight.
    pub admission: Admission,
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
    /// What its stream remembers of it.
    pub record: &'a Record,
}

impl Explainer {
    /// Works on an item until it has ended, was cancelled, or nobody listens any more. `leave` is asked when only the
    /// last event is left to send, which is then sent at once: from then on the client may use the id again. It is given
    /// the connection and the event, and says whether that is still the connection to send it on.
    pub async fn run(
        self: &Arc<Self>,
        request: Box<ValidRequest>,
        call: Call<'_>,
        leave: impl Fn(u64, &EventKind) -> bool + Sync,
    ) {
        let id: Arc<str> = request.id.as_str().into();
        let trace = (self.traces).item(call.parent, &id, request.strategy.as_str());
        let item = Item {
            id,
            out: call.out,
            trace: &trace,
            metrics: &self.metrics,
            record: call.record,
            reports_load: self.reports_load,
            received: now(),
        };
        let own = request.timeout.map(|time| item.received + time);
        let deadline = own.into_iter().chain(call.deadline).min();
        // Who keeps what there is has it cut where it is read.
        let keep = request.keep_at_deadline;
        let result = tokio::select! {
            biased;
            reason = call.cancel.cancelled() => Err(reason.into()),
            reason = call.out.closed() => Err(Error::Cancelled(reason)),
            () = self.closing.cancelled() => Err(Error::ShuttingDown),
            () = until(deadline.filter(|_| !keep)) => Err(Error::Deadline),
            result = self.explain(&item, request, call.identity, deadline, &leave) => result,
        };
        let label = result.as_ref().err().map(Error::label);
        let Err(error) = result else {
            return trace.end(label);
        };
        self.metrics.item_ended(match error {
            Error::Cancelled(_) => Outcome::Cancelled,
            _ => Outcome::Failed,
        });
        if let Some(reason) = given_up(&error) {
            self.metrics.life.cancelled(reason);
        }
        if matches!(error, Error::SlowReader { .. }) {
            self.metrics.streams.shed();
        }
        if !matches!(&error, Error::Cancelled(reason) if reason.leaves_nobody()) {
            item.fail(error, &leave).await;
        }
        trace.end(label);
    }

    async fn explain(
        self: &Arc<Self>,
        item: &Item<'_>,
        request: Box<ValidRequest>,
        identity: &Identity,
        deadline: Option<Instant>,
        leave: &(impl Fn(u64, &EventKind) -> bool + Sync),
    ) -> Result<(), Error> {
        // In a place of its own, so that an item that waits for its client takes little memory.
        let found = Box::pin(self.found_or_made(request, identity, deadline)).await?;
        item.follow(found, deadline, leave).await
    }

    /// The answer, in memory or under way.
    async fn found_or_made(
        self: &Arc<Self>,
        request: Box<ValidRequest>,
        identity: &Identity,
        deadline: Option<Instant>,
    ) -> Result<Found, Error> {
        (identity.rates.take_items(1))
            .inspect_err(|_| self.metrics.access.rate_limited("items"))?;
        let salt = identity.salt(self.cache_secret.as_bytes());
        let budget = Budget::for_code(self.code_cpu_time, request.code.len());
        let request = self.without_secrets(*request, &salt, &budget).await?;
        if let Some(answer) = self.kept_answer(&request, &salt) {
            return Ok(Found {
                reader: replay_kept(answer),
                telling: Telling::of(&request),
                own: None,
            });
        }
        let place = self.scheduler.enter(&identity.tenant)?;
        let request = Arc::new(request);
        let known = tokio::select! {
            known = self.know(&request, &salt, &budget) => known?,
            () = until(deadline) => return Err(Error::Deadline),
        };
        let (snippet, prepared) = known;
        let boarded_at = now();
        let quoted = prepared.as_ref().and_then(|prepared| prepared.quoted);
        // What a clock has cut short, the request alone does not make.
        let is_cut = snippet.cut_short || prepared.as_ref().is_some_and(|p| p.cut_short);
        let mode = request.cache_mode;
        let looks = mode != CacheMode::Bypass && (self.single_flight || self.cache.enabled());
        let key = (looks && !is_cut)
            .then(|| self.answer_key(&request, &snippet, quoted, &salt))
            .flatten();
        // What is made for everybody is made as everybody wants it.
        let share = self.single_flight && mode == CacheMode::Default;
        if mode == CacheMode::Only && (key.is_none() || !self.cache.enabled()) {
            return Err(Error::NotCached);
        }
        let boarding = (self.in_flight.0).board(key, share, request.priority, boarded_at);
        let reader = match boarding {
            Role::Follower(reader) => {
                // It waits for no engine: its place is another's.
                drop(place);
                self.metrics.streams.joined();
                reader
            }
            Role::Leader(reader, lead) => {
                let plan = Plan {
                    request: request.clone(),
                    snippet,
                    prepared: OnceCell::new_with(prepared.clone()),
                    salt,
                    budget,
                    rates: identity.rates.clone(),
                };
                self.tasks.spawn(self.clone().run_flight(lead, plan, place));
                reader
            }
        };
        let own = prepared.map(|prepared| Arc::new(prepared.about(request.include_prompt)));
        Ok(Found {
            reader,
            telling: Telling::of(&request),
            own,
        })
    }

    /// What names the answer: what is known of the snippet, and the prompt where it quotes. A prompt that the client wants
    /// to see is made here, too.
    async fn know(
        &self,
        request: &Arc<ValidRequest>,
        salt: &[u8],
        budget: &Budget,
    ) -> Result<(Snippet, Option<Arc<Prepared>>), Error> {
        let snippet = self.describe_snippet(request, salt, budget).await?;
        if request.strategy != Strategy::RetrievalAugmented && !request.include_prompt {
            return Ok((snippet, None));
        }
        let prepared = self.prepare(request, &snippet, salt, budget).await?;
        Ok((snippet, Some(Arc::new(prepared))))
    }
}

/// Why an item that failed was given up, if it was.
fn given_up(error: &Error) -> Option<CancelReason> {
    match error {
        Error::Cancelled(reason) => Some(*reason),
        Error::Deadline => Some(CancelReason::Deadline),
        Error::SlowReader { .. } => Some(CancelReason::SlowReader),
        Error::ShuttingDown => Some(CancelReason::Shutdown),
        Error::Retiring => Some(CancelReason::Retired),
        _ => None,
    }
}

/// Waits for a time; for ever, where there is none. Safe to drop.
async fn until(time: Option<Instant>) {
    match time {
        // In a place of its own: most items have no deadline.
        Some(time) => Box::pin(tokio::time::sleep_until(time.into())).await,
        None => std::future::pending().await,
    }
}

/// The time, as the engines' threads tell it; in a test with a paused clock, the test's.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
