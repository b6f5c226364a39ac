//! all-MiniLM-L6-v2: the model that the embeddings' tests use, and vectors.

use std::path::PathBuf;

use code_explainer::embed::TextTokenizer;
use code_explainer_engine::DeviceSpec;
use code_explainer_engine_torch::{TorchEncoder, load_encoder};
use code_explainer_weights::EncoderCheckpoint;

/// Where `make setup` puts the model, or the user has it.
pub(crate) fn model_path() -> PathBuf {
    let default = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("models/all-MiniLM-L6-v2");
    std::env::var_os("CODE_EXPLAINER_EMBEDDING_MODEL").map_or_else(default, PathBuf::from)
}

/// As flags that a server takes.
pub(crate) fn flags() -> [String; 2] {
    [
        "--embedding-model".into(),
        model_path().display().to_string(),
    ]
}

pub(crate) fn load() -> (TextTokenizer, TorchEncoder) {
    let path = model_path();
    let checkpoint =
        EncoderCheckpoint::open(&path).unwrap_or_else(|e| panic!("{e} (`make setup` gets it)"));
    let tokenizer = TextTokenizer::open(&path, checkpoint.config()).expect("its tokenizer");
    let encoder = load_encoder(&checkpoint, DeviceSpec::Cpu).expect("its weights");
    (tokenizer, encoder)
}

/// The largest difference of two vectors' numbers.
pub(crate) fn apart(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter()
        .zip(b)
        .map(|(x, y)| (x - y).abs())
        .fold(0.0, f32::max)
}

pub(crate) fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}
