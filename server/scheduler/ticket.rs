//! What a job's client holds: the events of the job, its place in the queue, and the way to give it up.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use tokio::sync::{mpsc, watch};

use crate::waiting::{Priority, Rank, Tenant};

/// What happens to a job, in order: queued..., started, token..., then ended or failed.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// So many items are before it now. At most one in [`POSITION_INTERVAL`](super::POSITION_INTERVAL), the latest.
    Queued(usize),
    /// Its first step begins.
    Started {
        /// When.
        at: Instant,
        /// Prompt tokens that need not be computed.
        cached_tokens: usize,
    },
    /// A token was generated.
    Token {
        /// Its id.
        token: u32,
        /// When.
        at: Instant,
        /// Sequences in the step, this one included.
        batch: usize,
    },
    /// No more tokens will come.
    Ended(End),
    /// The job cannot go on.
    Failed(Failure),
}

/// Why no more tokens come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The last token was an end-of-sequence token.
    Eos,
    /// `max_new_tokens` were generated.
    Length,
    /// The model's context is full.
    Context,
}

/// Why a job cannot go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// Its step ran out of memory.
    OutOfMemory,
    /// Its step failed.
    Engine,
    /// The engine did not come back from a step, or its thread ended; it is started again.
    Wedged,
    /// The server stops.
    ShuttingDown,
}

/// The receiving end of a job. Dropping it cancels the job: its blocks are free before the next step.
#[derive(Debug)]
pub struct Ticket {
    pub(super) events: mpsc::Receiver<Event>,
    /// How many are before it; `None` once that does not change any more.
    position: Option<watch::Receiver<usize>>,
    cancelled: Arc<AtomicBool>,
    /// What it has in the queue.
    pub(super) tenant: Tenant,
    pub(super) rank: Rank,
    pub(super) priority: Priority,
    /// Items that were waiting before it.
    pub queue_position: usize,
    /// When it was accepted.
    pub accepted_at: Instant,
}

impl Ticket {
    pub(super) fn new(
        events: mpsc::Receiver<Event>,
        position: watch::Receiver<usize>,
        cancelled: Arc<AtomicBool>,
        (tenant, rank, priority): (Tenant, Rank, Priority),
        accepted_at: Instant,
    ) -> Self {
        Self {
            tenant,
            rank,
            priority,
            events,
            position: Some(position),
            cancelled,
            queue_position: 0,
            accepted_at,
        }
    }

    /// What its client is told first of its position.
    pub(super) fn told(&mut self, position: usize) {
        self.queue_position = position;
        if let Some(told) = &mut self.position {
            told.mark_unchanged();
        }
    }

    /// The next event; `None` after the last. Safe to drop.
    pub async fn next(&mut self) -> Option<Event> {
        let event = self.any().await;
        if let Some(Event::Ended(_) | Event::Failed(_)) = event {
            // The queue may hold another end of the channel until the engine takes its next job.
            self.events.close();
        }
        event
    }

    async fn any(&mut self) -> Option<Event> {
        while let Some(position) = &mut self.position {
            tokio::select! {
                biased;
                event = self.events.recv() => {
                    self.position = None;
                    return event;
                }
                changed = position.changed() => match changed {
                    Ok(()) => return Some(Event::Queued(*position.borrow_and_update())),
                    // It is not in the queue any more.
                    Err(_) => self.position = None,
                },
            }
        }
        self.events.recv().await
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.cancelled.store(true, Ordering::Release);
    }
}
