//! From jobs to tokens: a bounded queue, continuous batching, and a thread for each engine that drives it.
//!
//! - [`waiting`], [`ledger`]: who waits, in which order, and whose turn it is. [`turns`]: who gives way to whom. Pure.
//! - [`policy`]: how a step's tokens are shared out, and how many there are. Pure.
//! - [`speculation`], [`lookup`]: which tokens are guessed, and how many of them are worth trying. Pure.
//! - [`blocks`]: who has which block of the KV cache, and which are kept for those to come.
//! - `places`, [`drain`]: the queue's bound, and when it is worth to come back. `ticket`: what a job's client holds.
//! - `sequence`: a job on its way, and the channel to its client.
//! - `core`: an engine's sequences between two steps, driven by its caller.
//! - `queue`: the one queue before all engines.
//! - `thread`: an engine's thread, which drives it.
//! - `vitals`, [`supervisor`]: whether engines live, and what is done if they do not.

pub mod blocks;
mod core;
pub mod drain;
mod gauges;
pub mod ledger;
pub mod lookup;
mod places;
pub mod policy;
#[cfg(test)]
mod properties;
mod queue;
mod sequence;
pub mod speculation;
pub mod supervisor;
mod thread;
mod ticket;
pub mod turns;
mod vitals;
pub mod waiting;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

pub use gauges::{EngineGauges, Gauges};
pub use ledger::Weights;
pub use places::QueuePermit;
pub use policy::StepLimits;
pub use sequence::Job;
pub use speculation::Drafting;
pub use supervisor::{
    GaveUp, POSITION_INTERVAL, RestartCause, RestartObserver, Supervisor, SupervisorOptions,
};
pub use thread::Started;
pub use ticket::{End, Event, Failure, Ticket};
pub use waiting::{Priority, Tenant};

use code_explainer_engine::{Backend, BackendInfo, EngineError, GraphSteps};

use code_explainer_host::machine::Machine;
use queue::{Incarnation, Queue, Refused};
use sequence::Sequence;

/// Told of every step, on the engine's thread: must not block.
pub type Observer = Arc<dyn Fn(&StepReport) + Send + Sync>;

/// Makes a backend, on the thread that will run it; again, if that has to be started again.
pub type Loader = Box<dyn Fn() -> Result<Box<dyn Backend>, EngineError> + Send + Sync>;

/// How jobs are run.
#[derive(Debug, Clone, PartialEq)]
pub struct SchedulerOptions {
    /// The bounds of the queue, and its order.
    pub queue: QueueOptions,
    /// How an engine runs them.
    pub engine: EngineRules,
    /// How engines are looked after.
    pub supervisor: SupervisorOptions,
}

/// The bounds of the queue, and its order.
#[derive(Debug, Clone, PartialEq)]
pub struct QueueOptions {
    /// Jobs that wait at most.
    pub items: usize,
    /// Tokens of their prompts at most.
    pub tokens: usize,
    /// After this much longer in the queue, a job goes like one of the next higher priority.
    pub aging: Duration,
    /// Shares of tenants.
    pub weights: Weights,
}

/// How an engine runs jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EngineRules {
    /// What a step may hold.
    pub step: StepLimits,
    /// The time between two tokens of a stream that steps are kept to, by giving them fewer tokens.
    pub target_itl: Option<Duration>,
    /// When tokens are guessed.
    pub speculation: Drafting,
    /// Compute the common beginning of prompts once.
    pub prefix_cache: bool,
}

/// What a step did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StepReport {
    /// Sequences that it worked on.
    pub sequences: usize,
    /// Prompt tokens that it ran.
    pub prefill_tokens: usize,
    /// Generated tokens that it ran.
    pub decode_tokens: usize,
    /// Guessed tokens that it ran.
    pub draft_tokens: usize,
    /// Guessed tokens that held.
    pub accepted_tokens: usize,
    /// Prompt tokens of sequences that began with it which need not be run.
    pub cached_tokens: usize,
    /// Tokens that it gave.
    pub generated_tokens: usize,
    /// Sequences that it finished.
    pub ended: usize,
    /// Sequences that had to give their blocks back before it.
    pub preempted: usize,
    /// Sequences that gave their slot to others before it.
    pub paused: usize,
    /// Time that the backend took.
    pub duration: Duration,
    /// Whether it ran as a recorded graph.
    pub graph_steps: GraphSteps,
}

/// Why a job is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoRoom {
    /// The queue holds as much as it may.
    #[error("the queue is full ({limit} {unit})")]
    QueueFull {
        /// What it holds.
        limit: usize,
        /// Of what.
        unit: &'static str,
        /// When to try again.
        retry: Duration,
    },
    /// No engine will work on it.
    #[error("the scheduler has ended")]
    ShuttingDown,
}

/// The way to the engines. Clones lead to the same ones.
#[derive(Clone)]
pub struct Scheduler {
    queue: Arc<Queue>,
    gauges: Arc<Gauges>,
    closed: Arc<AtomicBool>,
    bounds: (usize, usize),
}

/// Engines that are being loaded.
pub struct Starting {
    shared: thread::Shared,
    options: SupervisorOptions,
    engines: Vec<(Arc<Loader>, Started)>,
    unattended: Unattended,
}

/// Ends engines that nobody looks after any more: one of them cannot be loaded, does not come back, or the server ends.
struct Unattended(Arc<Queue>);

impl Drop for Unattended {
    fn drop(&mut self) {
        self.0.stop();
    }
}

impl Scheduler {
    /// Starts a thread of the machine for each engine, which makes its backend itself: device state stays on one thread.
    pub fn start(
        loaders: Vec<Loader>,
        options: &SchedulerOptions,
        observer: Observer,
        machine: Machine,
    ) -> (Self, Starting) {
        let rules = &options.queue;
        let shared = thread::Shared {
            queue: Arc::new(Queue::new(
                loaders.len(),
                rules.aging,
                rules.weights.clone(),
            )),
            gauges: Arc::new(Gauges::new(loaders.len())),
            observer,
            rules: options.engine,
            machine,
        };
        let scheduler = Self {
            queue: shared.queue.clone(),
            gauges: shared.gauges.clone(),
            closed: Arc::new(AtomicBool::new(false)),
            bounds: (rules.items, rules.tokens),
        };
        let engines = loaders.into_iter().enumerate().map(|(engine, load)| {
            let load = Arc::new(load);
            let started = thread::spawn(
                Incarnation { engine, life: 0 },
                load.clone(),
                shared.clone(),
            );
            (load, started)
        });
        let starting = Starting {
            engines: engines.collect(),
            unattended: Unattended(shared.queue.clone()),
            shared,
            options: options.supervisor,
        };
        (scheduler, starting)
    }

    /// Takes a place in the queue for a tenant, before any work is done for an item.
    ///
    /// # Errors
    /// [`NoRoom::QueueFull`] with the time to wait, [`NoRoom::ShuttingDown`].
    pub fn enter(&self, tenant: &Tenant) -> Result<QueuePermit, NoRoom> {
        if self.closed.load(Ordering::Acquire) {
            return Err(NoRoom::ShuttingDown);
        }
        let limit = self.bounds.0;
        let place = self.gauges.places.enter(tenant, limit);
        place.ok_or_else(|| NoRoom::QueueFull {
            limit,
            unit: "items",
            retry: self.gauges.retry_delay(),
        })
    }

    /// Queues a job in its place. A closed scheduler still takes those who had a place before.
    ///
    /// # Errors
    /// [`NoRoom::QueueFull`] if there are too many prompt tokens in the queue, [`NoRoom::ShuttingDown`].
    pub fn submit(&self, place: QueuePermit, job: Job) -> Result<Ticket, NoRoom> {
        let now = Instant::now();
        let rank = self.queue.rank(job.priority, now);
        let (sequence, mut ticket) = Sequence::new(job, place, rank, now);
        let (limit, several) = (self.bounds.1, self.gauges.places.several());
        match self.queue.push(sequence, limit, several, now) {
            Ok(position) => {
                ticket.told(position);
                Ok(ticket)
            }
            Err(Refused::Stopped) => Err(NoRoom::ShuttingDown),
            Err(Refused::Full) => Err(NoRoom::QueueFull {
                limit,
                unit: "prompt tokens",
                retry: self.gauges.retry_delay(),
            }),
        }
    }

    /// Makes a job as urgent as this, if it is not so already and still waits: one that an engine has begun keeps its rank.
    pub fn raise(&self, ticket: &mut Ticket, priority: Priority) {
        if priority < ticket.priority
            && let Some(rank) =
                (self.queue).raise(&ticket.tenant, ticket.rank, (ticket.priority, priority))
        {
            (ticket.rank, ticket.priority) = (rank, priority);
        }
    }

    /// Queue and engines at this moment.
    pub fn gauges(&self) -> &Gauges {
        &self.gauges
    }

    /// Gives out no more places; who has one goes on.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Release);
    }

    /// Ends the engines' threads; jobs that are left fail as retryable.
    pub fn stop(&self) {
        self.close();
        self.queue.stop();
    }
}

impl Starting {
    /// Waits until each engine has been loaded and has run a one-token forward pass. Gives their backends' descriptions,
    /// and who looks after them from then on.
    ///
    /// # Errors
    /// One that cannot be loaded.
    pub async fn ready(
        mut self,
        restarts: RestartObserver,
    ) -> Result<(Vec<BackendInfo>, Supervisor), EngineError> {
        let mut infos = Vec::new();
        for (_, engine) in &mut self.engines {
            let ready = (&mut engine.ready).await;
            infos.push(
                ready
                    .map_err(|_| EngineError::Broken("its thread ended while it was loading"))??,
            );
        }
        let now = tokio::time::Instant::now().into_std();
        let supervisor = Supervisor::new(self, restarts, now);
        Ok((infos, supervisor))
    }
}
