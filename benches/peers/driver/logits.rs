//! Logits of prompts, for comparing answers' quality.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use code_explainer_engine::{EngineKind, SequenceStep, StepPlan, native, torch};
use code_explainer_weights::Checkpoint;
use serde::{Deserialize, Serialize};

use crate::{EngineArgs, jobs};

/// Prompts whose logits are wanted, each from `first` on.
#[derive(Deserialize)]
struct Job {
    prompts: Vec<Vec<u32>>,
    first: usize,
}

#[derive(Serialize)]
struct Written {
    positions: usize,
    vocabulary: usize,
}

/// Appends the logits of each job to the file.
pub(crate) fn work(args: &EngineArgs, out: &Path) -> anyhow::Result<()> {
    let checkpoint = Checkpoint::open(&args.model)?;
    let vocabulary = checkpoint.config().vocabulary;
    let options = args.options(2048);
    let blocks: Vec<u32> = (0..128).collect();
    let mut run: Box<dyn FnMut(&StepPlan<'_>) -> anyhow::Result<Vec<f32>>> = match args.engine {
        EngineKind::Eager => {
            let mut backend = torch::load(&checkpoint, &options)?;
            Box::new(move |plan| Ok(backend.logits_all(plan)?.concat()))
        }
        _ => {
            let mut backend = native::load(&checkpoint, &options)?;
            Box::new(move |plan| Ok(backend.logits(plan)?))
        }
    };
    let mut file = BufWriter::new(File::create(out)?);
    jobs::answer(|job: Job| {
        let mut positions = 0;
        for prompt in &job.prompts {
            let sequence = SequenceStep {
                tokens: prompt,
                past: 0,
                blocks: &blocks,
                sample: None,
            };
            let logits = run(&StepPlan {
                sequences: &[sequence],
            })?;
            file.write_all(bytemuck::cast_slice(&logits[job.first * vocabulary..]))?;
            positions += prompt.len() - job.first;
        }
        file.flush()?;
        Ok(Written {
            positions,
            vocabulary,
        })
    })
}
