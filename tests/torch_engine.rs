//! The libtorch engine on tiny models: every architecture is right, and what cannot be done is refused by name.

use std::collections::HashMap;

use code_explainer_engine::{
    Backend, BlockId, CpuShare, DeviceSpec, EngineError, EngineOptions, Precision, SequenceStep,
    StepPlan,
};
use code_explainer_engine_torch::load;
use code_explainer_weights::{Architecture, Checkpoint};
use serde::Deserialize;
use serde_json::Value;
use tempfile::TempDir;

use crate::common::model_files::{TinyModel, safetensors};
use crate::common::sequences::{data, eager, logits_all, sequences, step};

#[derive(Deserialize)]
struct Tiny {
    prompt: Vec<u32>,
    cases: Vec<TinyCase>,
}

#[derive(Deserialize)]
struct TinyCase {
    name: String,
    architecture: String,
    config: HashMap<String, Value>,
    rows: Vec<TinyRow>,
    tokens: Vec<u32>,
}

#[derive(Deserialize)]
struct TinyRow {
    position: usize,
    values: Vec<f32>,
}

fn tiny(architecture: &str) -> TinyModel {
    let family = Architecture::ALL
        .into_iter()
        .find(|a| a.as_str() == architecture);
    TinyModel::new(family.expect("a known architecture"))
}

#[test]
fn every_architecture_is_that_of_transformers() {
    let Tiny { prompt, cases } = data("parity_tiny.json");
    for case in cases {
        let mut model = tiny(&case.architecture);
        model.tied_head = case.config.get("tie_word_embeddings") != Some(&Value::Bool(false));
        let directory = TempDir::new().expect("a temporary directory");
        model.write_hugging_face(directory.path(), 2);
        let mut config = model.config_json();
        for (key, value) in case.config {
            config[key] = value;
        }
        std::fs::write(directory.path().join("config.json"), config.to_string()).expect("write");
        let checkpoint = Checkpoint::open(directory.path()).expect("a model");
        let mut backend = load(&checkpoint, &eager(64, Precision::Fp32)).expect("load");
        let info = backend.info();
        assert_eq!(
            info.weights_bytes,
            4 * info.parameters,
            "{}: tied weights count once",
            case.name
        );
        assert_eq!(info.architecture, case.architecture);

        let rows = logits_all(&mut backend, &sequences(&[&prompt], 16)[0]);
        for TinyRow { position, values } in case.rows {
            let differences = rows[position]
                .iter()
                .zip(&values)
                .map(|(a, b)| (a - b).abs());
            let worst = differences.fold(0f32, f32::max);
            println!(
                "{} at {position}: largest difference of a logit {worst:.1e}",
                case.name
            );
            assert!(
                worst < 1e-4,
                "{} at {position}: a logit is {worst} off",
                case.name
            );
        }
        for chunk in [1, 5, 24] {
            let mut sequence = sequences(&[&prompt], 16).remove(0);
            while sequence.tokens.len() < prompt.len() + 16 {
                step(&mut backend, &mut [&mut sequence], chunk);
            }
            assert_eq!(
                sequence.tokens[24..],
                case.tokens,
                "{} in chunks of {chunk}",
                case.name
            );
        }
    }
}

#[test]
fn what_a_block_held_before_does_not_reach_its_next_owner() {
    const POISON: u32 = 7;
    let model = tiny("llama").untied();
    let directory = TempDir::new().expect("a temporary directory");
    model.write_hugging_face(directory.path(), 1);
    let mut tensors = model.safetensors();
    let embedding = tensors
        .iter_mut()
        .find(|t| t.name == "model.embed_tokens.weight")
        .expect("it has one");
    let row = 4 * model.hidden;
    embedding.data[POISON as usize * row..][..row]
        .copy_from_slice(&f32::NAN.to_le_bytes().repeat(model.hidden));
    std::fs::write(
        directory.path().join("model.safetensors"),
        safetensors::to_bytes(&tensors),
    )
    .expect("write");
    let checkpoint = Checkpoint::open(directory.path()).expect("a model");
    let mut backend = load(&checkpoint, &eager(64, Precision::Fp32)).expect("load");

    let step = |tokens, past, blocks| SequenceStep {
        tokens,
        past,
        blocks,
        sample: None,
    };
    let poisoned = backend
        .logits(&StepPlan {
            sequences: &[step(&[POISON; 16], 0, &[2])],
        })
        .expect("a step");
    assert!(
        poisoned[0].iter().all(|logit| logit.is_nan()),
        "the poison works"
    );
    let (long, short) = ([3; 12], [4; 2]);
    let prompts = [step(&long, 0, &[0]), step(&short, 0, &[2])];
    backend
        .logits(&StepPlan {
            sequences: &prompts,
        })
        .expect("a step");
    let together = [step(&[5], 12, &[0]), step(&[6], 2, &[2])];
    let together = backend
        .logits(&StepPlan {
            sequences: &together,
        })
        .expect("a step");
    let alone = backend
        .logits(&StepPlan {
            sequences: &[step(&[4, 4, 6], 0, &[1])],
        })
        .expect("a step");
    for (a, b) in together[1].iter().zip(&alone[0]) {
        assert!((a - b).abs() < 1e-4, "{a} beside a neighbour, {b} alone");
    }
}

#[test]
fn a_plan_that_does_not_fit_is_refused() {
    let directory = TempDir::new().expect("a temporary directory");
    tiny("gpt2").write_hugging_face(directory.path(), 1);
    let checkpoint = Checkpoint::open(directory.path()).expect("a model");
    let mut backend = load(&checkpoint, &eager(160, Precision::Fp32)).expect("load");
    let tokens = [1; 40];
    let many: Vec<BlockId> = (0..10).collect();
    let step = |tokens, past, blocks| SequenceStep {
        tokens,
        past,
        blocks,
        sample: None,
    };
    let good = step(&tokens[..3], 0, &many[..1]);
    for (steps, word) in [
        (vec![step(&[], 0, &many)], "no tokens"),
        (vec![step(&[272], 0, &many)], "vocabulary"),
        (vec![step(&tokens, 89, &many)], "context"),
        (vec![step(&tokens, usize::MAX, &many)], "context"),
        (vec![step(&tokens, 0, &many[..2])], "blocks"),
        (vec![good, step(&tokens[..1], 0, &[10])], "pool"),
        (vec![good, good], "twice"),
    ] {
        let error = backend
            .step(&StepPlan { sequences: &steps })
            .expect_err(word);
        assert!(
            matches!(&error, EngineError::Plan(why) if why.contains(word)),
            "{word}: {error}"
        );
    }
    assert_eq!(
        backend
            .step(&StepPlan { sequences: &[] })
            .expect("no work")
            .tokens,
        Vec::<Vec<u32>>::new()
    );
    assert_eq!(
        backend
            .step(&StepPlan { sequences: &[good] })
            .expect("a step")
            .tokens,
        [Vec::<u32>::new()]
    );
}

#[test]
fn what_cannot_be_had_is_named() {
    let directory = TempDir::new().expect("a temporary directory");
    tiny("llama").write_hugging_face(directory.path(), 1);
    let checkpoint = Checkpoint::open(directory.path()).expect("a model");
    let good = eager(64, Precision::Fp32);
    let error = |options: &EngineOptions| load(&checkpoint, options).expect_err("it cannot be had");
    let cuda = error(&EngineOptions {
        device: DeviceSpec::Cuda(99),
        cpu_share: CpuShare::WHOLE,
        ..good.clone()
    });
    assert!(
        matches!(&cuda, EngineError::Device { device, .. } if device == "cuda:99"),
        "{cuda}"
    );
    let empty = error(&EngineOptions {
        kv_cache_tokens: 0,
        ..good.clone()
    });
    assert!(matches!(empty, EngineError::Device { .. }), "{empty}");
    for kv_cache_tokens in [1 << 44, usize::MAX] {
        let huge = error(&EngineOptions {
            kv_cache_tokens,
            ..good.clone()
        });
        assert!(matches!(huge, EngineError::OutOfMemory(_)), "{huge}");
    }
}
