//! From jobs to tokens: a bounded queue, continuous batching, and one thread that drives the engine.
//!
//! - [`policy`]: how a step's tokens are shared out. Pure.
//! - [`blocks`]: who has which block of the KV cache.
//! - `sequence`: a job on its way, and the channel to its client.
//! - `core`: the state between two steps, driven by its caller.
//! - `thread`: the engine thread, which drives it.

pub mod blocks;
mod core;
pub mod policy;
#[cfg(test)]
mod properties;
mod sequence;
mod thread;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

pub use policy::StepLimits;
pub use sequence::{End, Event, Failure, Job, Ticket};

use crate::engine::{Backend, EngineError};
use crate::error::Error;
use sequence::Sequence;

/// A place in the queue; dropping it gives it back.
#[derive(Debug)]
pub struct Place {
    gauges: Option<Arc<Gauges>>,
    /// Items that were before it.
    position: usize,
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(gauges) = &self.gauges {
            gauges.queued.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

/// Told of every step, on the engine thread: must not block.
pub type Observer = Box<dyn FnMut(&StepReport) + Send>;

/// What a step did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StepReport {
    /// Sequences that it worked on.
    pub sequences: usize,
    /// Prompt tokens that it ran.
    pub prefill_tokens: usize,
    /// Generated tokens that it ran.
    pub decode_tokens: usize,
    /// Tokens that it sampled.
    pub generated_tokens: usize,
    /// Sequences that it finished.
    pub ended: usize,
    /// Time that the backend took.
    pub duration: Duration,
}

/// The way to the engine. Clones lead to the same one.
#[derive(Clone)]
pub struct Scheduler {
    commands: mpsc::Sender<Command>,
    gauges: Arc<Gauges>,
    closed: Arc<AtomicBool>,
    queue_items: usize,
}

/// The state of queue and engine, readable from anywhere.
#[derive(Debug, Default)]
pub struct Gauges {
    /// Places that are taken: items whose prompt is being made, and jobs that wait for the engine.
    queued: AtomicUsize,
    waiting: AtomicUsize,
    running: AtomicUsize,
    blocks_used: AtomicUsize,
    blocks_total: AtomicUsize,
    /// Moving average of the time between two items leaving the engine, in microseconds.
    item_interval_us: AtomicU64,
}

enum Command {
    Run(Sequence),
    Stop,
}

impl Scheduler {
    /// Starts the engine thread, which makes its backend itself: device state stays on one thread.
    ///
    /// The receiver gets the backend's description once it has been loaded and has run a one-token forward pass.
    pub fn start(
        load: impl FnOnce() -> Result<Box<dyn Backend>, EngineError> + Send + 'static,
        limits: StepLimits,
        queue_items: usize,
        observer: Observer,
    ) -> (Self, thread::Started) {
        let (commands, receiver) = mpsc::channel();
        let gauges = Arc::new(Gauges::default());
        let started = thread::spawn(load, limits, receiver, gauges.clone(), observer);
        let closed = Arc::new(AtomicBool::new(false));
        (
            Self {
                commands,
                gauges,
                closed,
                queue_items,
            },
            started,
        )
    }

    /// Takes a place in the queue, before any work is done for an item.
    ///
    /// # Errors
    /// [`Error::QueueFull`] with the time to wait, [`Error::ShuttingDown`].
    pub fn enter(&self) -> Result<Place, Error> {
        if self.closed.load(Ordering::Acquire) {
            return Err(Error::ShuttingDown);
        }
        let position = self
            .gauges
            .enter(self.queue_items)
            .ok_or_else(|| Error::QueueFull {
                limit: self.queue_items,
                retry: self.gauges.retry_delay(),
            })?;
        Ok(Place {
            gauges: Some(self.gauges.clone()),
            position,
        })
    }

    /// Queues a job in its place. A closed scheduler still takes those who had a place before.
    ///
    /// # Errors
    /// [`Error::ShuttingDown`] when the engine thread has ended.
    pub fn submit(&self, mut place: Place, job: Job) -> Result<Ticket, Error> {
        let (sequence, ticket) = Sequence::new(job, place.position, Instant::now());
        self.commands
            .send(Command::Run(sequence))
            .map_err(|_| Error::ShuttingDown)?;
        // From here on the engine thread counts it.
        place.gauges = None;
        Ok(ticket)
    }

    /// Queue and engine at this moment.
    pub fn gauges(&self) -> &Gauges {
        &self.gauges
    }

    /// Gives out no more places; who has one goes on.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Release);
    }

    /// Ends the engine thread; jobs that are left fail as retryable.
    pub fn stop(&self) {
        self.close();
        // A thread that has ended needs no telling.
        let _ = self.commands.send(Command::Stop);
    }
}

impl Gauges {
    /// Items that wait to be worked on.
    pub fn queued(&self) -> usize {
        self.queued.load(Ordering::Relaxed)
    }

    /// Sequences being worked on.
    pub fn running(&self) -> usize {
        self.running.load(Ordering::Relaxed)
    }

    /// KV blocks in use.
    pub fn blocks_used(&self) -> usize {
        self.blocks_used.load(Ordering::Relaxed)
    }

    /// All KV blocks.
    pub fn blocks_total(&self) -> usize {
        self.blocks_total.load(Ordering::Relaxed)
    }

    /// Counts one more item as queued, unless `limit` are; gives how many were before it.
    fn enter(&self, limit: usize) -> Option<usize> {
        self.queued
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |n| {
                (n < limit).then_some(n + 1)
            })
            .ok()
    }

    /// The engine thread's view: what left its waiting line since the last time is no longer queued.
    fn publish(&self, waiting: usize, running: usize, (used, total): (usize, usize)) {
        let left = self
            .waiting
            .swap(waiting, Ordering::AcqRel)
            .saturating_sub(waiting);
        self.queued.fetch_sub(left, Ordering::AcqRel);
        self.running.store(running, Ordering::Relaxed);
        self.blocks_used.store(used, Ordering::Relaxed);
        self.blocks_total.store(total, Ordering::Relaxed);
    }

    /// The engine thread has taken one more item into its waiting line.
    fn arrived(&self) {
        self.waiting.fetch_add(1, Ordering::AcqRel);
    }

    fn left(&self, items: u32, since_last: Duration) {
        let sample = (since_last / items).as_micros() as u64;
        let old = self.item_interval_us.load(Ordering::Relaxed);
        let new = if old == 0 {
            sample
        } else {
            (old * 7 + sample) / 8
        };
        self.item_interval_us.store(new, Ordering::Relaxed);
    }

    /// When a quarter of the queue will have drained, by the rate at which items leave.
    fn retry_delay(&self) -> Duration {
        const UNKNOWN: Duration = Duration::from_secs(1);
        const BOUNDS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(30));
        let interval = Duration::from_micros(self.item_interval_us.load(Ordering::Relaxed));
        let quarter = u32::try_from(self.queued() / 4 + 1).unwrap_or(u32::MAX);
        if interval.is_zero() {
            return UNKNOWN;
        }
        interval.saturating_mul(quarter).clamp(BOUNDS.0, BOUNDS.1)
    }
}
