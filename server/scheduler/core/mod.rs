//! An engine's sequences between two steps. Single-threaded, and driven by its caller: the engine thread, or a test.

mod room;

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use code_explainer_engine::{
    Backend, BlockId, EngineError, SampleStep, SequenceStep, StepOutput, StepPlan,
};

use crate::blocks::BlockPool;
use crate::policy::{Budget, Pending, share_tokens};
use crate::sequence::{Sequence, StepFacts};
use crate::speculation::{Drafting, Odds, Speculation};
use crate::waiting::Tenant;
use crate::{EngineGauges, EngineRules, Failure, StepReport};

/// Sequences that are being worked on, the backend that runs them, and the blocks that they run in.
///
/// ## Running => (Running | Paused | gone), Paused => (Running | Paused | gone)
/// A sequence gets blocks as it grows. When there are none left, who goes last gives its own back and pauses; it goes on
/// where it was, after its tokens have been computed again. Who gives its slot to another pauses too, and keeps its blocks
/// until they are needed. [`turns`](super::turns) says who that is.
pub(super) struct Core {
    backend: Box<dyn Backend>,
    rules: EngineRules,
    context: usize,
    pool: BlockPool,
    /// In the order in which they came to run.
    running: Vec<Sequence>,
    paused: Vec<Sequence>,
    budget: Budget,
    pub(super) speculation: Speculation,
    gauges: Arc<EngineGauges>,
    /// Sequences that gave their slot or their blocks away since the last report.
    paused_since: usize,
    preempted_since: usize,
    /// Tokens that were served to tenants whose sequences are gone.
    served: Vec<(Tenant, usize)>,
}

impl Core {
    pub(super) fn new(
        backend: Box<dyn Backend>,
        rules: EngineRules,
        gauges: Arc<EngineGauges>,
    ) -> Self {
        let info = backend.info();
        let pool = BlockPool::new(info.blocks, info.block_tokens);
        let context = info.context_length.min(pool.capacity_tokens());
        let core = Self {
            backend,
            rules,
            context,
            pool,
            running: Vec::new(),
            paused: Vec::new(),
            budget: Budget::new(rules.step.tokens, rules.target_itl),
            speculation: Speculation::default(),
            gauges,
            paused_since: 0,
            preempted_since: 0,
            served: Vec::new(),
        };
        core.publish();
        core
    }

    pub(super) fn is_idle(&self) -> bool {
        self.running.is_empty() && self.paused.is_empty()
    }

    /// Runs one step, which began at `now` and has taken the time `spent` before the backend runs it, if that is simulated.
    /// `None` if there was nothing to run.
    pub(super) fn tick(&mut self, now: Instant, spent: Duration) -> Option<StepReport> {
        self.publish();
        let report = self.step(now, spent);
        self.publish();
        report
    }

    /// The model's own test of itself, between two steps: see [`warm_up`]. Where no block is free, steps are the test.
    ///
    /// # Errors
    /// What the step failed of.
    pub(super) fn self_test(&mut self) -> Result<(), EngineError> {
        let mut blocks = self.pool.empty();
        if !blocks.grow(1) {
            return Ok(());
        }
        self.gauges.vitals.begin();
        let result = forward_one(&mut *self.backend, blocks.ids());
        self.gauges.vitals.end(result.is_ok());
        result.map(drop)
    }

    /// Ends everything.
    pub(super) fn fail_all(&mut self, failure: Failure) {
        for sequence in self.running.drain(..).chain(self.paused.drain(..)) {
            sequence.fail(failure);
        }
        self.publish();
    }

    fn step(&mut self, now: Instant, spent: Duration) -> Option<StepReport> {
        let mut report = StepReport::default();
        let decoding = self.running.iter().any(Sequence::decodes);
        let mut shares = self.shares(decoding);
        self.get_blocks(&mut shares);
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
        self.gauges.vitals.begin();
        let result = run(&mut *self.backend, &StepPlan { sequences: &steps });
        self.gauges.vitals.end(result.is_ok());
        report.duration = spent + began.elapsed();
        report.preempted = std::mem::take(&mut self.preempted_since);
        report.paused = std::mem::take(&mut self.paused_since);
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
        if self.rules.prefix_cache {
            self.wait_for_prefixes(&mut pending);
        }
        let mut order: Vec<usize> = (0..pending.len()).collect();
        order.sort_by(|&a, &b| self.running[a].claim().order(&self.running[b].claim()));
        let shares = share_tokens(&pending, &order, self.budget.tokens(decoding));
        for ((sequence, pending), &share) in self.running.iter_mut().zip(&pending).zip(&shares) {
            sequence.keep_drafts(share.saturating_sub(pending.tokens));
        }
        shares
    }

    fn propose_drafts(&mut self) {
        let drafting = self.rules.speculation;
        if drafting == Drafting::Never {
            return;
        }
        let context = self.context;
        let mut decoding: Vec<_> = (self.running.iter_mut())
            .filter(|sequence| sequence.decodes())
            .collect();
        let acceptance = &self.speculation.acceptance;
        let odds: Vec<_> = (decoding.iter_mut())
            .map(|s| s.propose(context, acceptance))
            .collect();
        let chosen = match drafting {
            Drafting::Always => odds.iter().map(Odds::len).collect(),
            Drafting::Never | Drafting::WherePays => self.speculation.choose(&odds),
        };
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

    fn learn(&mut self, report: &StepReport, decoding: bool) {
        self.budget.done(report.rows(), decoding, report.duration);
        let costs = &mut self.speculation.costs;
        if report.prefill_tokens == 0 {
            costs.observe(report.rows(), report.duration);
        } else {
            costs.observe_prefill(report.rows(), report.duration);
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
        let share = self.rules.prefix_cache;
        let (mut tokens, mut shares) = (output.tokens.iter(), shares.iter());
        self.running.retain_mut(|sequence| {
            let Some(&count) = shares.next().filter(|s| **s > 0) else {
                return true;
            };
            let sampled = tokens.next().map_or(&[][..], Vec::as_slice);
            sequence.judge_guess(sampled, &mut self.speculation.acceptance);
            let advance = sequence.advance(count, sampled, facts, share);
            self.served
                .push((sequence.tenant().clone(), sequence.take_owed()));
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
        let running = self.running.len() + self.paused.len();
        self.gauges.publish(running, &self.pool);
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

/// The model's own test of itself: a forward pass of one token, in a pool that nobody uses yet.
///
/// # Errors
/// What the step failed of.
pub(super) fn warm_up(backend: &mut dyn Backend) -> Result<Duration, EngineError> {
    forward_one(backend, &[0])
}

fn forward_one(backend: &mut dyn Backend, blocks: &[BlockId]) -> Result<Duration, EngineError> {
    let began = Instant::now();
    let step = SequenceStep {
        tokens: &[0],
        past: 0,
        blocks,
        sample: Some(SampleStep {
            sampling: &code_explainer_engine::Sampling::default(),
            history: &[0],
            index: 0,
            banned: &[],
            drafts: 0,
        }),
    };
    run(backend, &StepPlan { sequences: &[step] })?;
    Ok(began.elapsed())
}
