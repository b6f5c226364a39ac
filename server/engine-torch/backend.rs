//! The libtorch engine as a [`Backend`].

use tch::{Device, Tensor};

use code_explainer_engine::sampler::sample;
use code_explainer_engine::{
    Backend, BackendInfo, BlockId, EngineError, GraphSteps, StepOutput, StepPlan,
};

use super::batch::{Grouping, Indices, Outputs};
use super::graphs::{Buckets, Graph, Place, Recorded, Replay, Rerun};
use super::kv_cache::KvCache;
use super::model::Model;
use super::torchscript::Script;
use crate::error;

/// A model on a device of libtorch. Made by [`load`](super::load()).
#[derive(Debug)]
pub struct TorchBackend {
    pub(super) info: BackendInfo,
    pub(super) device: Device,
    pub(super) network: Network,
    /// The pool of `info`, and one block more: padding of recorded steps works there.
    pub(super) cache: KvCache,
    pub(super) recorded: Option<Box<dyn Replay>>,
}

/// What computes logits.
#[derive(Debug)]
pub(super) enum Network {
    /// Operator by operator.
    Eager(Model),
    /// A traced module.
    Script(Script),
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

    fn graph_steps(&self) -> GraphSteps {
        let recorded = self.recorded.as_ref();
        recorded
            .map(|recorded| recorded.steps())
            .unwrap_or_default()
    }
}

impl TorchBackend {
    /// Runs the plan and gives back the logits after each sequence's last token, `[sequences][vocabulary]` in the plan's
    /// order. Samples nothing.
    ///
    /// # Errors
    /// See [`Backend::step`].
    pub fn logits(&mut self, plan: &StepPlan<'_>) -> Result<Vec<Vec<f32>>, EngineError> {
        Ok(self.run(plan, Outputs::Last)?)
    }

    /// As [`logits`](Self::logits), after every token: `[tokens of all sequences][vocabulary]`.
    ///
    /// # Errors
    /// See [`Backend::step`].
    pub fn logits_all(&mut self, plan: &StepPlan<'_>) -> Result<Vec<Vec<f32>>, EngineError> {
        Ok(self.run(plan, Outputs::All)?)
    }

    /// From now on, steps of at most `most_rows` tokens run on static tensors in buckets, as they do in CUDA graphs, but without
    /// a recording: what of that can be tested on any device. Only for the eager engine.
    ///
    /// # Errors
    /// See [`Backend::step`].
    pub fn step_in_buckets(&mut self, most_rows: usize) -> Result<(), EngineError> {
        Ok(self.record::<Rerun>(most_rows, &())?)
    }

    /// Records the steps of at most `most_rows` rows.
    pub(super) fn record<G: Graph + 'static>(
        &mut self,
        most_rows: usize,
        pool: &G::Pool,
    ) -> error::Result<()> {
        let Network::Eager(model) = &self.network else {
            return Ok(());
        };
        let _no_grad = tch::no_grad_guard();
        let info = &self.info;
        let longest = info.context_length.div_ceil(info.block_tokens);
        let place = Place {
            device: self.device,
            block_tokens: info.block_tokens,
            scratch: info.blocks as BlockId,
        };
        let buckets = Buckets::new(most_rows, longest.min(info.blocks));
        let recorded = Recorded::<G>::new(model, &self.cache, buckets, place, pool)?;
        self.recorded = Some(Box::new(recorded));
        Ok(())
    }

    fn run(&mut self, plan: &StepPlan<'_>, outputs: Outputs) -> error::Result<Vec<Vec<f32>>> {
        plan.check(&self.info)?;
        if plan.sequences.is_empty() {
            return Ok(Vec::new());
        }
        let _no_grad = tch::no_grad_guard();
        let block_tokens = self.info.block_tokens;
        let logits = match &self.network {
            Network::Eager(model) => {
                if let Some(recorded) = &mut self.recorded
                    && let Some(logits) = recorded.forward(model, &self.cache, plan, outputs)?
                {
                    return to_rows(&logits);
                }
                let indices = Indices::new(plan, outputs, Grouping::Any, block_tokens);
                model.forward(&indices.batch(self.device)?, &self.cache)?
            }
            Network::Script(script) => {
                let indices = Indices::new(plan, outputs, Grouping::Two, block_tokens);
                script.forward(indices.batch(self.device)?, &self.cache)?
            }
        };
        to_rows(&logits)
    }
}

/// A matrix of 32-bit floats on any device as rows on the CPU.
fn to_rows(matrix: &Tensor) -> error::Result<Vec<Vec<f32>>> {
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
