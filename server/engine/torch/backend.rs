//! The libtorch engine as a [`Backend`].

use tch::{Device, Tensor};

use super::batch::{Batch, Outputs};
use super::kv_cache::KvCache;
use super::model::Model;
use crate::engine::sampler::sample;
use crate::engine::{Backend, BackendInfo, EngineError, StepOutput, StepPlan};

/// A model on a device of libtorch. Made by [`load`](super::load()).
#[derive(Debug)]
pub struct TorchBackend {
    pub(super) info: BackendInfo,
    pub(super) device: Device,
    pub(super) model: Model,
    pub(super) cache: KvCache,
}

impl Backend for TorchBackend {
    fn info(&self) -> &BackendInfo {
        &self.info
    }

    /// Samples on the CPU, from logits in 32 bits.
    fn step(&mut self, plan: &StepPlan<'_>) -> Result<StepOutput, EngineError> {
        let mut rows = self.run(plan, Outputs::Sampled)?.into_iter();
        let tokens = plan.sequences.iter().map(|sequence| {
            let Some(step) = &sequence.sample else {
                return Vec::new();
            };
            let rows = rows.by_ref().take(step.drafts + 1).enumerate();
            rows.map(|(drafts, mut row)| sample(&mut row, &step.after(drafts)))
                .collect()
        });
        Ok(StepOutput {
            tokens: tokens.collect(),
        })
    }
}

impl TorchBackend {
    /// Runs the plan and gives back the logits after each sequence's last token, `[sequences][vocabulary]` in the plan's
    /// order. Samples nothing.
    ///
    /// # Errors
    /// See [`Backend::step`].
    pub fn logits(&mut self, plan: &StepPlan<'_>) -> Result<Vec<Vec<f32>>, EngineError> {
        self.run(plan, Outputs::Last)
    }

    /// As [`logits`](Self::logits), after every token: `[tokens of all sequences][vocabulary]`.
    ///
    /// # Errors
    /// See [`Backend::step`].
    pub fn logits_all(&mut self, plan: &StepPlan<'_>) -> Result<Vec<Vec<f32>>, EngineError> {
        self.run(plan, Outputs::All)
    }

    fn run(&mut self, plan: &StepPlan<'_>, outputs: Outputs) -> Result<Vec<Vec<f32>>, EngineError> {
        plan.check(&self.info)?;
        if plan.sequences.is_empty() {
            return Ok(Vec::new());
        }
        let _no_grad = tch::no_grad_guard();
        let layout = self.model.layout(self.info.block_tokens, self.device)?;
        let batch = Batch::new(plan, outputs, layout)?;
        match self.model.forward(&batch, &mut self.cache)? {
            Some(logits) => to_rows(&logits),
            None => Ok(Vec::new()),
        }
    }
}

/// A matrix of 32-bit floats on any device as rows on the CPU.
fn to_rows(matrix: &Tensor) -> Result<Vec<Vec<f32>>, EngineError> {
    let (rows, columns) = matrix.size2()?;
    let matrix = matrix.f_to_device(Device::Cpu)?;
    (0..rows)
        .map(|row| {
            let mut values = vec![0.0; columns as usize];
            matrix
                .f_get(row)?
                .f_copy_data(&mut values, columns as usize)?;
            Ok(values)
        })
        .collect()
}
