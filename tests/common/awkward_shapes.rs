//! Tiny models of every architecture, written as Hugging Face directories: see `reference/awkward_shapes.py`.

use std::collections::BTreeMap;
use std::path::Path;

use code_explainer_weights::Checkpoint;
use safetensors::tensor::{Dtype, TensorView, serialize_to_file};
use serde::Deserialize;
use tempfile::TempDir;

/// A tiny model with what transformers computes with it.
#[derive(Deserialize)]
pub(crate) struct TinyModel {
    pub(crate) architecture: String,
    config: serde_json::Value,
    tensors: BTreeMap<String, Vec<usize>>,
    /// A prompt.
    pub(crate) ids: Vec<u32>,
    /// Logits by position.
    pub(crate) logits: BTreeMap<usize, Vec<f32>>,
}

/// One of each architecture.
pub(crate) fn tiny_models() -> Vec<TinyModel> {
    #[derive(Deserialize)]
    struct File {
        models: Vec<TinyModel>,
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/awkward_shapes.json");
    let file: File = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    file.models
}

impl TinyModel {
    /// Writes its files and opens them; they are gone when the directory is dropped.
    pub(crate) fn checkpoint(&self) -> (Checkpoint, TempDir) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("config.json"), self.config.to_string()).unwrap();
        let data: BTreeMap<_, Vec<u8>> = (self.tensors.iter())
            .map(|(name, shape)| {
                let values = values(name, shape).flat_map(f32::to_le_bytes);
                (name, values.collect())
            })
            .collect();
        let views = self.tensors.iter().map(|(name, shape)| {
            (
                name,
                TensorView::new(Dtype::F32, shape.clone(), &data[name]).unwrap(),
            )
        });
        serialize_to_file(views, None, &dir.path().join("model.safetensors")).unwrap();
        (Checkpoint::open(dir.path()).unwrap(), dir)
    }
}

/// Element i: a hash of i and the name's FNV-1a, in [-0.25, 0.25); around 1 for a norm's weight.
fn values(name: &str, shape: &[usize]) -> impl Iterator<Item = f32> {
    let fnv = |h: u32, b: u8| (h ^ u32::from(b)).wrapping_mul(0x0100_0193);
    let seed = name.bytes().fold(0x811c_9dc5, fnv);
    let around = if shape.len() == 1 && name.ends_with(".weight") {
        1.0
    } else {
        0.0
    };
    (0..shape.iter().product::<usize>() as u32).map(move |i| {
        let mut h = i.wrapping_mul(2_654_435_761).wrapping_add(seed);
        for _ in 0..2 {
            h = (h ^ (h >> 16)).wrapping_mul(0x045d_9f3b);
        }
        around + ((h >> 8) as f32 / (1u32 << 24) as f32 - 0.5) / 2.0
    })
}
