//! A packed model answers like the model that it was made from, quantized at load.

use std::path::Path;
use std::time::Instant;

use code_explainer_engine::{Backend, Precision};
use code_explainer_engine_native::{load, open_packed};
use code_explainer_text::Text;
use code_explainer_weights::packed::FILE;
use code_explainer_weights::{Architecture, Checkpoint, DType};

use crate::common::model_files::TinyModel;
use crate::common::packed::{load_packed, logits, options, packed};
use crate::common::smollm;

const BITS: [(u32, Precision); 2] = [(8, Precision::Int8), (4, Precision::Int4)];

/// Compares both ways to serve the model at `path`.
#[track_caller]
fn check(path: &Path, tokens: &[u32]) {
    let checkpoint = Checkpoint::open(path).expect("a good model");
    let text = Text::from_checkpoint(&checkpoint).expect("a tokenizer");
    for (bits, precision) in BITS {
        let directory = packed(path, bits);
        let model = open_packed(directory.path()).expect("a good packed model");
        assert_eq!(model.config(), checkpoint.config());
        assert_eq!(model.digest(), checkpoint.digest(), "one cache for both");
        let other = Text::from_packed(&model).expect("a tokenizer");
        let prompt = |text: &Text| {
            text.encode_prompt(Some("Explain."), "fn main() {}")
                .expect("a prompt")
        };
        assert_eq!(prompt(&other), prompt(&text));
        assert_eq!(other.eos(), text.eos());

        let start = Instant::now();
        let mut mapped = load(&model, &options(None)).expect("loaded");
        let mapping = start.elapsed();
        let start = Instant::now();
        let mut made = load(&checkpoint, &options(Some(precision))).expect("loaded");
        println!(
            "{precision}: mapped in {mapping:?}, quantized in {:?}",
            start.elapsed()
        );
        assert_eq!(mapped.info(), made.info());
        drop((model, directory));
        assert!(
            logits(&mut mapped, tokens) == logits(&mut made, tokens),
            "{}: other bits in {precision}",
            path.display()
        );
    }
}

#[test]
fn every_architecture_from_gguf_and_hugging_face_answers_the_same_bits() {
    let directory = tempfile::tempdir().expect("a directory");
    for architecture in Architecture::ALL {
        for dtype in [DType::Q4_1, DType::Q8_0, DType::F16] {
            let path = directory.path().join("model.gguf");
            TinyModel::new(architecture)
                .with_dtype(dtype)
                .write_gguf(&path);
            check(&path, &[1, 2, 3, 5, 8, 13, 21]);
        }
        let path = directory.path().join(architecture.as_str());
        std::fs::create_dir(&path).expect("a directory");
        TinyModel::new(architecture)
            .untied()
            .write_hugging_face(&path, 2);
        check(&path, &[1, 2, 3, 5, 8, 13, 21]);
    }
}

#[test]
fn the_real_model_answers_the_same_bits() {
    let prompt = smollm::text().encode_prompt(None, "def add(a, b): return a + b");
    check(
        &smollm::model_path(),
        &prompt.expect("a prompt").tokens[..24],
    );
}

#[test]
fn the_weights_of_a_running_model_are_the_files_pages() {
    let directory = packed(&smollm::model_path(), 8);
    let file = directory.path().join(FILE);
    let mapped = || {
        let maps = std::fs::read_to_string("/proc/self/maps").expect("Linux");
        maps.contains(&*file.to_string_lossy())
    };
    assert!(!mapped());
    let start = Instant::now();
    let model = open_packed(directory.path()).expect("a good packed model");
    let checked = start.elapsed();
    Text::from_packed(&model).expect("a tokenizer");
    let text = start.elapsed() - checked;
    let backend = load(&model, &options(None)).expect("loaded");
    println!(
        "checksums {checked:?}, tokenizer {text:?}, all {:?}",
        start.elapsed()
    );
    drop(model);
    assert!(mapped());
    drop(backend);
    assert!(!mapped(), "nothing else holds it");
}

#[test]
fn a_packed_model_is_served_in_its_own_precision_only() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("model.gguf");
    TinyModel::new(Architecture::Llama).write_gguf(&path);
    let directory = packed(&path, 8);
    let model = open_packed(directory.path()).expect("a good packed model");
    for good in [None, Some(Precision::Int8)] {
        let backend = load(&model, &options(good)).expect("loaded");
        assert_eq!(backend.info().precision, Precision::Int8);
    }
    for bad in [Precision::Fp32, Precision::Int4, Precision::Bf16] {
        let error = load(&model, &options(Some(bad)))
            .err()
            .expect("refused")
            .to_string();
        assert!(
            error.contains("int8") && error.contains(bad.as_str()),
            "{error}"
        );
    }
    assert!(load_packed(directory.path()).is_ok());
}
