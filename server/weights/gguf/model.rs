//! What the metadata of a GGUF file says about the model, and its tensors as canonical ones.

use std::path::Path;

use super::header::Gguf;
use super::metadata::{Metadata, Value};
use crate::config::{Activation, Architecture, ModelConfig, RopeScaling};
use crate::error::{ConfigError, WeightsError};
use crate::table::TensorTable;
use crate::tensor::Layout;
use crate::validate::validate;

impl ModelConfig {
    /// Reads the keys `general.architecture`, `<architecture>.*` and `tokenizer.ggml.*`.
    ///
    /// The vocabulary is as large as the embedding has rows, and the head is tied if there is no `output.weight`, as
    /// llama.cpp has it.
    pub fn from_gguf(gguf: &Gguf) -> Result<Self, ConfigError> {
        let metadata = &gguf.metadata;
        let architecture = architecture(metadata)?;
        let keys = Keys {
            metadata,
            prefix: architecture.as_str(),
        };
        refuse_experts(&keys)?;

        let hidden = keys.size("embedding_length")?;
        let heads = keys.size("attention.head_count")?;
        let kv_heads = keys
            .optional_size("attention.head_count_kv")?
            .unwrap_or(heads);
        let head_dim = match keys.optional_size("attention.key_length")? {
            Some(length) => length,
            None => hidden.checked_div(heads).unwrap_or(0),
        };
        keys.same("attention.value_length", head_dim, "the key length")?;
        let rotary_dim = match architecture {
            Architecture::Gpt2 => 0,
            _ => keys
                .optional_size("rope.dimension_count")?
                .unwrap_or(head_dim),
        };
        if architecture == Architecture::Llama {
            // The rows are interleaved over the whole head; which halves a partial rotation would pair is not defined.
            keys.same("rope.dimension_count", head_dim, "the head dimension")?;
        }
        let norm_eps = keys.float(match architecture {
            Architecture::Gpt2 => "attention.layer_norm_epsilon",
            _ => "attention.layer_norm_rms_epsilon",
        })?;
        let vocabulary = vocabulary(gguf, &keys)?;
        Self {
            architecture,
            layers: keys.size("block_count")?,
            hidden,
            intermediate: keys.size("feed_forward_length")?,
            heads,
            kv_heads,
            head_dim,
            vocabulary,
            context_length: keys.size("context_length")?,
            norm_eps,
            rope_theta: keys.optional_float("rope.freq_base")?.unwrap_or(10_000.0),
            rope_scaling: rope_scaling(&keys)?,
            rotary_dim,
            activation: match architecture {
                Architecture::Gpt2 => Activation::GeluTanh,
                _ => Activation::Silu,
            },
            tied_head: gguf.tensors.get("output.weight").is_none(),
            bos: token(metadata, "tokenizer.ggml.bos_token_id")?,
            eos: end_tokens(metadata)?,
            sliding_window: match architecture {
                Architecture::Gpt2 => None,
                _ => keys
                    .optional_size("attention.sliding_window")?
                    .filter(|&w| w > 0),
            },
            notes: Vec::new(),
        }
        .checked()
    }
}

/// A model in a GGUF file: all but the bytes of its tensors.
#[derive(Debug, Clone, PartialEq)]
pub struct GgufModel {
    /// Architecture and sizes.
    pub config: ModelConfig,
    /// Exactly the tensors that the architecture has, in the right shapes; all lie in file 0.
    pub tensors: TensorTable,
    /// All metadata.
    pub metadata: Metadata,
    /// Number of parameters.
    pub parameters: u64,
}

/// Reads and checks a whole GGUF file. `path` is for messages only.
pub fn read_model(bytes: &[u8], path: &Path) -> Result<GgufModel, WeightsError> {
    let gguf = Gguf::parse(bytes).map_err(|source| WeightsError::Gguf {
        path: path.to_owned(),
        source,
    })?;
    let config = ModelConfig::from_gguf(&gguf).map_err(|source| WeightsError::Config {
        path: path.to_owned(),
        source,
    })?;
    let Gguf {
        metadata,
        mut tensors,
        ..
    } = gguf;
    let parameters = validate(&config, &tensors, path)?;
    if config.architecture == Architecture::Llama {
        mark_interleaved(&mut tensors, &config);
    }
    Ok(GgufModel {
        config,
        tensors,
        metadata,
        parameters,
    })
}

/// Llama's converter interleaves the halves of each head in the query and key projections.
fn mark_interleaved(tensors: &mut TensorTable, config: &ModelConfig) {
    for layer in 0..config.layers {
        for (projection, heads) in [("attn_q", config.heads), ("attn_k", config.kv_heads)] {
            for part in ["weight", "bias"] {
                if let Some(entry) = tensors.get_mut(&format!("blk.{layer}.{projection}.{part}")) {
                    entry.layout = Layout::RopeInterleaved { heads };
                }
            }
        }
    }
}

fn architecture(metadata: &Metadata) -> Result<Architecture, ConfigError> {
    let keys = Keys {
        metadata,
        prefix: "general",
    };
    let found = keys
        .string("architecture")?
        .ok_or_else(|| keys.missing("architecture"))?;
    Architecture::ALL
        .into_iter()
        .find(|known| known.as_str() == found)
        .ok_or_else(|| ConfigError::Architecture {
            found: found.into(),
            supported: Architecture::supported(),
        })
}

fn refuse_experts(keys: &Keys<'_>) -> Result<(), ConfigError> {
    match keys.optional_size("expert_count")? {
        None | Some(0) => Ok(()),
        Some(experts) => Err(ConfigError::Unsupported {
            key: keys.key("expert_count"),
            found: experts.to_string(),
            reason: "mixtures of experts cannot be run".into(),
        }),
    }
}

fn vocabulary(gguf: &Gguf, keys: &Keys<'_>) -> Result<usize, ConfigError> {
    let tokens = gguf
        .metadata
        .get_strings("tokenizer.ggml.tokens")
        .map(|tokens| tokens.len());
    let rows = gguf
        .tensors
        .get("token_embd.weight")
        .map(|entry| entry.shape[0]);
    if let (Some(tokens), Some(rows)) = (tokens, rows)
        && tokens > rows
    {
        return Err(ConfigError::Value {
            key: "tokenizer.ggml.tokens".into(),
            found: format!("{tokens} tokens long"),
            expected: format!("at most as long as the embedding, {rows}"),
        });
    }
    match rows.or(keys.optional_size("vocab_size")?).or(tokens) {
        Some(size) => Ok(size),
        None => Err(keys.missing("vocab_size")),
    }
}

fn rope_scaling(keys: &Keys<'_>) -> Result<RopeScaling, ConfigError> {
    let factor = match keys.optional_float("rope.scaling.factor")? {
        Some(factor) => Some(factor),
        None => keys.optional_float("rope.scale_linear")?,
    };
    match keys.string("rope.scaling.type")? {
        // Llama 3's scaling comes as the tensor `rope_freqs.weight`, with no type or "none".
        Some("none") => Ok(RopeScaling::None),
        // As in llama.cpp, a factor without a type is linear, and 0 is none.
        None => Ok(match factor.filter(|factor| *factor != 0.0) {
            Some(factor) => RopeScaling::Linear { factor },
            None => RopeScaling::None,
        }),
        Some("linear") => match factor {
            Some(factor) => Ok(RopeScaling::Linear { factor }),
            None => Err(keys.missing("rope.scaling.factor")),
        },
        Some(other) => Err(ConfigError::Unsupported {
            key: keys.key("rope.scaling.type"),
            found: format!("'{other}'"),
            reason: "supported are none and linear, and Llama 3's through rope_freqs.weight".into(),
        }),
    }
}

fn end_tokens(metadata: &Metadata) -> Result<Vec<u32>, ConfigError> {
    let keys = ["eos_token_id", "eot_token_id", "eom_token_id"];
    let ids = keys.map(|key| token(metadata, &format!("tokenizer.ggml.{key}")));
    ids.into_iter().filter_map(Result::transpose).collect()
}

fn token(metadata: &Metadata, key: &str) -> Result<Option<u32>, ConfigError> {
    match metadata.get(key) {
        None => Ok(None),
        // There is none, some say so.
        Some(_) if metadata.get_i64(key) == Some(-1) => Ok(None),
        Some(value) => metadata
            .get_u32(key)
            .map(Some)
            .ok_or_else(|| ConfigError::Type {
                key: key.into(),
                expected: "a token id",
                found: shown(value),
            }),
    }
}

/// The keys below one prefix, with errors that name them in full.
struct Keys<'a> {
    metadata: &'a Metadata,
    prefix: &'static str,
}

impl<'a> Keys<'a> {
    fn key(&self, name: &str) -> String {
        format!("{}.{name}", self.prefix)
    }

    fn missing(&self, name: &str) -> ConfigError {
        ConfigError::Missing {
            key: self.key(name),
        }
    }

    fn get<T>(
        &self,
        name: &str,
        expected: &'static str,
        read: impl Fn(&'a Metadata, &str) -> Option<T>,
    ) -> Result<Option<T>, ConfigError> {
        let key = self.key(name);
        let Some(value) = self.metadata.get(&key) else {
            return Ok(None);
        };
        match read(self.metadata, &key) {
            Some(value) => Ok(Some(value)),
            None => Err(ConfigError::Type {
                key,
                expected,
                found: shown(value),
            }),
        }
    }

    fn optional_size(&self, name: &str) -> Result<Option<usize>, ConfigError> {
        self.get(name, "a size", |metadata, key| {
            Some(metadata.get_u32(key)? as usize)
        })
    }

    fn size(&self, name: &str) -> Result<usize, ConfigError> {
        self.optional_size(name)?.ok_or_else(|| self.missing(name))
    }

    fn optional_float(&self, name: &str) -> Result<Option<f32>, ConfigError> {
        self.get(name, "a float", Metadata::get_f32)
    }

    fn float(&self, name: &str) -> Result<f32, ConfigError> {
        self.optional_float(name)?.ok_or_else(|| self.missing(name))
    }

    fn string(&self, name: &str) -> Result<Option<&'a str>, ConfigError> {
        self.get(name, "a string", Metadata::get_str)
    }

    /// An optional size that must be `expected`, which is `what`.
    fn same(&self, name: &str, expected: usize, what: &str) -> Result<(), ConfigError> {
        match self.optional_size(name)? {
            Some(found) if found != expected => Err(ConfigError::Unsupported {
                key: self.key(name),
                found: found.to_string(),
                reason: format!("it must be {what}, {expected}"),
            }),
            _ => Ok(()),
        }
    }
}

fn shown(value: &Value) -> String {
    match value.as_i128() {
        Some(number) => format!("{} {number}", value.kind()),
        None => value.kind().to_owned(),
    }
}
