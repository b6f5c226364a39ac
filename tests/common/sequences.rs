//! Sequences driven through a [`Backend`] without a scheduler, and the reference data to compare with.

use std::path::Path;

use code_explainer_engine::{
    Backend, BlockId, CpuShare, DeviceSpec, EngineKind, EngineOptions, Precision, SampleStep,
    Sampling, SequenceStep, StepPlan,
};
use code_explainer_engine_torch::TorchBackend;

pub(crate) const BLOCK_TOKENS: usize = 16;

/// A file of `tests/data`.
pub(crate) fn data<T: serde::de::DeserializeOwned>(name: &str) -> T {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data")
        .join(name);
    serde_json::from_slice(&std::fs::read(path).expect("reference data"))
        .expect("valid reference data")
}

/// The libtorch engine on the CPU. One thread: tests run beside each other, and libtorch's threads wait for each other by
/// spinning.
pub(crate) fn eager(kv_cache_tokens: usize, precision: Precision) -> EngineOptions {
    EngineOptions {
        engine: EngineKind::Eager,
        device: DeviceSpec::Cpu,
        cpu_share: CpuShare::WHOLE,
        precision: Some(precision),
        kv_precision: None,
        kv_cache_tokens,
        block_tokens: BLOCK_TOKENS,
        threads: 1,
    }
}

/// A prompt and its greedy answer so far, as a scheduler would carry it.
#[derive(Clone)]
pub(crate) struct Sequence {
    pub(crate) tokens: Vec<u32>,
    /// How many of the tokens were not sampled.
    pub(crate) prompt: usize,
    /// How many of the tokens are in the KV cache.
    pub(crate) past: usize,
    pub(crate) blocks: Vec<BlockId>,
}

/// Sequences with blocks from all over the pool: the blocks of one never lie together.
pub(crate) fn sequences(prompts: &[&[u32]], answer: usize) -> Vec<Sequence> {
    let most = prompts
        .iter()
        .map(|p| (p.len() + answer).div_ceil(BLOCK_TOKENS))
        .max()
        .unwrap_or(0);
    let blocks = |of: usize| {
        (0..most)
            .rev()
            .map(|i| (i * prompts.len() + of) as BlockId)
            .collect()
    };
    (prompts.iter().enumerate())
        .map(|(index, prompt)| Sequence {
            tokens: prompt.to_vec(),
            prompt: prompt.len(),
            past: 0,
            blocks: blocks(index),
        })
        .collect()
}

/// Runs each sequence up to `chunk` tokens further, in one step, and appends what is sampled.
pub(crate) fn step(backend: &mut dyn Backend, sequences: &mut [&mut Sequence], chunk: usize) {
    let sampling = Sampling::default();
    let ends: Vec<usize> = sequences
        .iter()
        .map(|s| s.tokens.len().min(s.past.saturating_add(chunk)))
        .collect();
    let steps: Vec<_> = (sequences.iter().zip(&ends))
        .map(|(s, &end)| SequenceStep {
            tokens: &s.tokens[s.past..end],
            past: s.past,
            blocks: &s.blocks,
            sample: (end == s.tokens.len()).then(|| SampleStep {
                sampling: &sampling,
                history: &s.tokens,
                index: (s.tokens.len() - s.prompt) as u64,
                banned: &[],
                drafts: 0,
            }),
        })
        .collect();
    let sampled = backend
        .step(&StepPlan { sequences: &steps })
        .expect("a step")
        .tokens;
    for ((sequence, end), tokens) in sequences.iter_mut().zip(ends).zip(sampled) {
        assert_eq!(
            tokens.len(),
            usize::from(end == sequence.tokens.len()),
            "sampled when asked to, and only then"
        );
        sequence.past = end;
        sequence.tokens.extend(tokens);
    }
}

/// Logits after every token that the sequence has, of which none was run before.
pub(crate) fn logits_all(backend: &mut TorchBackend, sequence: &Sequence) -> Vec<Vec<f32>> {
    let Sequence {
        tokens,
        past,
        blocks,
        ..
    } = sequence;
    let step = SequenceStep {
        tokens,
        past: *past,
        blocks,
        sample: None,
    };
    backend
        .logits_all(&StepPlan { sequences: &[step] })
        .expect("a step")
}
