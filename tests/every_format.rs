//! Every architecture is served from every format by every engine: files in, answers out.

use std::path::PathBuf;

use code_explainer::model::{Model, ModelError};
use code_explainer_client::proto::ExplainRequest;
use code_explainer_weights::Architecture;

use crate::common::model_files::TinyModel;
use crate::common::server::{TestServer, config};
use crate::common::stream::{TestStream, item};

fn written(architecture: Architecture, gguf: bool) -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().expect("a directory");
    let mut model = TinyModel::new(architecture);
    model.context_length = 512;
    let path = if gguf {
        let path = directory.path().join("tiny.gguf");
        model.write_gguf(&path);
        path
    } else {
        model.write_hugging_face(directory.path(), 2);
        directory.path().to_owned()
    };
    (directory, path)
}

/// The greedy answer of a server with this model.
async fn answer(path: PathBuf, engine: &str) -> (String, u32) {
    let config = config(&["--engine", engine, "--device", "cpu", "--precision", "fp32"]);
    let options = config.engine.clone();
    let server = TestServer::opening(config, move || Model::open(&path, vec![options])).await;
    server.ready().await;
    let mut stream = TestStream::open(&server).await;
    let wanted = ExplainRequest {
        language: "python".into(),
        ..item("a", "x = 1")
    };
    stream.explain(wanted).await;
    let outcome = stream.collect(1).await.remove("a").expect("its outcome");
    let done = outcome
        .done
        .unwrap_or_else(|| panic!("{:?}", outcome.error));
    (outcome.text, done.usage.expect("usage").generated_tokens)
}

#[tokio::test]
async fn both_engines_give_the_same_answer_from_both_formats() {
    for architecture in [Architecture::Llama, Architecture::Qwen2, Architecture::Gpt2] {
        let mut answers = Vec::new();
        for gguf in [true, false] {
            for engine in ["native", "eager"] {
                let (_directory, path) = written(architecture, gguf);
                answers.push(answer(path, engine).await);
            }
        }
        assert_eq!(answers[0].1, 16, "{architecture:?}: all tokens are there");
        answers.dedup();
        assert_eq!(answers.len(), 1, "{architecture:?}: {answers:?}");
    }
}

#[tokio::test]
async fn the_tokenizer_of_another_model_is_refused() {
    let (directory, path) = written(Architecture::Llama, false);
    let file = directory.path().join("tokenizer.json");
    let text = std::fs::read_to_string(&file).expect("a tokenizer");
    let mut tokenizer: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let extra = serde_json::json!({
        "id": 100_000, "content": "<extra>", "special": true,
        "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
    });
    tokenizer["added_tokens"]
        .as_array_mut()
        .expect("a list")
        .push(extra);
    tokenizer["model"]["vocab"]["<extra>"] = 100_000.into();
    std::fs::write(&file, tokenizer.to_string()).expect("written");
    match Model::open(&path, vec![config(&[]).engine]) {
        Err(error @ ModelError::Vocabulary { .. }) => {
            assert!(error.to_string().contains("100001"), "{error}");
        }
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("it was served"),
    }
}
