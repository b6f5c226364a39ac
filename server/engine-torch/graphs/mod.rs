//! Decode steps that are recorded once at start and replayed: a decode on a GPU takes longer to launch than to compute.
//!
//! Every [`Bucket`] has its own static index tensor, that a step's numbers are copied into, and a [`Graph`] recorded on it.
//! A step with fewer rows or blocks is padded, with rows that work in a scratch block. A step that no bucket holds is
//! bypassed: it runs operator by operator, and is counted.
//!
//! [`Rerun`] keeps to the same static tensors on any device and records nothing, so that all of this but capture and replay
//! is tested without a GPU.

mod buckets;
#[cfg(feature = "cuda")]
mod cuda;

use std::collections::BTreeMap;
use std::fmt;

use code_explainer_engine::{BlockId, GraphSteps, StepPlan};
use tch::{Device, Tensor};

pub(super) use buckets::{Bucket, Buckets};
#[cfg(feature = "cuda")]
pub(super) use cuda::{CudaGraph, MemoryPool};

use super::batch::{Batch, Indices, Outputs};
use super::kv_cache::KvCache;
use super::model::Model;
use crate::error::Result;

/// Work on static tensors, recorded.
pub(super) trait Graph: Sized + Send + fmt::Debug {
    /// Where the memory comes from that the work takes.
    type Pool;

    /// Runs `work` and records what it does.
    ///
    /// # Errors
    /// Those of `work`, and `EngineError::Torch` if it cannot be recorded.
    fn capture(pool: &Self::Pool, work: &dyn Fn() -> Result<Tensor>) -> Result<Self>;

    /// Does the same work, on what its static tensors hold now. `work` is that of [`capture`](Self::capture); the result
    /// holds until the next replay.
    ///
    /// # Errors
    /// `EngineError::Torch`.
    fn replay(&self, work: &dyn Fn() -> Result<Tensor>) -> Result<Tensor>;
}

/// No recording: replay runs the work.
#[derive(Debug)]
pub(super) struct Rerun;

impl Graph for Rerun {
    type Pool = ();

    fn capture((): &(), work: &dyn Fn() -> Result<Tensor>) -> Result<Self> {
        work().map(|_| Self)
    }

    fn replay(&self, work: &dyn Fn() -> Result<Tensor>) -> Result<Tensor> {
        work()
    }
}

/// Where steps are recorded, and what is left over of a KV pool for their padding.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) device: Device,
    pub(super) block_tokens: usize,
    /// A block that no sequence has.
    pub(super) scratch: BlockId,
}

/// Recorded steps, told apart from their kind of graph.
pub(super) trait Replay: Send + fmt::Debug {
    /// The logits of the plan's outputs, `[outputs, vocabulary]`; `None`, and counted, if no recorded step holds the plan.
    ///
    /// # Errors
    /// `EngineError::Torch`.
    fn forward(
        &mut self,
        model: &Model,
        cache: &KvCache,
        plan: &StepPlan<'_>,
        outputs: Outputs,
    ) -> Result<Option<Tensor>>;

    /// How many steps were replayed and bypassed.
    fn steps(&self) -> GraphSteps;
}

/// The recorded steps of a model.
#[derive(Debug)]
pub(super) struct Recorded<G> {
    buckets: Buckets,
    place: Place,
    recorded: BTreeMap<Bucket, Step<G>>,
    steps: GraphSteps,
}

#[derive(Debug)]
struct Step<G> {
    // Before what it was recorded on: fields are dropped in order.
    graph: G,
    /// Views of `indices`.
    batch: Batch,
    /// What a step's numbers are copied into.
    indices: Tensor,
}

impl<G: Graph> Recorded<G> {
    /// Records a step for each bucket.
    ///
    /// # Errors
    /// See [`Graph::capture`].
    pub(super) fn new(
        model: &Model,
        cache: &KvCache,
        buckets: Buckets,
        place: Place,
        pool: &G::Pool,
    ) -> Result<Self> {
        let nothing = StepPlan { sequences: &[] };
        let record = |bucket: Bucket| -> Result<(Bucket, Step<G>)> {
            let padding = place.indices(&nothing, bucket);
            let indices = padding.flat()?.f_to_device(place.device)?;
            let batch = Batch::new(&indices, &padding.shape(), place.block_tokens)?;
            let graph = G::capture(pool, &|| model.forward(&batch, cache))?;
            let step = Step {
                graph,
                batch,
                indices,
            };
            Ok((bucket, step))
        };
        Ok(Self {
            recorded: buckets.all().map(record).collect::<Result<_>>()?,
            buckets,
            place,
            steps: GraphSteps::default(),
        })
    }
}

impl Place {
    fn indices(&self, plan: &StepPlan<'_>, bucket: Bucket) -> Indices {
        Indices::in_bucket(
            plan,
            (bucket.rows, bucket.blocks),
            self.scratch,
            self.block_tokens,
        )
    }
}

impl<G: Graph> Replay for Recorded<G> {
    fn forward(
        &mut self,
        model: &Model,
        cache: &KvCache,
        plan: &StepPlan<'_>,
        outputs: Outputs,
    ) -> Result<Option<Tensor>> {
        let bucket = self.buckets.fit(plan, self.place.block_tokens);
        let Some((bucket, step)) = bucket.and_then(|b| Some((b, self.recorded.get_mut(&b)?)))
        else {
            self.steps.bypassed += 1;
            return Ok(None);
        };
        let indices = self.place.indices(plan, bucket);
        step.indices.f_copy_(&indices.flat()?)?;
        let logits = step.graph.replay(&|| model.forward(&step.batch, cache))?; // [bucket.rows, vocabulary]
        self.steps.replayed += 1;
        // A bucket's rows are the plan's, and then padding.
        let wanted = Tensor::f_from_slice(&outputs.rows(plan))?.f_to_device(self.place.device)?;
        Ok(Some(logits.f_index_select(0, &wanted)?))
    }

    fn steps(&self) -> GraphSteps {
        self.steps
    }
}
