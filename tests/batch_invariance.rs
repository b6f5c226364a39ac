//! The native engine's answers do not depend on what else is in the batch, on how prompts are cut, on where the KV
//! blocks lie, on the number of threads, nor on the instruction set: not in a single bit.

use code_explainer_engine::{
    Backend, BlockId, CpuShare, DeviceSpec, EngineError, EngineKind, EngineOptions, KvPrecision,
    SequenceStep, StepPlan,
};
use code_explainer_engine_native::kernels::Compute;
use code_explainer_engine_native::kernels::gemm::{PackedF32, gemm};
use code_explainer_engine_native::kernels::isa::Isa;
use code_explainer_engine_native::kernels::matrix::{Matrix, MatrixMut};
use code_explainer_engine_native::kernels::panels::Epilogue;
use code_explainer_engine_native::pool::Pool;
use code_explainer_engine_native::{NativeBackend, load_for};
use proptest::prelude::*;

use crate::common::awkward_shapes::{TinyModel, tiny_models};

const SEQUENCES: usize = 4;
/// Attention adds up spans of 64 tokens.
const MAX_TOKENS: usize = 120;
const KV_PRECISIONS: &[KvPrecision] = &[
    KvPrecision::Fp32,
    KvPrecision::Bf16,
    KvPrecision::Fp16,
    KvPrecision::Int8,
];

fn options(threads: usize, block_tokens: usize, kv_precision: KvPrecision) -> EngineOptions {
    EngineOptions {
        engine: EngineKind::Native,
        device: DeviceSpec::Cpu,
        cpu_share: CpuShare::WHOLE,
        precision: None,
        kv_precision: Some(kv_precision),
        kv_cache_tokens: SEQUENCES * MAX_TOKENS,
        block_tokens,
        threads,
    }
}

fn backend(model: &TinyModel, options: &EngineOptions, isa: Isa) -> NativeBackend {
    let (checkpoint, _files) = model.checkpoint();
    load_for(&checkpoint, options, isa).unwrap()
}

/// The bits of all logits of `tokens`, run alone, in one chunk, with blocks in order.
fn alone(backend: &mut NativeBackend, tokens: &[u32]) -> Vec<u32> {
    let blocks: Vec<BlockId> =
        (0..tokens.len().div_ceil(backend.info().block_tokens) as u32).collect();
    let sequence = SequenceStep {
        tokens,
        past: 0,
        blocks: &blocks,
        sample: None,
    };
    bits(
        &backend
            .logits(&StepPlan {
                sequences: &[sequence],
            })
            .unwrap(),
    )
}

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

/// Random sequences, and for each step how many tokens each of them moves on: 0 while it has not joined or pauses.
fn schedule() -> impl Strategy<Value = (Vec<Vec<u32>>, Vec<[usize; SEQUENCES]>)> {
    let tokens = prop::collection::vec(0u32..130, 1..MAX_TOKENS);
    let chunk = prop_oneof![2 => Just(0), 3 => Just(1), 2 => 2usize..20, 1 => 20usize..90];
    (
        prop::collection::vec(tokens, SEQUENCES),
        prop::collection::vec(prop::array::uniform4(chunk), 1..40),
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn logits_have_the_same_bits_alone_and_in_any_schedule(
        which in 0usize..3,
        (sequences, steps) in schedule(),
        shuffled in Just((0..(SEQUENCES * MAX_TOKENS) as BlockId).collect::<Vec<_>>()).prop_shuffle(),
        block_tokens in prop_oneof![Just(3usize), Just(16), Just(20)],
        kv_precision in prop::sample::select(KV_PRECISIONS),
    ) {
        let model = &tiny_models()[which];
        let isa = Isa::detect();
        let mut reference = backend(model, &options(1, 16, kv_precision), isa);
        let mut busy = backend(model, &options(2, block_tokens, kv_precision), isa);
        let pool = busy.info().blocks;
        let per_sequence = pool / SEQUENCES;
        let scattered: Vec<BlockId> = shuffled.into_iter().filter(|b| (*b as usize) < pool).collect();
        let vocabulary = busy.info().vocabulary;
        let fits = |t: &Vec<u32>| t[..t.len().min(per_sequence * block_tokens)].to_vec();
        let sequences: Vec<Vec<u32>> = sequences.iter().map(fits).collect();
        let expected: Vec<_> = sequences.iter().map(|t| alone(&mut reference, t)).collect();
        let mut past = [0; SEQUENCES];
        // The schedule, then single tokens until all are through.
        let rest = std::iter::repeat_n([1; SEQUENCES], MAX_TOKENS);
        for step in steps.into_iter().chain(rest) {
            let running: Vec<usize> =
                (0..SEQUENCES).filter(|&i| step[i] > 0 && past[i] < sequences[i].len()).collect();
            let plan: Vec<_> = running.iter().map(|&i| SequenceStep {
                tokens: &sequences[i][past[i]..sequences[i].len().min(past[i] + step[i])],
                past: past[i],
                blocks: &scattered[i * per_sequence..][..per_sequence],
                sample: None,
            }).collect();
            let mut logits = &bits(&busy.logits(&StepPlan { sequences: &plan }).unwrap())[..];
            for (&i, step) in running.iter().zip(&plan) {
                let (mine, others) = logits.split_at(step.tokens.len() * vocabulary);
                let at = past[i] * vocabulary;
                prop_assert!(mine == &expected[i][at..][..mine.len()], "sequence {} from {}", i, past[i]);
                logits = others;
                past[i] += step.tokens.len();
            }
        }
        prop_assert!((0..SEQUENCES).all(|i| past[i] == sequences[i].len()));
    }

    #[test]
    fn products_have_the_same_bits_for_any_rows_threads_and_instructions(
        rows in 1usize..130,
        inputs in 1usize..80,
        outputs in prop::collection::vec(1usize..150, 1..3),
        values in prop::collection::vec(-1.0f32..1.0, 997),
        add in any::<bool>(),
    ) {
        let value = |i: usize| values[i % values.len()];
        let pack = || PackedF32::pack(inputs, &outputs, "test", |part, rows, out| {
            for (i, w) in out.iter_mut().enumerate() {
                *w = value(part * 31 + rows.start * inputs + i);
            }
        }).unwrap();
        let bias: Vec<Vec<f32>> = outputs.iter().map(|&n| (0..n).map(value).collect()).collect();
        let w = pack().with_bias(&bias);
        let x: Vec<f32> = (0..rows * inputs).map(|i| value(i * 7 + 3)).collect();
        let (epilogue, initial) = if add { (Epilogue::Add, 0.5) } else { (Epilogue::Store, 0.0) };
        // The definition: one chain of fused multiply-adds from the bias up.
        let padded = w.padded_outputs();
        let mut expected = vec![initial; rows * padded];
        for row in 0..rows {
            let mut column = 0;
            for (part, bias) in bias.iter().enumerate() {
                for (output, &bias) in bias.iter().enumerate() {
                    // Rows come in panels of 64, each filled from its own start.
                    let at = part * 31 + output / 64 * 64 * inputs + output % 64 * inputs;
                    let product = (0..inputs).fold(bias, |sum, k| x[row * inputs + k].mul_add(value(at + k), sum));
                    expected[row * padded + column + output] = if add { initial + product } else { product };
                }
                column += bias.len().next_multiple_of(64);
            }
        }
        for isa in Isa::supported() {
            for threads in [1, 2] {
                let compute = Compute { pool: Pool::new(threads).unwrap(), isa };
                let mut y = vec![initial; rows * padded];
                let matrix = Matrix::new(&x, rows, inputs);
                gemm(&compute, matrix, &w, &mut MatrixMut::new(&mut y, rows, padded), epilogue);
                prop_assert!(bits(&y) == bits(&expected), "{} with {} threads", isa, threads);
            }
        }
    }
}

#[test]
fn every_instruction_set_and_number_of_threads_gives_the_same_bits() {
    let models = tiny_models();
    let all = |model| KV_PRECISIONS.iter().map(move |&kv| (model, kv));
    for (model, kv_precision) in models.iter().flat_map(all) {
        // Over several spans, and past their ends.
        let tokens: Vec<u32> = model.ids.iter().copied().cycle().take(MAX_TOKENS).collect();
        let mut results = Vec::new();
        for isa in Isa::supported() {
            for threads in [1, 2, 3] {
                let mut backend = backend(model, &options(threads, 16, kv_precision), isa);
                results.push((alone(&mut backend, &tokens), isa, threads));
            }
        }
        for (result, isa, threads) in &results {
            let same = *result == results[0].0;
            let name = &model.architecture;
            assert!(same, "{name}: {isa}, {threads} threads, {kv_precision}");
        }
    }
}

#[test]
fn a_plan_that_does_not_fit_is_refused_and_leaves_the_engine_usable() {
    let model = &tiny_models()[0];
    let options = EngineOptions {
        kv_cache_tokens: 12 * 16,
        ..options(2, 16, KvPrecision::Fp32)
    };
    let mut backend = backend(model, &options, Isa::detect());
    let before = alone(&mut backend, &model.ids);
    let blocks: Vec<BlockId> = (0..12).collect();
    let long = vec![1; 13 * 16];
    let repeated: Vec<BlockId> = vec![0; 16];
    for (tokens, past, blocks) in [
        (&[][..], 0, &blocks[..]),
        (&[1][..], 16, &blocks[..1]),
        (&[1][..], usize::MAX, &blocks),
        (&[u32::MAX][..], 0, &blocks),
        (&[1][..], 0, &[12]),
        (&long[..], 0, &blocks),
        (&long[..1], 200, &repeated),
    ] {
        let sequence = SequenceStep {
            tokens,
            past,
            blocks,
            sample: None,
        };
        let error = backend
            .step(&StepPlan {
                sequences: &[sequence],
            })
            .unwrap_err();
        assert!(matches!(error, EngineError::Plan(_)), "{error}");
    }
    assert_eq!(alone(&mut backend, &model.ids), before);
}
