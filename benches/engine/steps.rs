//! Steps of the engine alone: as fast as they go by batch, and where their time goes.

use std::time::{Duration, Instant};

use code_explainer_engine::{
    Backend, BlockId, CpuShare, DeviceSpec, EngineKind, EngineOptions, Precision, SampleStep,
    Sampling, SequenceStep, StepPlan,
};
use code_explainer_engine_native::{self, NativeBackend};
use code_explainer_weights::Checkpoint;

/// Sequences of a step, what each runs, and what it has in the KV cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) sequences: usize,
    pub(crate) tokens: usize,
    pub(crate) past: usize,
}

/// Tokens that a decoding sequence has behind it: in the middle of workload A's answers.
const PAST: usize = 152;

impl Shape {
    pub(crate) const fn decode(sequences: usize) -> Self {
        Self {
            sequences,
            tokens: 1,
            past: PAST,
        }
    }

    pub(crate) const fn prefill(tokens: usize) -> Self {
        Self {
            sequences: 1,
            tokens,
            past: 0,
        }
    }

    pub(crate) fn rows(self) -> usize {
        self.sequences * self.tokens
    }
}

/// How to load the engine in a precision.
pub(crate) fn options(precision: Precision, kv_cache_tokens: usize) -> EngineOptions {
    EngineOptions {
        engine: EngineKind::Native,
        device: DeviceSpec::Cpu,
        cpu_share: CpuShare::WHOLE,
        precision: Some(precision),
        kv_precision: None,
        kv_cache_tokens,
        block_tokens: 16,
        threads: 0,
    }
}

/// A loaded engine, and plans for it.
pub(crate) struct Engine {
    pub(crate) precision: Precision,
    backend: NativeBackend,
}

impl Engine {
    pub(crate) fn load(
        checkpoint: &Checkpoint,
        precision: Precision,
    ) -> Result<Self, Box<dyn std::error::Error>> {
        let backend = native::load(checkpoint, &options(precision, 32 * 256))?;
        Ok(Self { precision, backend })
    }

    pub(crate) fn weights_bytes(&self) -> u64 {
        self.backend.info().weights_bytes
    }

    pub(crate) fn kv_pool_bytes(&self) -> u64 {
        self.backend.info().kv_pool_bytes
    }

    /// Runs a step and gives its time.
    pub(crate) fn step(&mut self, shape: Shape) -> Result<Duration, Box<dyn std::error::Error>> {
        let each = (shape.past + shape.tokens).div_ceil(self.backend.info().block_tokens);
        // Blocks of a sequence lie far from each other, as they do in a busy server.
        let blocks: Vec<Vec<BlockId>> = (0..shape.sequences)
            .map(|s| {
                (0..each)
                    .map(|i| (i * shape.sequences + s) as BlockId)
                    .collect()
            })
            .collect();
        let vocabulary = self.backend.info().vocabulary;
        let tokens: Vec<u32> = (0..shape.tokens)
            .map(|i| (i * 7919 % (vocabulary - 100) + 50) as u32)
            .collect();
        let sampling = Sampling::default();
        let steps: Vec<_> = (blocks.iter())
            .map(|blocks| SequenceStep {
                tokens: &tokens,
                past: shape.past,
                blocks,
                sample: Some(SampleStep {
                    sampling: &sampling,
                    history: &tokens,
                    index: 1,
                    banned: &[],
                    drafts: 0,
                }),
            })
            .collect();
        let began = Instant::now();
        std::hint::black_box(self.backend.step(&StepPlan { sequences: &steps })?);
        Ok(began.elapsed())
    }

    /// Seconds of a step by operator: for each the median of some steps.
    pub(crate) fn profile(
        &mut self,
        shape: Shape,
        steps: usize,
    ) -> Result<Vec<(&'static str, f64)>, Box<dyn std::error::Error>> {
        self.step(shape)?;
        self.backend.profile(true);
        let mut laps = Vec::new();
        for _ in 0..steps {
            self.step(shape)?;
            laps.push(self.backend.take_profile());
        }
        self.backend.profile(false);
        let operators = laps[0].iter().enumerate().map(|(i, (name, _))| {
            let times = laps.iter().map(|lap| lap[i].1.as_secs_f64()).collect();
            (*name, median(times))
        });
        Ok(operators.collect())
    }
}

/// The argument that asks for [`fastest`].
pub(crate) const FLAG: &str = "--steps";

/// The fastest of many steps of some shapes, whole and by operator: what two builds are compared by on a machine that
/// is not quiet.
pub(crate) fn fastest(
    checkpoint: &Checkpoint,
    precision: Precision,
) -> Result<(), Box<dyn std::error::Error>> {
    const STEPS: usize = 60;
    let mut engine = Engine::load(checkpoint, precision)?;
    let decodes = [1, 2, 8, 16, 32].map(Shape::decode);
    for shape in decodes.into_iter().chain([Shape::prefill(256)]) {
        engine.step(shape)?;
        let mut whole = Duration::MAX;
        for _ in 0..STEPS {
            whole = whole.min(engine.step(shape)?);
        }
        engine.backend.profile(true);
        let mut parts: Vec<(&str, Duration)> = Vec::new();
        for _ in 0..STEPS {
            engine.step(shape)?;
            let laps = engine.backend.take_profile();
            match parts.is_empty() {
                true => parts = laps,
                false => (parts.iter_mut().zip(laps)).for_each(|(a, b)| a.1 = a.1.min(b.1)),
            }
        }
        engine.backend.profile(false);
        let parts = parts
            .iter()
            .map(|(name, d)| format!("{name} {:.2}", d.as_secs_f64() * 1e3));
        println!(
            "{:>2} x {:<3} {:>7.2} ms   {}",
            shape.sequences,
            shape.tokens,
            whole.as_secs_f64() * 1e3,
            parts.collect::<Vec<_>>().join("  ")
        );
    }
    Ok(())
}

/// The middle one.
///
/// # Panics
/// If there is none.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
