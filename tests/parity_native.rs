//! The native engine computes what transformers computes on the same file.

use std::path::Path;

use code_explainer_engine::{
    Backend, BlockId, CpuShare, DeviceSpec, EngineKind, EngineOptions, SampleStep, Sampling,
    SequenceStep, StepPlan,
};
use code_explainer_engine_native::{NativeBackend, load};
use code_explainer_weights::Checkpoint;
use serde_json::Value;

use crate::common::awkward_shapes::tiny_models;

const BLOCK: usize = 16;
/// Blocks of one sequence: the longest prompt has 300 tokens, its answer 64.
const BLOCKS: usize = 24;

fn reference() -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/parity.json");
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn load_model(sequences: usize) -> NativeBackend {
    let model = std::env::var_os("CODE_EXPLAINER_MODEL").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("models/SmolLM2-135M-Instruct.Q4_1.gguf"),
        Into::into,
    );
    load(&Checkpoint::open(&model).unwrap(), &options(sequences)).unwrap()
}

fn options(sequences: usize) -> EngineOptions {
    EngineOptions {
        engine: EngineKind::Native,
        device: DeviceSpec::Cpu,
        cpu_share: CpuShare::WHOLE,
        precision: None,
        kv_precision: None,
        kv_cache_tokens: sequences * BLOCKS * BLOCK,
        block_tokens: BLOCK,
        threads: 0,
    }
}

fn numbers<T: serde::de::DeserializeOwned>(value: &Value) -> Vec<T> {
    serde_json::from_value(value.clone()).unwrap()
}

/// Blocks of a sequence, in no order.
fn blocks(sequence: usize, sequences: usize) -> Vec<BlockId> {
    (0..BLOCKS)
        .rev()
        .map(|i| (i * sequences + sequence) as BlockId)
        .collect()
}

#[test]
fn native_logits_are_those_of_transformers() {
    let reference = &reference()["logits"];
    let ids: Vec<u32> = numbers(&reference["ids"]);
    let stride = reference["stride"].as_u64().unwrap() as usize;
    let mut backend = load_model(1);
    let vocabulary = backend.info().vocabulary;
    let blocks = blocks(0, 1);
    let sequence = SequenceStep {
        tokens: &ids,
        past: 0,
        blocks: &blocks,
        sample: None,
    };
    let all = backend
        .logits(&StepPlan {
            sequences: &[sequence],
        })
        .unwrap();
    let mut worst = 0f32;
    for expected in reference["rows"].as_array().unwrap() {
        let position = expected["position"].as_u64().unwrap() as usize;
        let row = &all[position * vocabulary..][..vocabulary];
        let top = numbers::<usize>(&expected["top_ids"]);
        let strided = (0..vocabulary).step_by(stride);
        let ids = top.into_iter().chain(strided);
        let values = numbers::<f32>(&expected["top_values"]);
        let values = values
            .into_iter()
            .chain(numbers::<f32>(&expected["strided_values"]));
        for (id, value) in ids.zip(values) {
            worst = worst.max((row[id] - value).abs());
        }
        let wide = || row.iter().map(|x| f64::from(*x));
        let exponentials: f64 = wide().map(f64::exp).sum();
        let mean = 1.0 / vocabulary as f64;
        for (ours, theirs, name) in [
            (
                wide().sum::<f64>() * mean,
                expected["sum"].as_f64().unwrap() * mean,
                "mean",
            ),
            (
                wide().map(f64::abs).sum::<f64>() * mean,
                expected["abs_sum"].as_f64().unwrap() * mean,
                "mean magnitude",
            ),
            (
                exponentials.ln(),
                expected["log_sum_exp"].as_f64().unwrap(),
                "log-sum-exp",
            ),
        ] {
            assert!(
                (ours - theirs).abs() < 1e-3,
                "{name} at {position}: {ours}, not {theirs}"
            );
        }
    }
    println!("largest difference of a logit: {worst:.2e}");
    assert!(worst < 1e-3, "a logit is {worst} off");
}

#[test]
fn native_logits_are_right_for_every_architecture() {
    for model in tiny_models() {
        let (checkpoint, _files) = model.checkpoint();
        let options = EngineOptions {
            kv_cache_tokens: 64,
            block_tokens: 4,
            ..options(1)
        };
        let mut backend = load(&checkpoint, &options).unwrap();
        let blocks: Vec<BlockId> = (0..16).rev().collect();
        let sequence = SequenceStep {
            tokens: &model.ids,
            past: 0,
            blocks: &blocks,
            sample: None,
        };
        let all = backend
            .logits(&StepPlan {
                sequences: &[sequence],
            })
            .unwrap();
        let vocabulary = backend.info().vocabulary;
        for (position, expected) in &model.logits {
            let row = &all[position * vocabulary..][..vocabulary];
            let difference = |(a, b): (&f32, &f32)| (a - b).abs();
            let worst = row.iter().zip(expected).map(difference).fold(0.0, f32::max);
            println!("{} at {position}: {worst:.2e}", model.architecture);
            assert!(
                worst < 1e-4,
                "{} at {position}: {worst}",
                model.architecture
            );
        }
    }
}

#[test]
fn native_greedy_answers_are_those_of_transformers() {
    let reference = reference();
    let cases = reference["greedy"].as_array().unwrap();
    assert!(cases.len() >= 20, "{} cases", cases.len());
    let mut backend = load_model(cases.len());
    let sampling = Sampling::default();
    let mut sequences: Vec<Sequence> = (cases.iter().enumerate())
        .map(|(i, case)| Sequence {
            tokens: numbers(&case["ids"]),
            past: 0,
            blocks: blocks(i, cases.len()),
        })
        .collect();
    let expected: Vec<Vec<u32>> = cases.iter().map(|case| numbers(&case["tokens"])).collect();
    let new_tokens = expected[0].len();
    for index in 0..new_tokens {
        let steps: Vec<_> = (sequences.iter())
            .map(|s| SequenceStep {
                tokens: &s.tokens[s.past..],
                past: s.past,
                blocks: &s.blocks,
                sample: Some(SampleStep {
                    sampling: &sampling,
                    history: &s.tokens,
                    index: index as u64,
                    banned: &[],
                    drafts: 0,
                }),
            })
            .collect();
        let output = backend.step(&StepPlan { sequences: &steps }).unwrap();
        for (i, (s, tokens)) in sequences.iter_mut().zip(output.tokens).enumerate() {
            let token = tokens[0];
            let wanted = &expected[i];
            assert_eq!(
                token, wanted[index],
                "token {index} of '{}'",
                cases[i]["name"]
            );
            s.past = s.tokens.len();
            s.tokens.push(token);
        }
    }
}

/// A prompt with the answer so far.
struct Sequence {
    tokens: Vec<u32>,
    past: usize,
    blocks: Vec<BlockId>,
}
