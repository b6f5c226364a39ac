//! From jobs to tokens: a bounded queue, continuous batching, and a thread for each engine that drives it.
//!
//! - [`policy`]: how a step's tokens are shared out, and how many there are. Pure.
//! - [`speculation`], [`lookup`]: which tokens are guessed, and how many of them are worth trying. Pure.
//! - [`blocks`]: who has which block of the KV cache, and which are kept for those to come.
//! - `sequence`: a job on its way, and the channel to its client.
//! - `core`: an engine's sequences between two steps, driven by its caller.
//! - `queue`: the one queue before all engines.
//! - `thread`: an engine's thread, which drives it.

pub mod blocks;
mod core;
mod gauges;
pub mod lookup;
pub mod policy;
#[cfg(test)]
mod properties;
mod queue;
mod sequence;
pub mod speculation;
mod thread;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

pub use gauges::{EngineGauges, Gauges, Place};
pub use policy::StepLimits;
pub use sequence::{End, Event, Failure, Job, Ticket};
pub use thread::Started;

use crate::engine::{Backend, EngineError, GraphSteps};
use crate::error::Error;
use queue::Queue;
use sequence::Sequence;

/// Told of every step, on the engine's thread: must not block.
pub type Observer = Arc<dyn Fn(&StepReport) + Send + Sync>;

/// Makes a backend, on the thread that will run it.
pub type Loader = Box<dyn FnOnce() -> Result<Box<dyn Backend>, EngineError> + Send>;

/// How jobs are run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SchedulerOptions {
    /// What a step of an engine may hold.
    pub step: StepLimits,
    /// Jobs that wait at most.
    pub queue_items: usize,
    /// The time between two tokens of a stream that steps are kept to, by giving them fewer tokens.
    pub target_itl: Option<Duration>,
    /// Guess tokens where it pays.
    pub speculation: bool,
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
    /// Time that the backend took.
    pub duration: Duration,
    /// Whether it ran as a recorded graph.
    pub graph_steps: GraphSteps,
}

/// The way to the engines. Clones lead to the same ones.
#[derive(Clone)]
pub struct Scheduler {
    queue: Arc<Queue>,
    gauges: Arc<Gauges>,
    closed: Arc<AtomicBool>,
    queue_items: usize,
}

impl Scheduler {
    /// Starts a thread for each engine, which makes its backend itself: device state stays on one thread.
    ///
    /// Each receiver gets its backend's description once it has been loaded and has run a one-token forward pass.
    pub fn start(
        loaders: Vec<Loader>,
        options: SchedulerOptions,
        observer: Observer,
    ) -> (Self, Vec<Started>) {
        let shared = thread::Shared {
            queue: Arc::new(Queue::new(loaders.len())),
            gauges: Arc::new(Gauges::new(loaders.len())),
            observer,
            options,
        };
        let scheduler = Self {
            queue: shared.queue.clone(),
            gauges: shared.gauges.clone(),
            closed: Arc::new(AtomicBool::new(false)),
            queue_items: options.queue_items,
        };
        let started = (loaders.into_iter().enumerate())
            .map(|(engine, load)| thread::spawn(engine, load, shared.clone()));
        (scheduler, started.collect())
    }

    /// Takes a place in the queue, before any work is done for an item.
    ///
    /// # Errors
    /// [`Error::QueueFull`] with the time to wait, [`Error::ShuttingDown`].
    pub fn enter(&self) -> Result<Place, Error> {
        if self.closed.load(Ordering::Acquire) {
            return Err(Error::ShuttingDown);
        }
        Gauges::enter(&self.gauges, self.queue_items).ok_or_else(|| Error::QueueFull {
            limit: self.queue_items,
            retry: self.gauges.retry_delay(),
        })
    }

    /// Queues a job in its place. A closed scheduler still takes those who had a place before.
    ///
    /// # Errors
    /// [`Error::ShuttingDown`] when no engine is left.
    pub fn submit(&self, place: Place, job: Job) -> Result<Ticket, Error> {
        let (sequence, ticket) = Sequence::new(job, place, Instant::now());
        if self.queue.push(sequence) {
            Ok(ticket)
        } else {
            Err(Error::ShuttingDown)
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
