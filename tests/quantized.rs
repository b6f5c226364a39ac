//! Models in int8 and int4: answers that do not depend on the batch, how close they stay to fp32, and their size.

use std::sync::{Mutex, MutexGuard, OnceLock};

use code_explainer_engine::{
    Backend, BlockId, CpuShare, DeviceSpec, EngineKind, EngineOptions, Precision, SampleStep,
    Sampling, SequenceStep, StepPlan,
};
use code_explainer_engine_native::kernels::isa::Isa;
use code_explainer_engine_native::{NativeBackend, load, load_for};
use code_explainer_weights::Checkpoint;

use crate::common::awkward_shapes::{TinyModel, tiny_models};
use crate::common::divergence::divergence;

const BLOCK: usize = 16;

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

fn options(precision: Precision, threads: usize) -> EngineOptions {
    EngineOptions {
        engine: EngineKind::Native,
        device: DeviceSpec::Cpu,
        cpu_share: CpuShare::WHOLE,
        precision: Some(precision),
        kv_precision: None,
        kv_cache_tokens: 4 * 256,
        block_tokens: BLOCK,
        threads,
    }
}

/// SmolLM2 in a precision, loaded once for all tests.
fn smollm(precision: Precision) -> MutexGuard<'static, NativeBackend> {
    static MODELS: [OnceLock<Mutex<NativeBackend>>; 3] = [const { OnceLock::new() }; 3];
    let index = [Precision::Fp32, Precision::Int8, Precision::Int4]
        .iter()
        .position(|p| *p == precision)
        .expect("a precision of the native engine");
    let load = || Mutex::new(load(&smollm_checkpoint(), &options(precision, 2)).expect("loaded"));
    let model = MODELS[index].get_or_init(load).lock();
    // A test that failed while it held the model has not broken it.
    model.unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn smollm_checkpoint() -> Checkpoint {
    let default = || {
        let path = "models/SmolLM2-135M-Instruct.Q4_1.gguf";
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
    };
    let path = std::env::var_os("CODE_EXPLAINER_MODEL").map_or_else(default, Into::into);
    Checkpoint::open(&path).expect("the model (`make setup` gets it)")
}

/// Prompts about code, as token ids, with their greedy answers in fp32.
fn prompts() -> Vec<(Vec<u32>, Vec<u32>)> {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/parity.json");
    let data: serde_json::Value =
        serde_json::from_slice(&std::fs::read(path).expect("data")).expect("JSON");
    let ids = |v: &serde_json::Value| serde_json::from_value(v.clone()).expect("ids");
    let cases = data["greedy"].as_array().expect("cases").iter();
    cases.map(|c| (ids(&c["ids"]), ids(&c["tokens"]))).collect()
}

/// Logits of all tokens, alone, in chunks.
fn logits(backend: &mut NativeBackend, tokens: &[u32], chunk: usize) -> Vec<f32> {
    let size = backend.info().block_tokens;
    let blocks: Vec<BlockId> = (0..tokens.len().div_ceil(size) as u32).collect();
    let mut all = Vec::new();
    for (i, tokens) in tokens.chunks(chunk).enumerate() {
        let step = SequenceStep {
            tokens,
            past: i * chunk,
            blocks: &blocks,
            sample: None,
        };
        let plan = StepPlan { sequences: &[step] };
        all.extend(backend.logits(&plan).expect("logits"));
    }
    all
}

fn stays_close(precision: Precision, most: f64, least_agreement: f64) {
    let (mut p, mut q) = (Vec::new(), Vec::new());
    let vocabulary = smollm(precision).info().vocabulary;
    for (prompt, _) in &prompts()[2..6] {
        p.extend(logits(&mut smollm(Precision::Fp32), prompt, 256));
        q.extend(logits(&mut smollm(precision), prompt, 256));
    }
    let positions = p.len() / vocabulary;
    let (kl, same) = divergence(&p, &q, vocabulary);
    println!("{precision}: KL {kl:.5}, top-1 {same:.3} over {positions} positions");
    assert!(positions >= 300, "{positions} positions");
    assert!(kl <= most, "{precision}: KL {kl}");
    assert!(same >= least_agreement, "{precision}: top-1 {same}");
}

#[test]
fn int8_stays_close_to_fp32() {
    stays_close(Precision::Int8, 0.0061, 0.94);
}

#[test]
fn int4_on_the_files_own_blocks_stays_close_to_fp32() {
    stays_close(Precision::Int4, 0.0061, 0.94);
}

#[test]
fn weights_in_bits_take_a_fraction_of_the_memory() {
    let bytes = |p| smollm(p).info().weights_bytes as f64;
    let fp32 = bytes(Precision::Fp32);
    let (int8, int4) = (bytes(Precision::Int8) / fp32, bytes(Precision::Int4) / fp32);
    println!("of fp32: int8 {int8:.3}, int4 {int4:.3}");
    assert!(int8 <= 0.30, "int8: {int8}");
    assert!(int4 <= 0.20, "int4: {int4}");
}

/// What int8 and int4 write is, token by token, nearly always what fp32 would write next.
#[test]
fn greedy_answers_stay_sensible() {
    let prompts = &prompts()[..4];
    let sampling = Sampling::default();
    for precision in [Precision::Int8, Precision::Int4] {
        let mut texts: Vec<Vec<u32>> = prompts.iter().map(|(prompt, _)| prompt.clone()).collect();
        let blocks: Vec<Vec<BlockId>> = (0..4)
            .map(|i| (0..16).map(|b| b * 4 + i).collect())
            .collect();
        let mut past = [0; 4];
        // Held for all steps: other tests would write over the blocks.
        let mut backend = smollm(precision);
        for index in 0..24 {
            let steps: Vec<_> = (0..4)
                .map(|i| SequenceStep {
                    tokens: &texts[i][past[i]..],
                    past: past[i],
                    blocks: &blocks[i],
                    sample: Some(SampleStep {
                        sampling: &sampling,
                        history: &texts[i],
                        index,
                        banned: &[],
                        drafts: 0,
                    }),
                })
                .collect();
            let output = backend.step(&StepPlan { sequences: &steps });
            for (i, tokens) in output.expect("a step").tokens.into_iter().enumerate() {
                past[i] = texts[i].len();
                texts[i].push(tokens[0]);
            }
        }
        drop(backend);
        let (mut same, mut all) = (0, 0);
        for (text, (prompt, _)) in texts.iter().zip(prompts) {
            let mut fp32 = smollm(Precision::Fp32);
            let rows = logits(&mut fp32, text, 256);
            let rows: Vec<_> = rows.chunks_exact(fp32.info().vocabulary).collect();
            for at in prompt.len()..text.len() {
                let row = rows[at - 1];
                let largest = row.iter().copied().fold(f32::MIN, f32::max);
                same += usize::from(row[text[at] as usize] == largest);
                all += 1;
            }
        }
        println!("{precision}: {same} of {all} tokens are fp32's");
        assert!(same * 100 >= all * 93, "{precision}: {same} of {all}");
    }
}

#[test]
fn real_logits_have_the_same_bits_in_any_chunks_batch_threads_and_instructions() {
    let prompts = prompts();
    let tokens = &prompts[0].0[..12];
    for precision in [Precision::Int8, Precision::Int4] {
        let mut backend = smollm(precision);
        let vocabulary = backend.info().vocabulary;
        let expected = bits(&logits(&mut backend, tokens, 256));
        for chunk in [1, 5] {
            let cut = bits(&logits(&mut backend, tokens, chunk));
            assert!(cut == expected, "{precision} in chunks of {chunk}");
        }
        // Beside two longer ones, in the middle.
        let blocks: Vec<Vec<BlockId>> = (0..3)
            .map(|i| (0..8).rev().map(|b| b * 3 + i).collect())
            .collect();
        let texts = [&prompts[2].0[..50], tokens, &prompts[3].0[..23]];
        let steps: Vec<_> = (texts.iter().zip(&blocks))
            .map(|(tokens, blocks)| SequenceStep {
                tokens,
                past: 0,
                blocks,
                sample: None,
            })
            .collect();
        let all = backend.logits(&StepPlan { sequences: &steps });
        let mine = &all.expect("logits")[50 * vocabulary..][..expected.len()];
        assert!(bits(mine) == expected, "{precision} in a batch");
        for isa in Isa::supported() {
            backend.set_isa(isa);
            let other = bits(&logits(&mut backend, &tokens[..6], 256));
            assert!(expected[..other.len()] == other, "{precision} with {isa}");
        }
        backend.set_isa(Isa::detect());
        let one = options(precision, 1);
        let mut one = load(&smollm_checkpoint(), &one).expect("loaded");
        let other = bits(&logits(&mut one, tokens, 256));
        assert!(other == expected, "{precision} on one thread");
    }
}

/// Widths that are no multiples of 32, biases, LayerNorm, untied heads: every architecture.
#[test]
fn every_architecture_runs_in_bits_and_exactly_so() {
    let run = |model: &TinyModel, precision, threads, isa, chunk| {
        let (checkpoint, _files) = model.checkpoint();
        let mut backend = load_for(&checkpoint, &options(precision, threads), isa).expect("loaded");
        let vocabulary = backend.info().vocabulary;
        (logits(&mut backend, &model.ids, chunk), vocabulary)
    };
    for model in tiny_models() {
        let name = &model.architecture;
        let (fp32, vocabulary) = run(&model, Precision::Fp32, 1, Isa::detect(), 256);
        for (precision, most) in [(Precision::Int8, 1e-3), (Precision::Int4, 5e-2)] {
            let (expected, _) = run(&model, precision, 1, Isa::detect(), 256);
            let (kl, _) = divergence(&fp32, &expected, vocabulary);
            println!("{name} in {precision}: KL {kl:.2e}");
            assert!(kl < most, "{name} in {precision}: KL {kl}");
            for isa in Isa::supported() {
                for (threads, chunk) in [(1, 3), (3, 256)] {
                    let (other, _) = run(&model, precision, threads, isa, chunk);
                    assert!(bits(&other) == bits(&expected), "{name} {precision} {isa}");
                }
            }
        }
    }
}

#[test]
fn precisions_that_only_libtorch_has_are_refused() {
    let (checkpoint, _files) = tiny_models()[0].checkpoint();
    let error = load(&checkpoint, &options(Precision::Bf16, 1)).err();
    let error = error.expect("refused").to_string();
    assert!(error.contains("fp32, int8 and int4"), "{error}");
}
