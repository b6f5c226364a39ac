//! `config.json` and `generation_config.json` of transformers, versions 4 and 5.

use serde_json::{Map, Value};

use crate::config::{Activation, Architecture, ModelConfig, RopeScaling};
use crate::error::ConfigError;
use crate::model_json;

/// Mistral's window where `config.json` does not speak of one (`null` means that there is none).
const MISTRAL_WINDOW: usize = 4096;

impl ModelConfig {
    /// Reads a `config.json`.
    pub fn from_hugging_face(json: &[u8]) -> Result<Self, ConfigError> {
        let keys = Keys::parse(json)?;
        if keys.get("quantization_config").is_some() {
            return Err(keys.unsupported(
                "quantization_config",
                "quantized safetensors cannot be read; use the original model or a GGUF file",
            ));
        }
        let model_type = keys
            .string("model_type")?
            .ok_or_else(|| keys.missing("model_type"))?;
        let config = match model_type {
            "llama" | "mistral" => rotary_model(&keys, Architecture::Llama, model_type)?,
            "qwen2" => rotary_model(&keys, Architecture::Qwen2, model_type)?,
            "gpt2" => gpt2(&keys)?,
            other => {
                return Err(ConfigError::Architecture {
                    found: other.into(),
                    supported: "llama, mistral, qwen2, gpt2".into(),
                });
            }
        };
        config.checked()
    }

    /// Adds the end-of-sequence tokens of a `generation_config.json`.
    pub fn with_generation_config(mut self, json: &[u8]) -> Result<Self, ConfigError> {
        let keys = Keys::parse(json)?;
        self.eos.extend(keys.tokens("eos_token_id")?);
        self.checked()
    }
}

/// The name that the model was saved under, without the directories of whoever saved it.
pub(super) fn model_name(json: &[u8]) -> Option<String> {
    let value: Value = model_json::parse(json).ok()?;
    let name = value.get("_name_or_path")?.as_str()?.trim_end_matches('/');
    let local = name.starts_with(['/', '.', '~']);
    let name = if local {
        name.rsplit('/').next()?
    } else {
        name
    };
    Some(name.to_owned()).filter(|name| !name.trim_matches('.').is_empty())
}

fn rotary_model(
    keys: &Keys,
    architecture: Architecture,
    model_type: &str,
) -> Result<ModelConfig, ConfigError> {
    let hidden = keys.size("hidden_size")?;
    let heads = keys.size("num_attention_heads")?;
    let kv_heads = match keys.optional_size("num_key_value_heads")? {
        Some(kv_heads) => kv_heads,
        None if model_type == "llama" => heads,
        None => return Err(keys.missing("num_key_value_heads")),
    };
    let head_dim = match keys.optional_size("head_dim")? {
        Some(head_dim) => head_dim,
        None => hidden.checked_div(heads).unwrap_or(0),
    };
    let (rope_theta, rope_scaling) = rope(keys)?;
    Ok(ModelConfig {
        architecture,
        layers: keys.size("num_hidden_layers")?,
        hidden,
        intermediate: keys.size("intermediate_size")?,
        heads,
        kv_heads,
        head_dim,
        vocabulary: keys.size("vocab_size")?,
        context_length: keys.size("max_position_embeddings")?,
        norm_eps: keys.float("rms_norm_eps")?,
        rope_theta,
        rope_scaling,
        rotary_dim: head_dim,
        activation: activation(keys, "hidden_act", "silu")?,
        tied_head: keys.bool("tie_word_embeddings", false)?,
        bos: keys.tokens("bos_token_id")?.first().copied(),
        eos: keys.tokens("eos_token_id")?,
        sliding_window: sliding_window(keys, model_type)?,
        notes: Vec::new(),
    })
}

fn gpt2(keys: &Keys) -> Result<ModelConfig, ConfigError> {
    let plain = [
        ("scale_attn_weights", true, "attention is always scaled"),
        (
            "scale_attn_by_inverse_layer_idx",
            false,
            "attention is scaled alike in every layer",
        ),
        (
            "add_cross_attention",
            false,
            "there is no encoder to attend to",
        ),
    ];
    for (key, expected, reason) in plain {
        if keys.bool(key, expected)? != expected {
            return Err(keys.unsupported(key, reason));
        }
    }
    let hidden = keys.size("n_embd")?;
    let heads = keys.size("n_head")?;
    if !hidden.is_multiple_of(heads.max(1)) {
        return Err(ConfigError::Value {
            key: "n_head".into(),
            found: heads.to_string(),
            expected: format!("a divisor of n_embd, {hidden}"),
        });
    }
    Ok(ModelConfig {
        architecture: Architecture::Gpt2,
        layers: keys.size("n_layer")?,
        hidden,
        intermediate: keys.optional_size("n_inner")?.unwrap_or(4 * hidden),
        heads,
        kv_heads: heads,
        head_dim: hidden.checked_div(heads).unwrap_or(0),
        vocabulary: keys.size("vocab_size")?,
        context_length: keys.size("n_positions")?,
        norm_eps: keys.float("layer_norm_epsilon")?,
        rope_theta: 10_000.0,
        rope_scaling: RopeScaling::None,
        rotary_dim: 0,
        activation: activation(keys, "activation_function", "gelu_new")?,
        tied_head: keys.bool("tie_word_embeddings", true)?,
        bos: keys.tokens("bos_token_id")?.first().copied(),
        eos: keys.tokens("eos_token_id")?,
        sliding_window: None,
        notes: Vec::new(),
    })
}

pub(super) fn activation(keys: &Keys, key: &str, default: &str) -> Result<Activation, ConfigError> {
    match keys.string(key)?.unwrap_or(default) {
        "silu" | "swish" => Ok(Activation::Silu),
        "gelu" => Ok(Activation::Gelu),
        "gelu_new" | "gelu_fast" | "gelu_pytorch_tanh" => Ok(Activation::GeluTanh),
        _ => Err(keys.unsupported(
            key,
            "supported are silu, gelu, gelu_new, gelu_fast and gelu_pytorch_tanh",
        )),
    }
}

fn sliding_window(keys: &Keys, model_type: &str) -> Result<Option<usize>, ConfigError> {
    let window = keys.optional_size("sliding_window")?;
    match model_type {
        "mistral" if !keys.object.contains_key("sliding_window") => Ok(Some(MISTRAL_WINDOW)),
        "mistral" => Ok(window),
        "qwen2" if keys.bool("use_sliding_window", false)? => Ok(window),
        _ => Ok(None),
    }
}

/// Base and scaling of the rotary frequencies: in `rope_theta` and `rope_scaling` (transformers 4) or together in
/// `rope_parameters` (5).
fn rope(keys: &Keys) -> Result<(f32, RopeScaling), ConfigError> {
    let parameters = keys.object("rope_parameters")?;
    let scaling = match &parameters {
        Some(parameters) => Some(parameters.clone()),
        None => keys.object("rope_scaling")?,
    };
    let theta = match &parameters {
        Some(parameters) => parameters.optional_float("rope_theta")?,
        None => None,
    };
    let theta = theta
        .or(keys.optional_float("rope_theta")?)
        .unwrap_or(10_000.0);
    for keys in scaling.iter().chain([keys]) {
        if keys
            .optional_float("partial_rotary_factor")?
            .is_some_and(|factor| factor != 1.0)
        {
            return Err(keys.unsupported("partial_rotary_factor", "heads rotate as a whole"));
        }
    }
    let Some(scaling) = scaling else {
        return Ok((theta, RopeScaling::None));
    };
    let (key, kind) = match (scaling.string("rope_type")?, scaling.string("type")?) {
        (Some(kind), _) => ("rope_type", kind),
        (None, Some(kind)) => ("type", kind),
        (None, None) => {
            let plain = ["rope_theta", "partial_rotary_factor"];
            let more = scaling
                .object
                .keys()
                .find(|key| !plain.contains(&key.as_str()));
            if let Some(key) = more {
                let reason = "it says nothing without a rope_type; for each type of layer apart it cannot be set";
                return Err(scaling.unsupported(key, reason));
            }
            ("rope_type", "default")
        }
    };
    let scaling = match kind {
        "default" => RopeScaling::None,
        "linear" => RopeScaling::Linear {
            factor: scaling.float("factor")?,
        },
        "llama3" => RopeScaling::Llama3 {
            factor: scaling.float("factor")?,
            low_freq_factor: scaling.float("low_freq_factor")?,
            high_freq_factor: scaling.float("high_freq_factor")?,
            original_context: scaling.size("original_max_position_embeddings")?,
        },
        _ => return Err(scaling.unsupported(key, "supported are default, linear and llama3")),
    };
    Ok((theta, scaling))
}

/// A JSON object whose errors name keys in full. `null` counts as absent.
#[derive(Clone)]
pub(super) struct Keys {
    prefix: String,
    object: Map<String, Value>,
}

impl Keys {
    pub(super) fn parse(json: &[u8]) -> Result<Self, ConfigError> {
        let object = model_json::parse(json).map_err(|reason| ConfigError::Json { reason })?;
        Ok(Self {
            prefix: String::new(),
            object,
        })
    }

    fn key(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    pub(super) fn missing(&self, name: &str) -> ConfigError {
        ConfigError::Missing {
            key: self.key(name),
        }
    }

    pub(super) fn unsupported(&self, name: &str, reason: &str) -> ConfigError {
        let found = self.object.get(name).map_or_else(String::new, shown);
        ConfigError::Unsupported {
            key: self.key(name),
            found,
            reason: reason.to_owned(),
        }
    }

    fn get(&self, name: &str) -> Option<&Value> {
        self.object.get(name).filter(|value| !value.is_null())
    }

    fn read<'a, T>(
        &'a self,
        name: &str,
        expected: &'static str,
        read: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, ConfigError> {
        let Some(value) = self.get(name) else {
            return Ok(None);
        };
        match read(value) {
            Some(value) => Ok(Some(value)),
            None => Err(ConfigError::Type {
                key: self.key(name),
                expected,
                found: shown(value),
            }),
        }
    }

    pub(super) fn optional_size(&self, name: &str) -> Result<Option<usize>, ConfigError> {
        // Within 32 bits, so that sums and small multiples cannot overflow before sizes are checked.
        self.read(name, "a size", |value| {
            Some(u32::try_from(value.as_u64()?).ok()? as usize)
        })
    }

    pub(super) fn size(&self, name: &str) -> Result<usize, ConfigError> {
        self.optional_size(name)?.ok_or_else(|| self.missing(name))
    }

    pub(super) fn optional_float(&self, name: &str) -> Result<Option<f32>, ConfigError> {
        self.read(name, "a number", |value| Some(value.as_f64()? as f32))
    }

    fn float(&self, name: &str) -> Result<f32, ConfigError> {
        self.optional_float(name)?.ok_or_else(|| self.missing(name))
    }

    fn bool(&self, name: &str, default: bool) -> Result<bool, ConfigError> {
        Ok(self
            .read(name, "true or false", Value::as_bool)?
            .unwrap_or(default))
    }

    pub(super) fn string(&self, name: &str) -> Result<Option<&str>, ConfigError> {
        self.read(name, "a string", Value::as_str)
    }

    fn object(&self, name: &str) -> Result<Option<Self>, ConfigError> {
        let object = self.read(name, "an object", Value::as_object)?;
        Ok(object.map(|object| Self {
            prefix: self.key(name) + ".",
            object: object.clone(),
        }))
    }

    /// Token ids: one, a list, or none.
    fn tokens(&self, name: &str) -> Result<Vec<u32>, ConfigError> {
        // -1 is how some say that there is none.
        let id = |value: &Value| match value.as_i64()? {
            -1 => Some(None),
            id => u32::try_from(id).ok().map(Some),
        };
        let tokens = self.read(name, "a token id or a list of them", |value| match value {
            Value::Array(ids) => ids.iter().map(id).collect::<Option<Vec<_>>>(),
            value => Some(vec![id(value)?]),
        })?;
        Ok(tokens.unwrap_or_default().into_iter().flatten().collect())
    }
}

/// A JSON value for a message: cut, should the file have made it long.
fn shown(value: &Value) -> String {
    value.to_string().chars().take(100).collect()
}
