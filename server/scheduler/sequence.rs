//! One item on its way through the engine, and the ends of the channel that it speaks through.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use tokio::sync::mpsc;

use crate::engine::Sampling;
use crate::scheduler::blocks::Blocks;

/// What the engine is asked to generate.
#[derive(Debug, Clone)]
pub struct Job {
    /// The prompt's tokens, at least one.
    pub prompt: Vec<u32>,
    /// How tokens are picked.
    pub sampling: Sampling,
    /// End after this many generated tokens; at least 1.
    pub max_new_tokens: usize,
    /// No end-of-sequence token before this many.
    pub min_new_tokens: usize,
    /// Tokens that end the answer.
    pub eos: Arc<[u32]>,
    /// Go on past them.
    pub ignore_eos: bool,
}

/// What happens to a job, in order: started, token..., then ended or failed.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
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
    /// The server stops.
    ShuttingDown,
}

/// The receiving end of a job. Dropping it cancels the job: its blocks are free before the next step.
#[derive(Debug)]
pub struct Ticket {
    pub(super) events: mpsc::Receiver<Event>,
    pub(super) cancelled: Arc<AtomicBool>,
    /// Items that were waiting before it.
    pub queue_position: usize,
    /// When it was accepted.
    pub accepted_at: Instant,
}

impl Ticket {
    /// The next event; `None` after the last.
    pub async fn next(&mut self) -> Option<Event> {
        self.events.recv().await
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.cancelled.store(true, Ordering::Release);
    }
}

/// A job in the engine thread's hands.
#[derive(Debug)]
pub(super) struct Sequence {
    /// Prompt and answer.
    tokens: Vec<u32>,
    prompt_tokens: usize,
    /// How many of `tokens` lie in the KV cache.
    computed: usize,
    job: Job,
    blocks: Option<Blocks>,
    events: mpsc::Sender<Event>,
    cancelled: Arc<AtomicBool>,
    started: bool,
}

impl Sequence {
    /// A sequence and its ticket. The channel holds every event that a job can have, so that sending never waits.
    pub(super) fn new(mut job: Job, queue_position: usize, now: Instant) -> (Self, Ticket) {
        let (sender, events) = mpsc::channel(job.max_new_tokens + 2);
        let cancelled = Arc::new(AtomicBool::new(false));
        let tokens = std::mem::take(&mut job.prompt);
        let sequence = Self {
            prompt_tokens: tokens.len(),
            tokens,
            computed: 0,
            job,
            blocks: None,
            events: sender,
            cancelled: cancelled.clone(),
            started: false,
        };
        (
            sequence,
            Ticket {
                events,
                cancelled,
                queue_position,
                accepted_at: now,
            },
        )
    }

    /// Tokens that its KV cache must hold at the end. The last generated token is never run through the model.
    pub(super) fn capacity(&self) -> usize {
        self.prompt_tokens + self.job.max_new_tokens - 1
    }

    pub(super) fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Acquire) || self.events.is_closed()
    }

    pub(super) fn admit(&mut self, blocks: Blocks) {
        self.blocks = Some(blocks);
    }

    /// Tokens that are known and not yet run through the model.
    pub(super) fn pending(&self) -> usize {
        self.tokens.len() - self.computed
    }

    pub(super) fn generated(&self) -> usize {
        self.tokens.len() - self.prompt_tokens
    }

    /// Its share of a step that runs `count` of the pending tokens.
    pub(super) fn plan(&self, count: usize) -> crate::engine::SequenceStep<'_> {
        let end = self.computed + count;
        let banned = if self.generated() < self.job.min_new_tokens {
            &*self.job.eos
        } else {
            &[]
        };
        crate::engine::SequenceStep {
            tokens: &self.tokens[self.computed..end],
            past: self.computed,
            blocks: self.blocks.as_ref().map_or(&[], Blocks::ids),
            sample: (end == self.tokens.len()).then_some(crate::engine::SampleStep {
                sampling: &self.job.sampling,
                history: &self.tokens,
                index: self.generated() as u64,
                banned,
                drafts: 0,
            }),
        }
    }

    /// Tells the client that work begins, once.
    pub(super) fn start(&mut self, now: Instant) {
        if !std::mem::replace(&mut self.started, true) {
            self.send(Event::Started {
                at: now,
                cached_tokens: self.computed,
            });
        }
    }

    /// Takes a step's result. True when the sequence has ended.
    pub(super) fn advance(
        &mut self,
        count: usize,
        token: Option<u32>,
        batch: usize,
        now: Instant,
        context: usize,
    ) -> bool {
        self.computed += count;
        let Some(token) = token else { return false };
        self.tokens.push(token);
        self.send(Event::Token {
            token,
            at: now,
            batch,
        });
        let end = if self.job.eos.contains(&token) && !self.job.ignore_eos {
            End::Eos
        } else if self.generated() >= self.job.max_new_tokens {
            End::Length
        } else if self.tokens.len() >= context {
            End::Context
        } else {
            return false;
        };
        self.send(Event::Ended(end));
        true
    }

    pub(super) fn fail(&self, failure: Failure) {
        self.send(Event::Failed(failure));
    }

    fn send(&self, event: Event) {
        // A receiver that is gone has cancelled the job, which the next step finds.
        let _ = self.events.try_send(event);
    }
}
