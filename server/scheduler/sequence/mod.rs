//! One item on its way through the engine, and the ends of the channel that it speaks through.

mod guess;
mod prefix;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use code_explainer_engine::{SampleStep, Sampling, SequenceStep};
use tokio::sync::{mpsc, watch};

use crate::QueuePermit;
use crate::blocks::{BlockHash, Blocks};
use crate::policy::Pending;
use crate::ticket::{End, Event, Failure, Ticket};
use crate::turns::{Claim, Standing};
use crate::waiting::{Priority, Rank, Size, Tenant};
use guess::Guess;

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
    /// Only jobs with the same salt share what was computed of their prompts, so that nobody can find out by the time
    /// that a prompt takes whether somebody else's began alike.
    pub salt: Arc<[u8]>,
    /// How urgent it is, beside those of its own tenant.
    pub priority: Priority,
}

/// A job in the engine thread's hands.
#[derive(Debug)]
pub(crate) struct Sequence {
    /// Prompt, answer, and then drafts.
    tokens: Vec<u32>,
    prompt_tokens: usize,
    /// How many of `tokens` are guesses.
    drafts: usize,
    /// How many of `tokens` lie in the KV cache.
    computed: usize,
    job: Job,
    blocks: Option<Blocks>,
    /// Names of the full blocks of `tokens`, as far as they were needed.
    names: Vec<BlockHash>,
    /// How many of `blocks` others may read.
    published: usize,
    guess: Guess,
    events: mpsc::Sender<Event>,
    cancelled: Arc<AtomicBool>,
    tenant: Tenant,
    rank: Rank,
    /// Its tenant's, as of the last look at the ledger.
    pub(crate) standing: Standing,
    /// Given back when it leaves the queue, and with it the way to tell its place.
    waits: Option<(QueuePermit, watch::Sender<usize>)>,
    started: bool,
    /// Prompt tokens that its tenant has been charged for: those that are computed again are not.
    charged: usize,
    /// Tokens that its tenant has not been charged for yet.
    owed: usize,
}

/// What a step gave a sequence.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Advance {
    /// Tokens that were generated.
    pub(crate) generated: usize,
    /// Drafts that were run, and those of them that held.
    pub(crate) drafts: (usize, usize),
    /// No more tokens will come.
    pub(crate) ended: bool,
}

impl Sequence {
    /// A sequence and its ticket. The channel holds every event that a job can have, so that sending never waits.
    pub(crate) fn new(
        mut job: Job,
        place: QueuePermit,
        rank: Rank,
        now: Instant,
    ) -> (Self, Ticket) {
        let (sender, events) = mpsc::channel(job.max_new_tokens + 2);
        let (tell, position) = watch::channel(0);
        let cancelled = Arc::new(AtomicBool::new(false));
        let tokens = std::mem::take(&mut job.prompt);
        let sequence = Self {
            prompt_tokens: tokens.len(),
            tokens,
            drafts: 0,
            computed: 0,
            job,
            blocks: None,
            names: Vec::new(),
            published: 0,
            guess: Guess::default(),
            events: sender,
            cancelled: cancelled.clone(),
            tenant: place.tenant.clone(),
            rank,
            standing: Standing::default(),
            waits: Some((place, tell)),
            started: false,
            charged: 0,
            owed: 0,
        };
        let standing = (
            sequence.tenant.clone(),
            sequence.rank,
            sequence.job.priority,
        );
        let ticket = Ticket::new(events, position, cancelled, standing, now);
        (sequence, ticket)
    }

    pub(crate) fn tenant(&self) -> &Tenant {
        &self.tenant
    }

    pub(crate) fn rank(&self) -> Rank {
        self.rank
    }

    pub(crate) fn set_rank(&mut self, rank: Rank) {
        self.rank = rank;
    }

    pub(crate) fn claim(&self) -> Claim<'_> {
        Claim {
            tenant: &self.tenant,
            rank: self.rank,
            standing: self.standing,
        }
    }

    pub(crate) fn size(&self) -> Size {
        Size {
            prompt: self.prompt_tokens,
            answer: self.job.max_new_tokens,
        }
    }

    /// The way to its client, for when the one who works on it cannot be reached any more.
    pub(crate) fn outlet(&self) -> mpsc::Sender<Event> {
        self.events.clone()
    }

    /// Tells how many are before it, if that has changed.
    pub(crate) fn tell_position(&self, position: usize) {
        if let Some((_, tell)) = &self.waits {
            tell.send_if_modified(|told| std::mem::replace(told, position) != position);
        }
    }

    /// Tokens that were served since it was asked last.
    pub(crate) fn take_owed(&mut self) -> usize {
        std::mem::take(&mut self.owed)
    }

    /// Whether it holds blocks.
    pub(crate) fn has_blocks(&self) -> bool {
        self.blocks.as_ref().is_some_and(|b| !b.ids().is_empty())
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Acquire) || self.events.is_closed()
    }

    /// It waits no more: its place in the queue is free.
    pub(crate) fn leave_queue(&mut self) {
        self.waits = None;
    }

    /// Tokens that are not guesses.
    fn known(&self) -> usize {
        self.tokens.len() - self.drafts
    }

    pub(crate) fn pending(&self) -> Pending {
        Pending {
            tokens: self.known() - self.computed,
            drafts: self.drafts,
            brief: self.standing.is_brief(),
        }
    }

    /// Its answer grows by a token in each step.
    pub(crate) fn decodes(&self) -> bool {
        self.known() - self.computed == 1 && self.generated() > 0
    }

    pub(crate) fn generated(&self) -> usize {
        self.known() - self.prompt_tokens
    }

    /// Tokens that may be run until it ends.
    pub(crate) fn load(&self) -> usize {
        self.known() - self.computed + self.job.max_new_tokens - self.generated()
    }

    /// Gives its blocks back. What it has said stays said; the rest is computed again.
    pub(crate) fn preempt(&mut self) {
        self.drop_drafts();
        self.blocks = None;
        self.computed = 0;
        self.published = 0;
    }

    /// Its share of a step that runs `count` of the pending tokens; those of its drafts that are not in it are dropped
    /// before.
    pub(crate) fn plan(&self, count: usize) -> SequenceStep<'_> {
        let end = self.computed + count;
        let banned = if self.generated() < self.job.min_new_tokens {
            &*self.job.eos
        } else {
            &[]
        };
        SequenceStep {
            tokens: &self.tokens[self.computed..end],
            past: self.computed,
            blocks: self.blocks.as_ref().map_or(&[], Blocks::ids),
            sample: (end == self.tokens.len()).then_some(SampleStep {
                sampling: &self.job.sampling,
                history: &self.tokens,
                index: self.generated() as u64,
                banned,
                drafts: self.drafts,
            }),
        }
    }

    /// Tells the client that work begins, once. Gives the number of tokens that need not be computed.
    pub(crate) fn start(&mut self, now: Instant) -> usize {
        if std::mem::replace(&mut self.started, true) {
            return 0;
        }
        self.send(Event::Started {
            at: now,
            cached_tokens: self.computed,
        });
        self.computed
    }

    /// Takes the result of a step that ran `count` of its tokens.
    pub(crate) fn advance(
        &mut self,
        count: usize,
        sampled: &[u32],
        step: StepFacts,
        share: bool,
    ) -> Advance {
        let mut advance = Advance::default();
        self.charge_prompt(self.computed, count);
        if sampled.is_empty() {
            self.computed += count;
            self.publish(share);
            return advance;
        }
        let known = self.known();
        let held = (sampled.iter().zip(&self.tokens[known..]))
            .take_while(|(sampled, draft)| sampled == draft)
            .count();
        advance.drafts = (self.drafts, held);
        self.drop_drafts();
        for token in &sampled[..=held] {
            // The one that was sampled last is not in the KV cache; those before it are.
            self.computed = self.tokens.len();
            self.tokens.push(*token);
            advance.generated += 1;
            self.owed += 1;
            advance.ended = self.tell(*token, step);
            if advance.ended {
                break;
            }
        }
        self.publish(share);
        advance
    }

    /// Prompt tokens are served once, however often they are computed.
    fn charge_prompt(&mut self, from: usize, count: usize) {
        let to = (from + count).min(self.prompt_tokens);
        self.owed += to.saturating_sub(from.max(self.charged));
        self.charged = self.charged.max(to);
    }

    /// Sends a token that was just added. True when it is the last.
    fn tell(&self, token: u32, step: StepFacts) -> bool {
        self.send(Event::Token {
            token,
            at: step.ended_at,
            batch: step.sequences,
        });
        let end = if self.job.eos.contains(&token) && !self.job.ignore_eos {
            End::Eos
        } else if self.generated() >= self.job.max_new_tokens {
            End::Length
        } else if self.tokens.len() >= step.context {
            End::Context
        } else {
            return false;
        };
        self.send(Event::Ended(end));
        true
    }

    pub(crate) fn fail(&self, failure: Failure) {
        self.send(Event::Failed(failure));
    }

    fn send(&self, event: Event) {
        // A receiver that is gone has cancelled the job, which the next step finds.
        let _ = self.events.try_send(event);
    }
}

/// What a sequence tells its client of a step.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StepFacts {
    pub(crate) sequences: usize,
    pub(crate) ended_at: Instant,
    /// Most tokens of a sequence.
    pub(crate) context: usize,
}
