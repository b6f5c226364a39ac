//! One item on its way through the engine, and the ends of the channel that it speaks through.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use tokio::sync::{mpsc, watch};

use crate::engine::{SampleStep, Sampling, SequenceStep};
use crate::scheduler::Place;
use crate::scheduler::blocks::{BlockPool, Blocks, Name};
use crate::scheduler::lookup::Lookup;
use crate::scheduler::policy::Pending;
use crate::scheduler::speculation::{Acceptance, MOST_DRAFTS};
use crate::scheduler::ticket::{End, Event, Failure, Ticket};
use crate::scheduler::turns::{Claim, Standing};
use crate::scheduler::waiting::{Priority, Rank, Size, Tenant};

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
pub(super) struct Sequence {
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
    names: Vec<Name>,
    /// How many of `blocks` others may read.
    published: usize,
    lookup: Lookup,
    acceptance: Acceptance,
    events: mpsc::Sender<Event>,
    cancelled: Arc<AtomicBool>,
    tenant: Tenant,
    rank: Rank,
    /// Its tenant's, as of the last look at the ledger.
    pub(super) standing: Standing,
    /// Given back when it leaves the queue, and with it the way to tell its place.
    waits: Option<(Place, watch::Sender<usize>)>,
    started: bool,
    /// Prompt tokens that its tenant has been charged for: those that are computed again are not.
    charged: usize,
    /// Tokens that its tenant has not been charged for yet.
    owed: usize,
}

/// What a step gave a sequence.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Advance {
    /// Tokens that were generated.
    pub(super) generated: usize,
    /// Drafts that were run, and those of them that held.
    pub(super) drafts: (usize, usize),
    /// No more tokens will come.
    pub(super) ended: bool,
}

impl Sequence {
    /// A sequence and its ticket. The channel holds every event that a job can have, so that sending never waits.
    pub(super) fn new(mut job: Job, place: Place, rank: Rank, now: Instant) -> (Self, Ticket) {
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
            lookup: Lookup::default(),
            acceptance: Acceptance::default(),
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
        (sequence, Ticket::new(events, position, cancelled, now))
    }

    pub(super) fn tenant(&self) -> &Tenant {
        &self.tenant
    }

    pub(super) fn rank(&self) -> Rank {
        self.rank
    }

    pub(super) fn claim(&self) -> Claim<'_> {
        Claim {
            tenant: &self.tenant,
            rank: self.rank,
            standing: self.standing,
        }
    }

    pub(super) fn size(&self) -> Size {
        Size {
            prompt: self.prompt_tokens,
            answer: self.job.max_new_tokens,
        }
    }

    /// The way to its client, for when the one who works on it cannot be reached any more.
    pub(super) fn outlet(&self) -> mpsc::Sender<Event> {
        self.events.clone()
    }

    /// Tells how many are before it, if that has changed.
    pub(super) fn tell_position(&self, position: usize) {
        if let Some((_, tell)) = &self.waits {
            tell.send_if_modified(|told| std::mem::replace(told, position) != position);
        }
    }

    /// Tokens that were served since it was asked last.
    pub(super) fn take_owed(&mut self) -> usize {
        std::mem::take(&mut self.owed)
    }

    /// Whether it holds blocks.
    pub(super) fn has_blocks(&self) -> bool {
        self.blocks.as_ref().is_some_and(|b| !b.ids().is_empty())
    }

    pub(super) fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Acquire) || self.events.is_closed()
    }

    /// It waits no more: its place in the queue is free.
    pub(super) fn leave_queue(&mut self) {
        self.waits = None;
    }

    /// Tokens that are not guesses.
    fn known(&self) -> usize {
        self.tokens.len() - self.drafts
    }

    pub(super) fn pending(&self) -> Pending {
        Pending {
            tokens: self.known() - self.computed,
            drafts: self.drafts,
            brief: self.standing.is_brief(),
        }
    }

    /// Its answer grows by a token in each step.
    pub(super) fn decodes(&self) -> bool {
        self.known() - self.computed == 1 && self.generated() > 0
    }

    pub(super) fn generated(&self) -> usize {
        self.known() - self.prompt_tokens
    }

    /// Tokens that may be run until it ends.
    pub(super) fn load(&self) -> usize {
        self.known() - self.computed + self.job.max_new_tokens - self.generated()
    }

    /// Whether no token of it was run since it has its blocks.
    fn is_fresh(&self) -> bool {
        let held = self.blocks.as_ref().map_or(0, |b| b.ids().len());
        self.computed == self.published * self.block_tokens() && held == self.published
    }

    fn block_tokens(&self) -> usize {
        (self.blocks.as_ref()).map_or(1, |blocks| blocks.pool().block_tokens())
    }

    /// Takes the blocks of the pool that hold the beginning of its tokens; again, as others compute more of them, until
    /// its own first step. The last token is always left, to be run for its logits.
    pub(super) fn reuse_prefix(&mut self, pool: &BlockPool, share: bool) {
        if self.blocks.is_none() {
            self.blocks = Some(pool.empty());
        }
        if !share || !self.is_fresh() {
            return;
        }
        let held = self.published;
        let full = (self.known() - 1) / pool.block_tokens();
        if held == full {
            return;
        }
        self.name_blocks(full, pool.block_tokens());
        let found = pool.reuse(&self.names[..full]);
        if found.ids().len() > held {
            self.published = found.ids().len();
            self.computed = self.published * pool.block_tokens();
            self.blocks = Some(found);
        }
    }

    fn name_blocks(&mut self, count: usize, block_tokens: usize) {
        while self.names.len() < count {
            let at = self.names.len() * block_tokens;
            let root = || Name::root(&self.job.salt);
            let before = self.names.last().copied().unwrap_or_else(root);
            let name = before.then(&self.tokens[at..at + block_tokens]);
            self.names.push(name);
        }
    }

    /// Names of the full blocks of its known tokens that it has not computed yet.
    pub(super) fn coming(&self) -> &[Name] {
        let computed = self.computed / self.block_tokens();
        self.names.get(computed..).unwrap_or(&[])
    }

    /// Blocks that it needs and does not have, to run all its known tokens and one more.
    pub(super) fn missing_blocks(&self, pool: &BlockPool) -> usize {
        let held = self.blocks.as_ref().map_or(0, |b| b.ids().len());
        pool.blocks_for(self.known() + 1).saturating_sub(held)
    }

    /// Gets the blocks for `count` more tokens. False, and nothing changes, if there are too few.
    pub(super) fn grow(&mut self, count: usize) -> bool {
        let tokens = self.computed + count;
        self.blocks.as_mut().is_some_and(|b| b.grow(tokens))
    }

    /// Gives its blocks back. What it has said stays said; the rest is computed again.
    pub(super) fn preempt(&mut self) {
        self.drop_drafts();
        self.blocks = None;
        self.computed = 0;
        self.published = 0;
    }

    /// How many drafts may be tried now: all that they could give must be wanted, and no token may be banned after some
    /// of them only.
    fn most_drafts(&self, context: usize) -> usize {
        let generated = self.generated();
        let until_end = self.job.max_new_tokens.saturating_sub(generated + 1);
        let until_full = context.saturating_sub(self.known() + 1);
        let until_allowed = match self.job.min_new_tokens.checked_sub(generated) {
            None | Some(0) => usize::MAX,
            Some(left) => left - 1,
        };
        MOST_DRAFTS
            .min(until_end)
            .min(until_full)
            .min(until_allowed)
    }

    /// Guesses what comes next. Gives how many tokens were guessed and how likely each is to hold if those before it do.
    pub(super) fn propose(&mut self, context: usize) -> (usize, f64) {
        self.drop_drafts();
        let most = self.most_drafts(context);
        if most > 0 {
            let draft = self.lookup.draft(&self.tokens, most).to_vec();
            self.drafts = draft.len();
            self.tokens.extend(draft);
        }
        (self.drafts, self.acceptance.probability())
    }

    /// Keeps only the first `count` drafts.
    pub(super) fn keep_drafts(&mut self, count: usize) {
        if count == 0 && self.drafts > 0 {
            self.acceptance.forget();
        }
        self.tokens.truncate(self.known() + count.min(self.drafts));
        self.drafts = count.min(self.drafts);
    }

    /// Keeps no draft.
    pub(super) fn drop_drafts(&mut self) {
        self.tokens.truncate(self.known());
        self.drafts = 0;
    }

    /// Its share of a step that runs `count` of the pending tokens; those of its drafts that are not in it are dropped
    /// before.
    pub(super) fn plan(&self, count: usize) -> SequenceStep<'_> {
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
    pub(super) fn start(&mut self, now: Instant) -> usize {
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
    pub(super) fn advance(
        &mut self,
        count: usize,
        sampled: &[u32],
        step: StepFacts,
        share: bool,
    ) -> Advance {
        let mut advance = Advance::default();
        self.owe_prompt(self.computed, count);
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
        self.acceptance.observe(self.drafts, held);
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
    fn owe_prompt(&mut self, from: usize, count: usize) {
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

    /// Lets others have the blocks that are full now.
    fn publish(&mut self, share: bool) {
        let block_tokens = self.block_tokens();
        let full = self.computed / block_tokens;
        if !share || full <= self.published {
            return;
        }
        self.name_blocks(full, block_tokens);
        if let Some(blocks) = &mut self.blocks {
            for index in self.published..full {
                blocks.publish(index, self.names[index]);
            }
        }
        self.published = full;
    }

    pub(super) fn fail(&self, failure: Failure) {
        self.send(Event::Failed(failure));
    }

    fn send(&self, event: Event) {
        // A receiver that is gone has cancelled the job, which the next step finds.
        let _ = self.events.try_send(event);
    }
}

/// What a sequence tells its client of a step.
#[derive(Debug, Clone, Copy)]
pub(super) struct StepFacts {
    pub(super) sequences: usize,
    pub(super) ended_at: Instant,
    /// Most tokens of a sequence.
    pub(super) context: usize,
}
