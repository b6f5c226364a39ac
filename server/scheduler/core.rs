//! An engine's sequences between two steps. Single-threaded, and driven by its caller: the engine thread, or a test.

use std::collections::{HashSet, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::engine::{Backend, EngineError, SampleStep, SequenceStep, StepOutput, StepPlan};
use crate::scheduler::blocks::BlockPool;
use crate::scheduler::policy::{Budget, Pending, share_tokens};
use crate::scheduler::sequence::{Failure, Sequence, StepFacts};
use crate::scheduler::speculation::{StepCosts, choose_drafts};
use crate::scheduler::{EngineGauges, SchedulerOptions, StepReport};

/// Sequences that are being worked on, the backend that runs them, and the blocks that they run in.
///
/// ## Running => (Running | Preempted | gone), Preempted => (Running | gone)
/// A sequence gets blocks as it grows. When there are none left, the youngest gives its own back and waits, before all
/// that are still in the queue; it goes on where it was, after its tokens have been computed again.
pub(super) struct Core {
    backend: Box<dyn Backend>,
    options: SchedulerOptions,
    context: usize,
    pool: BlockPool,
    /// Oldest first.
    running: Vec<Sequence>,
    /// Oldest first; all are younger than those that run.
    preempted: VecDeque<Sequence>,
    budget: Budget,
    pub(super) costs: StepCosts,
    gauges: Arc<EngineGauges>,
}

impl Core {
    pub(super) fn new(
        backend: Box<dyn Backend>,
        options: SchedulerOptions,
        gauges: Arc<EngineGauges>,
    ) -> Self {
        let info = backend.info();
        let pool = BlockPool::new(info.blocks, info.block_tokens);
        let context = info.context_length.min(pool.capacity_tokens());
        let core = Self {
            backend,
            options,
            context,
            pool,
            running: Vec::new(),
            preempted: VecDeque::new(),
            budget: Budget::new(options.step.tokens, options.target_itl),
            costs: StepCosts::new(),
            gauges,
        };
        core.publish();
        core
    }

    pub(super) fn is_idle(&self) -> bool {
        self.running.is_empty() && self.preempted.is_empty()
    }

    /// Tokens that may be left to run; `None` if no more sequences are wanted.
    pub(super) fn load(&self) -> Option<usize> {
        let room = self.preempted.is_empty() && self.has_room();
        room.then(|| self.running.iter().map(Sequence::load).sum())
    }

    /// Whether the sequence could be admitted now: its known tokens fit, beside what the running ones still need for
    /// theirs, and a block more for each of those.
    pub(super) fn fits(&self, sequence: &mut Sequence) -> bool {
        if !self.has_room() {
            return false;
        }
        sequence.reuse_prefix(&self.pool, self.options.prefix_cache);
        let promised: usize = (self.running.iter())
            .map(|s| s.missing_blocks(&self.pool) + 1)
            .sum();
        let needed = promised + sequence.missing_blocks(&self.pool);
        // Alone it always fits: it has been made sure that no sequence is longer than the pool.
        self.running.is_empty() || needed <= self.pool.available()
    }

    fn has_room(&self) -> bool {
        let limits = self.options.step;
        self.running.len() < limits.sequences.min(self.budget.tokens(true))
    }

    /// Works on it from the next step on.
    pub(super) fn admit(&mut self, mut sequence: Sequence) {
        sequence.leave_queue();
        self.running.push(sequence);
    }

    /// Retires what was cancelled, takes up what was preempted, and runs one step. `None` if there was nothing to run.
    pub(super) fn tick(&mut self, now: Instant) -> Option<StepReport> {
        self.running.retain(|s| !s.is_cancelled());
        self.preempted.retain(|s| !s.is_cancelled());
        while let Some(mut next) = self.preempted.pop_front() {
            if !self.fits(&mut next) {
                next.preempt();
                self.preempted.push_front(next);
                break;
            }
            self.running.push(next);
        }
        self.publish();
        let report = self.step(now);
        self.publish();
        report
    }

    /// Ends everything.
    pub(super) fn fail_all(&mut self, failure: Failure) {
        for sequence in self.running.drain(..).chain(self.preempted.drain(..)) {
            sequence.fail(failure);
        }
        self.publish();
    }

    fn step(&mut self, now: Instant) -> Option<StepReport> {
        let mut report = StepReport::default();
        let decoding = self.running.iter().any(Sequence::decodes);
        let mut shares = self.shares(decoding);
        self.get_blocks(&mut shares, &mut report);
        let mut steps = Vec::new();
        for (sequence, &share) in self.running.iter_mut().zip(&shares) {
            if share > 0 {
                report.cached_tokens += sequence.start(now);
                steps.push(sequence.plan(share));
            }
        }
        if steps.is_empty() {
            return None;
        }
        report.count(&steps);
        let graph_steps = self.backend.graph_steps();
        let began = Instant::now();
        let result = run(&mut *self.backend, &StepPlan { sequences: &steps });
        report.duration = began.elapsed();
        report.graph_steps = self.backend.graph_steps().since(graph_steps);
        drop(steps);
        match result {
            Ok(output) => {
                self.learn(&report, decoding);
                self.advance(&shares, &output, now + report.duration, &mut report);
            }
            Err(error) => self.fail_step(&shares, report.rows(), &error),
        }
        Some(report)
    }

    /// How many tokens of each running sequence to run.
    fn shares(&mut self, decoding: bool) -> Vec<usize> {
        self.propose_drafts();
        let mut pending: Vec<Pending> = self.running.iter().map(Sequence::pending).collect();
        if self.options.prefix_cache {
            self.wait_for_prefixes(&mut pending);
        }
        let shares = share_tokens(&pending, self.budget.tokens(decoding));
        for ((sequence, pending), &share) in self.running.iter_mut().zip(&pending).zip(&shares) {
            sequence.keep_drafts(share.saturating_sub(pending.tokens));
        }
        shares
    }

    fn propose_drafts(&mut self) {
        if !self.options.speculation {
            return;
        }
        let context = self.context;
        let mut decoding: Vec<_> = (self.running.iter_mut())
            .filter(|sequence| sequence.decodes())
            .collect();
        let drafts: Vec<_> = decoding.iter_mut().map(|s| s.propose(context)).collect();
        let chosen = choose_drafts(&drafts, &self.costs);
        for (sequence, count) in decoding.into_iter().zip(chosen) {
            sequence.keep_drafts(count);
        }
    }

    /// A prompt whose next block an older one is about to compute waits for it.
    fn wait_for_prefixes(&mut self, pending: &mut [Pending]) {
        let mut coming = HashSet::new();
        for (sequence, pending) in self.running.iter_mut().zip(pending) {
            if pending.tokens < 2 {
                continue;
            }
            sequence.reuse_prefix(&self.pool, true);
            *pending = sequence.pending();
            let names = sequence.coming();
            if names.first().is_some_and(|next| coming.contains(next)) {
                pending.tokens = 0;
            } else {
                coming.extend(names.iter().copied());
            }
        }
    }

    /// Gets the blocks for the shares, oldest sequence first; the youngest pay for them if there are too few.
    fn get_blocks(&mut self, shares: &mut Vec<usize>, report: &mut StepReport) {
        let mut index = 0;
        while index < self.running.len() {
            let sequence = &mut self.running[index];
            if sequence.grow(shares[index]) {
                index += 1;
            } else if sequence.pending().drafts > 0 {
                sequence.drop_drafts();
                shares[index] = shares[index].min(sequence.pending().tokens);
            } else if let Some(mut youngest) = self.running.pop() {
                shares.pop();
                youngest.preempt();
                self.preempted.push_front(youngest);
                report.preempted += 1;
            }
        }
    }

    fn learn(&mut self, report: &StepReport, decoding: bool) {
        self.budget.done(report.rows(), decoding, report.duration);
        if report.prefill_tokens == 0 {
            self.costs.observe(report.rows(), report.duration);
        }
    }

    fn advance(
        &mut self,
        shares: &[usize],
        output: &StepOutput,
        ended_at: Instant,
        report: &mut StepReport,
    ) {
        let facts = StepFacts {
            sequences: output.tokens.len(),
            ended_at,
            context: self.context,
        };
        let share = self.options.prefix_cache;
        let (mut tokens, mut shares) = (output.tokens.iter(), shares.iter());
        self.running.retain_mut(|sequence| {
            let Some(&count) = shares.next().filter(|s| **s > 0) else {
                return true;
            };
            let sampled = tokens.next().map_or(&[][..], Vec::as_slice);
            let advance = sequence.advance(count, sampled, facts, share);
            report.generated_tokens += advance.generated;
            report.accepted_tokens += advance.drafts.1;
            report.ended += usize::from(advance.ended);
            !advance.ended
        });
    }

    /// A step that ran out of memory is tried again, smaller, down to one token. Otherwise only the sequences of the
    /// failed step are lost; what waits, and the backend, go on.
    fn fail_step(&mut self, shares: &[usize], rows: usize, error: &EngineError) {
        let failure = match error {
            EngineError::OutOfMemory(_) => {
                self.budget.out_of_memory(rows);
                if rows > 1 {
                    tracing::warn!(%error, rows, "a step ran out of memory; trying a smaller one");
                    return;
                }
                Failure::OutOfMemory
            }
            EngineError::Weights(_)
            | EngineError::Device { .. }
            | EngineError::Module { .. }
            | EngineError::Unrepresentable { .. }
            | EngineError::Plan(_)
            | EngineError::Broken(_)
            | EngineError::Torch(_) => Failure::Engine,
        };
        let sequences = shares.iter().filter(|share| **share > 0).count();
        tracing::error!(%error, sequences, "a step failed");
        let mut shares = shares.iter();
        self.running.retain(|sequence| {
            let hit = shares.next().is_some_and(|share| *share > 0);
            if hit {
                sequence.fail(failure);
            }
            !hit
        });
    }

    fn publish(&self) {
        self.gauges.publish(
            self.running.len() + self.preempted.len(),
            self.pool.used(),
            self.pool.idle(),
            self.pool.total(),
        );
    }
}

impl StepReport {
    /// Tokens that the step ran through the model.
    pub fn rows(&self) -> usize {
        self.prefill_tokens + self.decode_tokens + self.draft_tokens
    }

    fn count(&mut self, steps: &[SequenceStep<'_>]) {
        self.sequences = steps.len();
        for step in steps {
            let drafts = step.sample.map_or(0, |s| s.drafts);
            self.draft_tokens += drafts;
            match step.tokens.len() - drafts {
                1 if step.sample.is_some_and(|s| s.index > 0) => self.decode_tokens += 1,
                n => self.prefill_tokens += n,
            }
        }
    }
}

/// A panic in a backend is a failed step like any other.
fn run(backend: &mut dyn Backend, plan: &StepPlan<'_>) -> Result<StepOutput, EngineError> {
    let output = catch_unwind(AssertUnwindSafe(|| backend.step(plan)))
        .unwrap_or(Err(EngineError::Broken("it panicked")))?;
    let wanted = |step: &SequenceStep<'_>| step.sample.map_or(0, |s| s.drafts + 1);
    let fits = output.tokens.len() == plan.sequences.len()
        && (output.tokens.iter().zip(plan.sequences)).all(|(t, s)| t.len() == wanted(s));
    if fits {
        Ok(output)
    } else {
        Err(EngineError::Broken("it answered for another plan"))
    }
}

/// The model's own test of itself: a forward pass of one token.
///
/// # Errors
/// What the step failed of.
pub(super) fn warm_up(backend: &mut dyn Backend) -> Result<Duration, EngineError> {
    let began = Instant::now();
    let step = SequenceStep {
        tokens: &[0],
        past: 0,
        blocks: &[0],
        sample: Some(SampleStep {
            sampling: &crate::engine::Sampling::default(),
            history: &[0],
            index: 0,
            banned: &[],
            drafts: 0,
        }),
    };
    run(backend, &StepPlan { sequences: &[step] })?;
    Ok(began.elapsed())
}
