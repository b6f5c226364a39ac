//! A text encoder's files: `config.json` of the architecture `bert`, and its safetensors.

use std::path::{Path, PathBuf};

use super::config::{Keys, activation, model_name};
use super::safetensors::SafetensorsTable;
use crate::config::Activation;
use crate::digest::digest;
use crate::dtype::DType;
use crate::error::{ConfigError, WeightsError};
use crate::file::{MappedFile, ModelMemory, read_small};
use crate::tensor::{Layout, TensorView};

const ARCHITECTURE: &str = "bert";
const CONFIG: &str = "config.json";
const WEIGHTS: &str = "model.safetensors";
/// The files beside the weights on which a text's vector depends.
const SMALL_FILES: [&str; 4] = [
    CONFIG,
    "tokenizer.json",
    "sentence_bert_config.json",
    "1_Pooling/config.json",
];
/// More layers than any encoder has: what a lying `config.json` could make the reader look for.
const MOST_LAYERS: usize = 1024;

/// Sizes of an encoder of the architecture `bert`.
#[derive(Debug, Clone, PartialEq)]
pub struct EncoderConfig {
    /// Layers.
    pub layers: usize,
    /// Width of a token's vector, and of a text's.
    pub hidden: usize,
    /// Width of the feed-forward network.
    pub intermediate: usize,
    /// Heads of attention; they divide `hidden`.
    pub heads: usize,
    /// Rows of the embedding.
    pub vocabulary: usize,
    /// The most tokens that a text may have.
    pub positions: usize,
    /// Kinds of segments; a text is of the first.
    pub segments: usize,
    /// Added to a variance.
    pub norm_eps: f64,
    /// Of the feed-forward network.
    pub activation: Activation,
}

impl EncoderConfig {
    /// Reads a `config.json`.
    ///
    /// # Errors
    /// [`ConfigError`] names the key.
    pub fn from_hugging_face(json: &[u8]) -> Result<Self, ConfigError> {
        let keys = Keys::parse(json)?;
        let model_type = keys.string("model_type")?;
        match model_type.ok_or_else(|| keys.missing("model_type"))? {
            ARCHITECTURE => {}
            other => {
                return Err(ConfigError::Architecture {
                    found: other.chars().take(64).collect(),
                    supported: "bert (as an embedding model)".into(),
                });
            }
        }
        match keys.string("position_embedding_type")? {
            None | Some("absolute") => {}
            Some(_) => {
                return Err(keys.unsupported(
                    "position_embedding_type",
                    "positions are learned vectors (absolute)",
                ));
            }
        }
        let config = Self {
            layers: keys.size("num_hidden_layers")?,
            hidden: keys.size("hidden_size")?,
            intermediate: keys.size("intermediate_size")?,
            heads: keys.size("num_attention_heads")?,
            vocabulary: keys.size("vocab_size")?,
            positions: keys.size("max_position_embeddings")?,
            segments: keys.optional_size("type_vocab_size")?.unwrap_or(2),
            norm_eps: keys
                .optional_float("layer_norm_eps")?
                .map_or(1e-12, f64::from),
            activation: activation(&keys, "hidden_act", "gelu")?,
        };
        config.checked()
    }

    fn checked(self) -> Result<Self, ConfigError> {
        let wrong = |key: &str, found: usize, expected: String| ConfigError::Value {
            key: key.into(),
            found: found.to_string(),
            expected,
        };
        for (key, found, most) in [
            ("num_hidden_layers", self.layers, MOST_LAYERS),
            ("hidden_size", self.hidden, 1 << 16),
            ("intermediate_size", self.intermediate, 1 << 20),
            ("num_attention_heads", self.heads, self.hidden),
            ("vocab_size", self.vocabulary, 1 << 24),
            ("max_position_embeddings", self.positions, 1 << 20),
            ("type_vocab_size", self.segments, 1 << 10),
        ] {
            if found == 0 || found > most {
                return Err(wrong(key, found, format!("1 to {most}")));
            }
        }
        if !self.hidden.is_multiple_of(self.heads) {
            let expected = format!("a divisor of hidden_size, {}", self.hidden);
            return Err(wrong("num_attention_heads", self.heads, expected));
        }
        if !(self.norm_eps > 0.0 && self.norm_eps < 1.0) {
            return Err(ConfigError::Value {
                key: "layer_norm_eps".into(),
                found: self.norm_eps.to_string(),
                expected: "above 0 and below 1".into(),
            });
        }
        Ok(self)
    }

    /// Every tensor that the encoder needs, by its name without a leading `bert.`, and its shape.
    pub fn tensors(&self) -> Vec<(String, Vec<usize>)> {
        let (h, i) = (self.hidden, self.intermediate);
        let mut tensors: Vec<(String, Vec<usize>)> = [
            (
                "embeddings.word_embeddings.weight",
                vec![self.vocabulary, h],
            ),
            (
                "embeddings.position_embeddings.weight",
                vec![self.positions, h],
            ),
            (
                "embeddings.token_type_embeddings.weight",
                vec![self.segments, h],
            ),
            ("embeddings.LayerNorm.weight", vec![h]),
            ("embeddings.LayerNorm.bias", vec![h]),
        ]
        .map(|(name, shape)| (name.to_owned(), shape))
        .into();
        for layer in 0..self.layers {
            for (name, shape) in [
                ("attention.self.query.weight", vec![h, h]),
                ("attention.self.query.bias", vec![h]),
                ("attention.self.key.weight", vec![h, h]),
                ("attention.self.key.bias", vec![h]),
                ("attention.self.value.weight", vec![h, h]),
                ("attention.self.value.bias", vec![h]),
                ("attention.output.dense.weight", vec![h, h]),
                ("attention.output.dense.bias", vec![h]),
                ("attention.output.LayerNorm.weight", vec![h]),
                ("attention.output.LayerNorm.bias", vec![h]),
                ("intermediate.dense.weight", vec![i, h]),
                ("intermediate.dense.bias", vec![i]),
                ("output.dense.weight", vec![h, i]),
                ("output.dense.bias", vec![h]),
                ("output.LayerNorm.weight", vec![h]),
                ("output.LayerNorm.bias", vec![h]),
            ] {
                tensors.push((format!("encoder.layer.{layer}.{name}"), shape));
            }
        }
        tensors
    }
}

/// An encoder's files, mapped and checked. What is said of a [`Checkpoint`](crate::Checkpoint)'s files holds here.
#[derive(Debug)]
pub struct EncoderCheckpoint {
    path: PathBuf,
    name: String,
    config: EncoderConfig,
    table: SafetensorsTable,
    file: MappedFile,
    digest: String,
}

impl EncoderCheckpoint {
    /// Opens a directory with `config.json` and `model.safetensors`, and checks that every tensor is there in its shape.
    /// What an encoder has beside them (a pooler, a head for training) is not looked at.
    ///
    /// # Errors
    /// Whatever is wrong with the files, with the file, the key or the tensor named.
    pub fn open(directory: &Path) -> Result<Self, WeightsError> {
        if !directory.exists() {
            return Err(WeightsError::NotFound {
                path: directory.to_owned(),
            });
        }
        let path = directory.join(CONFIG);
        let Some(json) = read_small(directory, CONFIG)? else {
            return Err(WeightsError::NoConfig {
                path: directory.to_owned(),
                hint: "an embedding model has config.json, model.safetensors and tokenizer.json"
                    .into(),
            });
        };
        let config = EncoderConfig::from_hugging_face(&json)
            .map_err(|source| WeightsError::Config { path, source })?;
        let path = directory.join(WEIGHTS);
        if !path.exists() {
            return Err(WeightsError::NoSafetensors {
                path: directory.to_owned(),
                hint: format!("an embedding model has its weights in {WEIGHTS}"),
            });
        }
        // An engine copies what it needs of it and lets it go.
        let file = MappedFile::open_in(directory, WEIGHTS, ModelMemory::Map)?;
        let table = SafetensorsTable::parse(file.bytes()).map_err(|source| {
            let path = path.clone();
            WeightsError::Safetensors { path, source }
        })?;
        check(&config, &table, &path)?;
        let mut small = Vec::new();
        for name in SMALL_FILES {
            if let Some(contents) = read_small(directory, name)? {
                small.push((name, contents));
            }
        }
        let files = [file];
        let digest = digest(&small, &files);
        let [file] = files;
        let directory_name = || {
            let whole = directory.canonicalize().ok();
            let last = whole.as_deref().and_then(Path::file_name);
            last.map_or("encoder".into(), |name| name.to_string_lossy().into_owned())
        };
        Ok(Self {
            path,
            name: model_name(&json).unwrap_or_else(directory_name),
            config,
            table,
            file,
            digest,
        })
    }

    /// Its sizes.
    pub fn config(&self) -> &EncoderConfig {
        &self.config
    }

    /// The model's own name, else that of its directory.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Hex BLAKE3 of all that a text's vector depends on: weights, configuration and tokenizer.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// A tensor by its name without a leading `bert.`, row-major in 32 bits.
    ///
    /// # Errors
    /// [`WeightsError::NoSuchTensor`]; never for one of [`EncoderConfig::tensors`], as `open` has checked.
    pub fn tensor(&self, name: &str) -> Result<Vec<f32>, WeightsError> {
        let missing = || WeightsError::NoSuchTensor {
            path: self.path.clone(),
            tensor: name.to_owned(),
        };
        let entry = entry(&self.table, name).ok_or_else(missing)?;
        let view = TensorView {
            name,
            dtype: dtype(entry.dtype).ok_or_else(missing)?,
            shape: entry.shape.clone(),
            data: &self.file.bytes()[entry.range.clone()],
            layout: Layout::Rows,
        };
        Ok(view.to_f32())
    }
}

/// That every tensor is there, in its shape and in a type that can be read.
///
/// # Errors
/// Names the tensor.
pub fn check(
    config: &EncoderConfig,
    table: &SafetensorsTable,
    path: &Path,
) -> Result<(), WeightsError> {
    for (tensor, expected) in config.tensors() {
        let path = path.to_owned();
        let Some(entry) = entry(table, &tensor) else {
            return Err(WeightsError::MissingTensor {
                path,
                tensor,
                architecture: ARCHITECTURE,
                expected,
            });
        };
        if entry.shape != expected {
            let found = entry.shape.clone();
            return Err(WeightsError::Shape {
                path,
                tensor,
                expected,
                found,
            });
        }
        if dtype(entry.dtype).is_none() {
            return Err(WeightsError::UnsupportedType {
                path,
                tensor,
                found: format!("{:?}", entry.dtype),
                supported: "F32, F16, BF16".into(),
            });
        }
    }
    Ok(())
}

/// A model with a head keeps its encoder under a prefix.
fn entry<'a>(
    table: &'a SafetensorsTable,
    name: &str,
) -> Option<&'a super::safetensors::SafetensorsEntry> {
    let tensors = &table.tensors;
    tensors
        .get(name)
        .or_else(|| tensors.get(&format!("{ARCHITECTURE}.{name}")))
}

fn dtype(stored: ::safetensors::Dtype) -> Option<DType> {
    match stored {
        ::safetensors::Dtype::F32 => Some(DType::F32),
        ::safetensors::Dtype::F16 => Some(DType::F16),
        ::safetensors::Dtype::BF16 => Some(DType::BF16),
        _ => None,
    }
}
