//! A traced module answers as the eager engine does, for any batch, and a file that is not this model's module is refused.

use std::path::{Path, PathBuf};

use code_explainer_engine::{
    Backend, DeviceSpec, EngineError, EngineKind, EngineOptions, Precision,
};
use code_explainer_engine_torch::{TorchBackend, export_torchscript, load};
use code_explainer_weights::{Architecture, Checkpoint};
use serde::Deserialize;
use tempfile::TempDir;

use crate::common::model_files::TinyModel;
use crate::common::programs::{output, server};
use crate::common::sequences::{Sequence, data, eager, logits_all, sequences, step};
use crate::common::smollm;

#[derive(Deserialize)]
struct Reference {
    greedy: Vec<Greedy>,
}

#[derive(Deserialize)]
struct Greedy {
    name: String,
    ids: Vec<u32>,
    tokens: Vec<u32>,
}

fn served(path: &Path, kv_cache_tokens: usize) -> EngineOptions {
    EngineOptions {
        engine: EngineKind::TorchScript(path.to_owned()),
        precision: None,
        ..eager(kv_cache_tokens, Precision::Fp32)
    }
}

fn tiny(architecture: Architecture) -> (Checkpoint, TempDir) {
    let directory = TempDir::new().expect("a temporary directory");
    TinyModel::new(architecture).write_hugging_face(directory.path(), 1);
    let checkpoint = Checkpoint::open(directory.path()).expect("a model");
    (checkpoint, directory)
}

fn export(checkpoint: &Checkpoint, precision: Precision, directory: &Path) -> PathBuf {
    let path = directory.join("module.pt");
    export_torchscript(checkpoint, DeviceSpec::Cpu, Some(precision), &path).expect("exported");
    path
}

/// Greedy answers of sequences that join one after the other and are run in chunks, so that steps mix everything.
fn answers(
    backend: &mut TorchBackend,
    prompts: &[&[u32]],
    length: usize,
    chunk: usize,
) -> Vec<Vec<u32>> {
    let mut all = sequences(prompts, length);
    for steps in 0.. {
        let mut running: Vec<&mut Sequence> = (all.iter_mut().enumerate())
            .filter(|(i, s)| steps >= 2 * i && s.tokens.len() < s.prompt + length)
            .map(|(_, s)| s)
            .collect();
        if running.is_empty() {
            break;
        }
        step(backend, &mut running, chunk);
    }
    all.into_iter()
        .map(|s| s.tokens[s.prompt..].to_vec())
        .collect()
}

#[test]
fn every_architecture_and_precision_answers_as_the_eager_engine_does() {
    let prompt = |length: u32, seed: u32| (0..length).map(|i| (i * seed + 3) % 200).collect();
    let prompts: [Vec<u32>; 4] = [prompt(40, 7), prompt(3, 11), prompt(17, 13), prompt(1, 1)];
    let prompts: Vec<&[u32]> = prompts.iter().map(Vec::as_slice).collect();
    for architecture in Architecture::ALL {
        let (checkpoint, directory) = tiny(architecture);
        for precision in [
            Precision::Fp32,
            Precision::Bf16,
            Precision::Int8,
            Precision::Int4,
        ] {
            let path = export(&checkpoint, precision, directory.path());
            let mut module = load(&checkpoint, &served(&path, 512)).expect("loaded");
            let mut reference = load(&checkpoint, &eager(512, precision)).expect("loaded");
            assert_eq!(
                module.info(),
                reference.info(),
                "{architecture} {precision}"
            );
            // Whatever was traced, one token alone and a chunk that fills blocks are not it.
            for tokens in [&prompts[3], &prompts[0]] {
                let sequence = &sequences(&[tokens], 0)[0];
                let (ours, theirs) = (
                    logits_all(&mut module, sequence),
                    logits_all(&mut reference, sequence),
                );
                let differences = ours
                    .iter()
                    .flatten()
                    .zip(theirs.iter().flatten())
                    .map(|(a, b)| (a - b).abs());
                let worst = differences.fold(0f32, f32::max);
                let most = match precision {
                    Precision::Fp32 => 1e-4,
                    _ => 0.05,
                };
                assert!(
                    worst < most,
                    "{architecture} {precision}: a logit is {worst} off"
                );
            }
            if precision == Precision::Fp32 {
                let expected = answers(&mut reference, &prompts, 20, 64);
                for chunk in [1, 5, 64] {
                    let ours = answers(&mut module, &prompts, 20, chunk);
                    assert_eq!(ours, expected, "{architecture} in chunks of {chunk}");
                }
            }
        }
    }
}

#[test]
fn smollm_as_a_module_gives_the_answers_of_transformers() {
    const LENGTH: usize = 16;
    let directory = TempDir::new().expect("a temporary directory");
    let path = export(smollm::checkpoint(), Precision::Fp32, directory.path());
    let bytes = std::fs::metadata(&path).expect("a module").len();
    let mut module = load(smollm::checkpoint(), &served(&path, 4096)).expect("loaded");
    let weights = module.info().weights_bytes;
    assert!(
        bytes < weights + weights / 20,
        "{bytes} bytes for {weights} of weights: shared ones are there once"
    );
    let cases = &data::<Reference>("parity.json").greedy[..6];
    let prompts: Vec<&[u32]> = cases.iter().map(|case| case.ids.as_slice()).collect();
    for (case, answer) in cases.iter().zip(answers(&mut module, &prompts, LENGTH, 24)) {
        assert_eq!(
            answer,
            case.tokens[..LENGTH],
            "the answer to '{}'",
            case.name
        );
    }
    let mut reference = load(smollm::checkpoint(), &eager(4096, Precision::Fp32)).expect("loaded");
    let sequence = &sequences(&prompts[..1], 0)[0];
    let (ours, theirs) = (
        logits_all(&mut module, sequence),
        logits_all(&mut reference, sequence),
    );
    let differences = ours
        .iter()
        .flatten()
        .zip(theirs.iter().flatten())
        .map(|(a, b)| (a - b).abs());
    let worst = differences.fold(0f32, f32::max);
    println!("largest difference of a logit from the eager engine: {worst:.2e}");
    assert!(worst < 1e-3, "a logit is {worst} off");
}

#[test]
fn what_is_not_this_models_module_is_refused() {
    let (checkpoint, directory) = tiny(Architecture::Llama);
    let (other, _files) = tiny(Architecture::Qwen2);
    let path = export(&checkpoint, Precision::Fp32, directory.path());
    let description = directory.path().join("module.pt.json");
    let (module, text) = (
        std::fs::read(&path).expect("a module"),
        std::fs::read_to_string(&description).expect("a description"),
    );
    let refused = |checkpoint: &Checkpoint, options: &EngineOptions, said: &[&str]| {
        let error = load(checkpoint, options).expect_err(said[0]);
        assert!(matches!(error, EngineError::Module { .. }), "{error}");
        let error = error.to_string();
        for said in said.iter().chain(&["module.pt"]) {
            assert!(error.contains(said), "'{said}' is not in: {error}");
        }
    };
    let options = served(&path, 64);
    refused(&other, &options, &["another model", "llama", "qwen2"]);
    let missing = directory.path().join("no-module.pt");
    refused(&checkpoint, &served(&missing, 64), &["no such file"]);
    let lower = EngineOptions {
        precision: Some(Precision::Bf16),
        ..options.clone()
    };
    refused(&checkpoint, &lower, &["its precision is fp32"]);

    let write = |path: &Path, bytes: &[u8]| std::fs::write(path, bytes).expect("written");
    write(&path, &module[..module.len() / 2]);
    refused(&checkpoint, &options, &["cut or not a module"]);
    let mut flipped = module.clone();
    flipped[module.len() / 2] ^= 1;
    write(&path, &flipped);
    refused(&checkpoint, &options, &["changed"]);
    // Described as it should be, and no module all the same.
    let nonsense = b"not a module";
    write(&path, nonsense);
    let mut json: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    json["module_bytes"] = nonsense.len().into();
    json["module_digest"] = blake3::hash(nonsense).to_hex().as_str().into();
    write(&description, json.to_string().as_bytes());
    refused(&checkpoint, &options, &["libtorch cannot read it"]);

    write(&path, &module);
    for (key, value, said) in [
        (
            "format",
            serde_json::Value::from("something"),
            "export it again",
        ),
        ("version", 2.into(), "version 2"),
        ("layers", 7.into(), "layers is 7"),
        ("vocabulary", 7.into(), "vocabulary is 7"),
        ("model_digest", "0".into(), "another model"),
    ] {
        let mut json: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        json[key] = value;
        write(&description, json.to_string().as_bytes());
        refused(&checkpoint, &options, &[said]);
    }
    write(&description, b"{");
    refused(&checkpoint, &options, &["description", "broken"]);
    std::fs::remove_file(&description).expect("removed");
    refused(&checkpoint, &options, &["description", "module.pt.json"]);
    write(&description, text.as_bytes());
    load(&checkpoint, &options).expect("the whole module loads");
}

#[test]
fn the_program_exports_and_says_what_it_cannot() {
    let directory = TempDir::new().expect("a temporary directory");
    let model = directory.path().join("model");
    std::fs::create_dir(&model).expect("made");
    TinyModel::new(Architecture::Llama).write_hugging_face(&model, 1);
    let run = |model: &Path, to: &Path, more: &[&str]| {
        let mut command = server(&["export", "--torchscript"]);
        command.arg(to).arg("--model").arg(model).args(more);
        let output = output(&mut command);
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    let module = directory.path().join("module.pt");
    let (code, said) = run(&model, &module, &["--precision", "bf16", "--device", "cpu"]);
    assert_eq!(code, Some(0), "{said}");
    let checkpoint = Checkpoint::open(&model).expect("a model");
    let backend = load(&checkpoint, &served(&module, 64)).expect("loaded");
    assert_eq!(backend.info().precision, Precision::Bf16);

    let (code, said) = run(
        &model,
        &directory.path().join("no/such/directory/m.pt"),
        &[],
    );
    assert_eq!(code, Some(66), "{said}");
    assert!(said.contains("cannot be written"), "{said}");
    let (code, said) = run(&directory.path().join("no-model"), &module, &[]);
    assert_eq!(code, Some(66), "{said}");
    let (code, said) = run(&model, &module, &["--precision", "fp7"]);
    assert_eq!(code, Some(64), "{said}");
    let (code, said) = run(&model, &module, &["--device", "cuda:99"]);
    assert_eq!(code, Some(66), "{said}");
    assert!(said.contains("cuda:99"), "{said}");
}
