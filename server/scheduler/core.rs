//! The scheduler's state between two steps. Single-threaded, and driven by its caller: the engine thread, or a test.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::engine::{Backend, EngineError, StepOutput, StepPlan};
use crate::scheduler::blocks::BlockPool;
use crate::scheduler::policy::{StepLimits, share_tokens};
use crate::scheduler::sequence::{Failure, Sequence};
use crate::scheduler::{Gauges, StepReport};

/// Sequences waiting and running, the backend that runs them, and the blocks that they run in.
///
/// A sequence goes waiting -> running -> gone. It is admitted when the blocks for its whole length are free, so that a
/// running sequence can always go on.
pub(super) struct Core {
    backend: Box<dyn Backend>,
    limits: StepLimits,
    context: usize,
    pool: BlockPool,
    waiting: VecDeque<Sequence>,
    running: Vec<Sequence>,
    gauges: Arc<Gauges>,
}

impl Core {
    pub(super) fn new(backend: Box<dyn Backend>, limits: StepLimits, gauges: Arc<Gauges>) -> Self {
        let info = backend.info();
        let pool = BlockPool::new(info.blocks, info.block_tokens);
        let context = info.context_length.min(pool.capacity_tokens());
        Self {
            backend,
            limits,
            context,
            pool,
            waiting: VecDeque::new(),
            running: Vec::new(),
            gauges,
        }
    }

    pub(super) fn submit(&mut self, sequence: Sequence) {
        self.waiting.push_back(sequence);
    }

    pub(super) fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.running.is_empty()
    }

    /// Retires what was cancelled, admits what fits, and runs one step. `None` if there was nothing to run.
    pub(super) fn tick(&mut self, now: Instant) -> Option<StepReport> {
        self.retire_cancelled();
        self.admit();
        self.publish();
        let report = self.step(now);
        self.publish();
        report
    }

    /// Ends everything, waiting and running.
    pub(super) fn fail_all(&mut self, failure: Failure) {
        for sequence in self.waiting.drain(..).chain(self.running.drain(..)) {
            sequence.fail(failure);
        }
        self.publish();
    }

    fn retire_cancelled(&mut self) {
        self.waiting.retain(|s| !s.is_cancelled());
        self.running.retain(|s| !s.is_cancelled());
    }

    /// First come, first served: one that does not fit yet is not overtaken, so nobody starves.
    fn admit(&mut self) {
        while self.running.len() < self.limits.sequences {
            let Some(next) = self.waiting.front() else {
                break;
            };
            let Some(blocks) = self.pool.allocate(next.capacity().min(self.context)) else {
                break;
            };
            if let Some(mut sequence) = self.waiting.pop_front() {
                sequence.admit(blocks);
                self.running.push(sequence);
            }
        }
    }

    fn step(&mut self, now: Instant) -> Option<StepReport> {
        let pending: Vec<usize> = self.running.iter().map(Sequence::pending).collect();
        let shares = share_tokens(&pending, self.limits);
        for (sequence, _) in self
            .running
            .iter_mut()
            .zip(&shares)
            .filter(|(_, s)| **s > 0)
        {
            sequence.start(now);
        }
        let active = || {
            self.running
                .iter()
                .zip(&shares)
                .filter(|(_, share)| **share > 0)
        };
        let steps: Vec<_> = active().map(|(s, share)| s.plan(*share)).collect();
        if steps.is_empty() {
            return None;
        }
        let began = Instant::now();
        let result = run(&mut *self.backend, &StepPlan { sequences: &steps });
        let duration = began.elapsed();
        let mut report = StepReport {
            sequences: steps.len(),
            duration,
            ..StepReport::default()
        };
        for step in &steps {
            match step.tokens.len() {
                1 if step.sample.is_some_and(|s| s.index > 0) => report.decode_tokens += 1,
                n => report.prefill_tokens += n,
            }
        }
        drop(steps);
        match result {
            Ok(output) => self.advance(&shares, output, now + duration, &mut report),
            Err(error) => self.fail_step(&shares, &error),
        }
        Some(report)
    }

    fn advance(
        &mut self,
        shares: &[usize],
        output: StepOutput,
        now: Instant,
        report: &mut StepReport,
    ) {
        let batch = output.tokens.len();
        let mut tokens = output.tokens.into_iter();
        let mut shares = shares.iter();
        let context = self.context;
        self.running.retain_mut(|sequence| {
            let Some(&share) = shares.next().filter(|s| **s > 0) else {
                return true;
            };
            let token = tokens.next().and_then(|t| t.first().copied());
            report.generated_tokens += usize::from(token.is_some());
            let ended = sequence.advance(share, token, batch, now, context);
            report.ended += usize::from(ended);
            !ended
        });
    }

    /// Only the sequences of the failed step are lost; what waits, and the backend, go on.
    fn fail_step(&mut self, shares: &[usize], error: &EngineError) {
        let sequences = shares.iter().filter(|share| **share > 0).count();
        tracing::error!(%error, sequences, "a step failed");
        let failure = match error {
            EngineError::OutOfMemory(_) => Failure::OutOfMemory,
            EngineError::Weights(_)
            | EngineError::Device { .. }
            | EngineError::Unrepresentable { .. }
            | EngineError::Plan(_)
            | EngineError::Broken(_)
            | EngineError::Torch(_) => Failure::Engine,
        };
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
        let blocks = (self.pool.used(), self.pool.total());
        self.gauges
            .publish(self.waiting.len(), self.running.len(), blocks);
    }
}

/// A panic in a backend is a failed step like any other.
fn run(backend: &mut dyn Backend, plan: &StepPlan<'_>) -> Result<StepOutput, EngineError> {
    let output = catch_unwind(AssertUnwindSafe(|| backend.step(plan)))
        .unwrap_or(Err(EngineError::Broken("it panicked")))?;
    if output.tokens.len() == plan.sequences.len() {
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
    let step = crate::engine::SequenceStep {
        tokens: &[0],
        past: 0,
        blocks: &[0],
        sample: Some(crate::engine::SampleStep {
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
