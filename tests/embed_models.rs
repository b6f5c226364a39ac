//! An embedding model's directory that cannot be served is refused with a sentence that names the file.

use std::fs;
use std::path::Path;

use code_explainer::embed::TextTokenizer;
use code_explainer_weights::EncoderCheckpoint;
use tempfile::TempDir;

use crate::common::minilm::model_path;
use crate::common::programs::{output, server};

/// A copy of the model whose files a test may change; the weights are the same file, where the file system lets them be.
fn copy() -> TempDir {
    let copy = tempfile::tempdir().expect("a directory");
    let model = model_path().canonicalize().expect("the model");
    for name in ["config.json", "tokenizer.json", "sentence_bert_config.json"] {
        fs::copy(model.join(name), copy.path().join(name)).expect("copied");
    }
    let (from, to) = (
        model.join("model.safetensors"),
        copy.path().join("model.safetensors"),
    );
    if fs::hard_link(&from, &to).is_err() {
        fs::copy(from, to).expect("copied");
    }
    copy
}

fn open(directory: &Path) -> Result<(), String> {
    let checkpoint = EncoderCheckpoint::open(directory).map_err(|e| e.to_string())?;
    TextTokenizer::open(directory, checkpoint.config()).map_err(|e| e.to_string())?;
    Ok(())
}

#[track_caller]
fn refused(change: impl FnOnce(&Path), expected: &[&str]) {
    let copy = copy();
    open(copy.path()).expect("the copy itself is good");
    change(copy.path());
    let problem = open(copy.path()).expect_err("refused");
    for words in expected {
        assert!(problem.contains(words), "'{words}' is not in: {problem}");
    }
}

fn edit(path: &Path, from: &str, to: &str) {
    let text = fs::read_to_string(path).expect("text");
    assert!(text.contains(from), "{from}");
    fs::write(path, text.replacen(from, to, 1)).expect("written");
}

#[test]
fn each_broken_file_is_named() {
    let remove =
        |name: &'static str| move |d: &Path| fs::remove_file(d.join(name)).expect("removed");
    refused(
        remove("config.json"),
        &["config.json", "an embedding model has"],
    );
    refused(remove("model.safetensors"), &["safetensors"]);
    refused(remove("tokenizer.json"), &["tokenizer.json", "missing"]);
    let config = |from: &'static str, to: &'static str| {
        move |d: &Path| edit(&d.join("config.json"), from, to)
    };
    refused(
        config("\"bert\"", "\"llama\""),
        &["config.json", "llama", "bert"],
    );
    refused(
        config("\"hidden_size\": 384", "\"hidden_size\": 0"),
        &["hidden_size", "1 to"],
    );
    refused(
        config("\"hidden_size\": 384", "\"hidden_size\": 385"),
        &["num_attention_heads", "divisor"],
    );
    refused(
        config("\"hidden_size\": 384", "\"hidden_size\": 396"),
        &["word_embeddings", "[30522, 384]"],
    );
    refused(
        config("\"num_hidden_layers\": 6", "\"num_hidden_layers\": 7"),
        &["encoder.layer.6", "missing"],
    );
    refused(config("\"gelu\"", "\"relu\""), &["hidden_act", "relu"]);
    refused(
        config("\"absolute\"", "\"relative_key\""),
        &["position_embedding_type"],
    );
    refused(
        |d| fs::write(d.join("tokenizer.json"), "{}").expect("written"),
        &["tokenizer.json"],
    );
    refused(
        |d| fs::write(d.join("sentence_bert_config.json"), "[").expect("written"),
        &["sentence_bert_config"],
    );
    refused(
        |d| {
            fs::create_dir(d.join("1_Pooling")).expect("made");
            let pooling = r#"{"pooling_mode_cls_token": true}"#;
            fs::write(d.join("1_Pooling/config.json"), pooling).expect("written");
        },
        &["1_Pooling", "mean"],
    );
    refused(
        |d| {
            let weights = d.join("model.safetensors");
            fs::remove_file(&weights).expect("removed");
            fs::write(weights, b"\x08\0\0\0\0\0\0\0{\"a\":1}!").expect("written");
        },
        &["model.safetensors"],
    );
}

#[test]
fn a_directory_that_is_not_there_is_named() {
    let problem = open(Path::new("/no/such/model")).expect_err("refused");
    assert!(problem.starts_with("/no/such/model"), "{problem}");
}

#[test]
fn with_embeddings_at_start_the_program_ends_with_the_reason() {
    let ended = output(&mut server(&[
        "serve",
        "--listen",
        "127.0.0.1:0",
        "--http-listen",
        "127.0.0.1:0",
        "--embeddings",
        "start",
        "--embedding-model",
        "/no/such/model",
    ]));
    assert_eq!(ended.status.code(), Some(66));
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(
        said.contains("the embedding model: /no/such/model"),
        "{said}"
    );
}
