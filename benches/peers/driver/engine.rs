//! The engine without anything around it: the prompts in chunks, then all sequences a token at a time.

use std::time::Instant;

use anyhow::Context;
use code_explainer_engine::{
    Backend, BlockId, SampleStep, Sampling, SequenceStep, StepPlan, native, torch,
};
use code_explainer_weights::Checkpoint;
use serde::{Deserialize, Serialize};

use crate::{EngineArgs, jobs};

const BLOCK_TOKENS: usize = 16;
const KV_CACHE_TOKENS: usize = 16384;
/// As in a server's step.
const STEP_TOKENS: usize = 256;

/// Prompts that are there at once, and how many tokens to generate for each.
#[derive(Deserialize)]
struct Job {
    prompts: Vec<Vec<u32>>,
    generate: usize,
}

#[derive(Serialize)]
struct Times {
    /// Until the last token of all.
    seconds: f64,
    /// Until each sequence has its first token.
    prefill_seconds: f64,
    prompt_tokens: usize,
    generated_tokens: usize,
}

struct Sequence {
    tokens: Vec<u32>,
    prompt: usize,
    past: usize,
    blocks: Vec<BlockId>,
}

/// Answers each job with its times.
pub(crate) fn work(args: &EngineArgs) -> anyhow::Result<()> {
    let checkpoint = Checkpoint::open(&args.model)?;
    let options = args.options(KV_CACHE_TOKENS);
    let mut backend: Box<dyn Backend> = match args.engine {
        code_explainer_engine::EngineKind::Eager => Box::new(torch::load(&checkpoint, &options)?),
        _ => Box::new(native::load(&checkpoint, &options)?),
    };
    jobs::answer(|job: Job| generate(&mut *backend, &job))
}

fn generate(backend: &mut dyn Backend, job: &Job) -> anyhow::Result<Times> {
    let mut next: BlockId = 0;
    let mut sequences: Vec<Sequence> = (job.prompts.iter())
        .map(|prompt| {
            let blocks = (prompt.len() + job.generate).div_ceil(BLOCK_TOKENS) as BlockId;
            next += blocks;
            Sequence {
                tokens: prompt.clone(),
                prompt: prompt.len(),
                past: 0,
                blocks: (next - blocks..next).collect(),
            }
        })
        .collect();
    let started = Instant::now();
    while sequences.iter().any(|s| s.past < s.prompt) {
        let mut room = STEP_TOKENS;
        let share = |s: &Sequence| {
            let tokens = (s.prompt.saturating_sub(s.past)).min(room);
            room -= tokens;
            tokens
        };
        let shares: Vec<usize> = sequences.iter().map(share).collect();
        step(backend, &mut sequences, &shares)?;
    }
    let prefill_seconds = started.elapsed().as_secs_f64();
    let ones = vec![1; sequences.len()];
    for _ in 1..job.generate {
        step(backend, &mut sequences, &ones)?;
    }
    Ok(Times {
        seconds: started.elapsed().as_secs_f64(),
        prefill_seconds,
        prompt_tokens: sequences.iter().map(|s| s.prompt).sum(),
        generated_tokens: sequences.iter().map(|s| s.tokens.len() - s.prompt).sum(),
    })
}

/// Runs each sequence as many tokens further as its share says, and appends what is sampled.
fn step(
    backend: &mut dyn Backend,
    sequences: &mut [Sequence],
    shares: &[usize],
) -> anyhow::Result<()> {
    let sampling = Sampling::default();
    let taking: Vec<usize> = (0..shares.len()).filter(|&i| shares[i] > 0).collect();
    let plan: Vec<SequenceStep<'_>> = (taking.iter())
        .map(|&i| {
            let s = &sequences[i];
            let end = s.past + shares[i];
            SequenceStep {
                tokens: &s.tokens[s.past..end],
                past: s.past,
                blocks: &s.blocks,
                sample: (end == s.tokens.len()).then_some(SampleStep {
                    sampling: &sampling,
                    history: &s.tokens,
                    index: (s.tokens.len() - s.prompt) as u64,
                    banned: &[],
                    drafts: 0,
                }),
            }
        })
        .collect();
    let sampled = backend.step(&StepPlan { sequences: &plan })?.tokens;
    for (&i, tokens) in taking.iter().zip(sampled) {
        let s = &mut sequences[i];
        s.past += shares[i];
        if s.past == s.tokens.len() {
            s.tokens
                .push(*tokens.first().context("a token was sampled")?);
        }
    }
    Ok(())
}
