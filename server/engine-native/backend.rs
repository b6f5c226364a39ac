//! The native engine as a [`Backend`].

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use code_explainer_engine::sampler::sample;
use code_explainer_engine::{
    Backend, BackendInfo, EngineError, SequenceStep, StepOutput, StepPlan,
};

use super::batch::{Batch, OutputRow};
use super::kernels::Compute;
use super::kernels::isa::Isa;
use super::kernels::kv::KvPool;
use super::kernels::matrix::{MatrixMut, for_each_row};
use super::model::{Activations, HEAD_ROWS, Model};
use super::profile::{Operator, Profile};

/// A model in this process's memory, run by this process's threads. Made by [`load`](super::load).
pub struct NativeBackend {
    pub(super) info: BackendInfo,
    /// Most tokens of a sequence: the context, or what the pool holds.
    pub(super) max_tokens: usize,
    pub(super) compute: Compute,
    pub(super) model: Model,
    pub(super) kv: KvPool,
    pub(super) activations: Activations,
    pub(super) batch: Batch,
    pub(super) profile: Profile,
}

impl Backend for NativeBackend {
    fn info(&self) -> &BackendInfo {
        &self.info
    }

    fn step(&mut self, plan: &StepPlan<'_>) -> Result<StepOutput, EngineError> {
        self.check(plan)?;
        let vocabulary = self.info.vocabulary;
        let mut tokens = vec![Vec::new(); plan.sequences.len()];
        let wanted = |s: &SequenceStep<'_>, token: usize| s.sampled().contains(&token);
        self.run(plan, wanted, |compute, rows, mut logits| {
            let sampled = [const { AtomicU32::new(0) }; HEAD_ROWS];
            for_each_row(&compute.pool, &mut logits, |i, logits| {
                let sequence = &plan.sequences[rows[i].sequence];
                if let Some(step) = &sequence.sample {
                    let step = step.after(rows[i].token - sequence.sampled().start);
                    let token = sample(&mut logits[..vocabulary], &step);
                    sampled[i].store(token, Ordering::Relaxed);
                }
            });
            for (row, token) in rows.iter().zip(sampled) {
                tokens[row.sequence].push(token.into_inner());
            }
        });
        Ok(StepOutput { tokens })
    }
}

impl NativeBackend {
    /// Goes on with other instructions; the packed weights are the same for all. Changes speed, not a bit of any answer.
    pub fn set_isa(&mut self, isa: Isa) {
        self.compute.isa = isa;
    }

    /// Keeps the times of steps by operator from now on, or stops to. Costs a clock reading per operator while it is on.
    pub fn profile(&mut self, on: bool) {
        self.profile.set(on);
    }

    /// The times by operator since the last call or since profiling began, in the order of a pass; empty if it is off.
    pub fn take_profile(&mut self) -> Vec<(&'static str, Duration)> {
        self.profile.take()
    }

    /// Runs the plan and gives back the logits of every token in it, `[tokens of all sequences][vocabulary]`; samples
    /// nothing. For tests and quality measurements.
    ///
    /// # Errors
    /// See [`Backend::step`].
    pub fn logits(&mut self, plan: &StepPlan<'_>) -> Result<Vec<f32>, EngineError> {
        self.check(plan)?;
        let vocabulary = self.info.vocabulary;
        let mut all = Vec::new();
        self.run(
            plan,
            |_, _| true,
            |_, _, mut logits| {
                for i in 0..logits.rows() {
                    all.extend_from_slice(&logits.row_mut(i)[..vocabulary]);
                }
            },
        );
        Ok(all)
    }

    /// Runs the plan in passes; calls `sink` with the wanted rows and their logits, in the plan's order.
    fn run(
        &mut self,
        plan: &StepPlan<'_>,
        wanted: impl Fn(&SequenceStep<'_>, usize) -> bool,
        mut sink: impl FnMut(&Compute, &[OutputRow], MatrixMut<'_>),
    ) {
        let (block_tokens, tile_rows) = (self.info.block_tokens, self.model.attention.tile_rows());
        self.batch.clear();
        for (index, sequence) in plan.sequences.iter().enumerate() {
            let mut done = 0;
            while done < sequence.tokens.len() {
                let end = sequence.tokens.len().min(done + self.batch.room());
                let row = self
                    .batch
                    .push(sequence, (done, end), block_tokens, tile_rows);
                let outputs = (done..end)
                    .filter(|&token| wanted(sequence, token))
                    .map(|token| OutputRow {
                        row: row + token - done,
                        sequence: index,
                        token,
                    });
                self.batch.outputs.extend(outputs);
                done = end;
                if self.batch.room() == 0 {
                    self.pass(&mut sink);
                }
            }
        }
        if self.batch.rows() > 0 {
            self.pass(&mut sink);
        }
    }

    fn pass(&mut self, sink: &mut impl FnMut(&Compute, &[OutputRow], MatrixMut<'_>)) {
        let Self {
            compute,
            model,
            kv,
            activations,
            batch,
            profile,
            ..
        } = self;
        model.forward(compute, batch, kv, activations, profile);
        for outputs in batch.outputs.chunks(HEAD_ROWS) {
            let rows = outputs.iter().map(|o| o.row);
            let logits = model.logits(compute, rows, activations, profile);
            sink(compute, outputs, logits);
            profile.lap(Operator::Sample);
        }
        batch.clear();
    }

    fn check(&self, plan: &StepPlan<'_>) -> Result<(), EngineError> {
        plan.check(&self.info)?;
        // Scratch is for sequences that the pool can hold; a longer one would name a block twice.
        let end = |s: &SequenceStep<'_>| s.past + s.tokens.len();
        match plan.sequences.iter().position(|s| end(s) > self.max_tokens) {
            None => Ok(()),
            Some(number) => Err(EngineError::Plan(format!(
                "sequence {number}: the KV pool holds {} tokens, not {}",
                self.max_tokens,
                end(&plan.sequences[number])
            ))),
        }
    }
}
