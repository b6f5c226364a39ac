//! The command `quantize`, and serving what it has written.

use std::fs;
use std::path::Path;

use code_explainer_weights::Architecture;
use code_explainer_weights::packed::FILE;

use crate::common::model_files::TinyModel;
use crate::common::model_files::safetensors::to_bytes;
use crate::common::programs::{ServerProcess, output, server};
use crate::common::smollm;

/// Runs `quantize`; gives back the exit code and all that it said.
fn quantize(bits: &str, input: &Path, out: &Path) -> (Option<i32>, String) {
    let mut command = server(&["quantize", "--bits", bits]);
    let output = output(command.arg(input).arg(out));
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(!said.contains("panicked"), "{said}");
    (output.status.code(), said)
}

/// Names in a directory, hidden ones too.
fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).expect("a directory");
    let mut names: Vec<_> = entries
        .map(|e| {
            e.expect("an entry")
                .file_name()
                .to_string_lossy()
                .into_owned()
        })
        .collect();
    names.sort();
    names
}

fn tiny_gguf(directory: &Path) -> std::path::PathBuf {
    let path = directory.join("tiny.gguf");
    TinyModel::new(Architecture::Llama).write_gguf(&path);
    path
}

#[test]
fn the_real_model_is_quantized_and_served() {
    let directory = tempfile::tempdir().expect("a directory");
    let out = directory.path().join("packed");
    let (code, said) = quantize("8", &smollm::model_path(), &out);
    assert_eq!(code, Some(0), "{said}");
    for part in ["int8", "% of fp32", "serve --model"] {
        assert!(said.contains(part), "'{part}' is not in: {said}");
    }
    assert_eq!(names(directory.path()), ["packed"]);
    assert_eq!(names(&out), ["metadata.gguf", FILE]);

    let ports = [
        "serve",
        "--listen",
        "127.0.0.1:0",
        "--http-listen",
        "127.0.0.1:0",
    ];
    let model = |precision: &[&str]| {
        let mut command = server(&ports);
        command
            .arg("--model")
            .arg(&out)
            .args(["--kv-cache-tokens", "2048"])
            .args(precision);
        command
    };
    let mut process = ServerProcess::start(model(&[]));
    let loaded = process.wait_for("the model is loaded");
    assert!(loaded.contains("precision=int8"), "{loaded}");
    process.wait_for(" ready");
    process.signal("TERM");
    assert_eq!(process.ended().code(), Some(0), "{:?}", process.said);

    for (flags, says) in [
        (
            ["--precision", "fp32"],
            "holds int8 weights, and fp32 was asked for",
        ),
        (
            ["--quantization", "int4"],
            "holds int8 weights, and int4 was asked for",
        ),
        (["--engine", "eager"], "packed for the native engine"),
        (["--device", "cuda"], "packed for the native engine"),
    ] {
        let refused = output(&mut model(&flags));
        let stderr = String::from_utf8_lossy(&refused.stderr);
        assert_eq!(refused.status.code(), Some(66), "{stderr}");
        assert!(stderr.contains(says), "'{says}' is not in: {stderr}");
    }
}

#[test]
fn an_output_that_is_taken_is_not_touched() {
    let directory = tempfile::tempdir().expect("a directory");
    let input = tiny_gguf(directory.path());
    let taken = directory.path().join("taken");
    fs::create_dir(&taken).expect("a directory");
    fs::write(taken.join("mine"), "mine").expect("written");
    let (code, said) = quantize("4", &input, &taken);
    assert_eq!(code, Some(64), "{said}");
    assert!(said.contains("not empty"), "{said}");
    assert_eq!(names(&taken), ["mine"]);

    let (code, said) = quantize("4", &input, &taken.join("mine"));
    assert_eq!(code, Some(64), "{said}");
    assert!(said.contains("is no directory"), "{said}");
    let (code, said) = quantize("4", &input, &directory.path().join("no/where"));
    assert_eq!(code, Some(64), "{said}");
    assert!(said.contains("does not exist"), "{said}");

    fs::remove_file(taken.join("mine")).expect("removed");
    let (code, said) = quantize("4", &input, &taken);
    assert_eq!(code, Some(0), "an empty directory is good: {said}");
    let (code, said) = quantize("8", &taken, &directory.path().join("again"));
    assert_eq!(code, Some(66), "{said}");
    assert!(said.contains("is quantized already"), "{said}");
}

#[test]
fn a_model_that_cannot_be_quantized_leaves_nothing_behind() {
    let directory = tempfile::tempdir().expect("a directory");
    let out = directory.path().join("out");
    let missing = directory.path().join("missing.gguf");
    let (code, said) = quantize("8", &missing, &out);
    assert_eq!(code, Some(66), "{said}");
    assert!(said.contains("missing.gguf"), "{said}");

    // In the last matrix, which is only read when all others are written.
    let model = TinyModel::new(Architecture::Llama);
    let input = directory.path().join("broken");
    fs::create_dir(&input).expect("a directory");
    model.write_hugging_face(&input, 1);
    let mut tensors = model.safetensors();
    let last = "model.layers.1.mlp.down_proj.weight";
    let tensor = tensors
        .iter_mut()
        .find(|t| t.name == last)
        .expect("it is there");
    tensor.data[..4].copy_from_slice(&f32::NAN.to_le_bytes());
    fs::write(input.join("model.safetensors"), to_bytes(&tensors)).expect("written");
    let (code, said) = quantize("8", &input, &out);
    assert_eq!(code, Some(66), "{said}");
    assert!(said.contains("blk.1.ffn_down.weight"), "{said}");
    assert_eq!(names(directory.path()), ["broken"]);
}

#[test]
fn help_teaches() {
    let help = output(&mut server(&["quantize", "--help"]));
    assert!(help.status.success());
    let text = String::from_utf8_lossy(&help.stdout);
    for part in [
        "--bits <4|8>",
        "IN",
        "OUT",
        "Exit codes",
        "serve --model",
        "Q4_1",
    ] {
        assert!(text.contains(part), "'{part}' is not in the help: {text}");
    }
}
