//! Tiny models, written as GGUF files and as Hugging Face directories, for tests that need a model but not its wisdom.
//!
//! # The weights
//! Tensor `t` (its place in [`TinyModel::tensors`], from 0) has at element `i` (row-major in its logical shape):
//!
//! ```text
//! z = t * 2^32 + i                                            (64-bit, wrapping from here on)
//! z = z + 0x9E3779B97F4A7C15
//! z = (z xor z >> 30) * 0xBF58476D1CE4E5B9
//! z = (z xor z >> 27) * 0x94D049BB133111EB
//! z = z xor z >> 31                                           (this is splitmix64)
//! u = (z >> 40) / 2^23 - 1                                    (in [-1, 1), exact in 32 bits)
//! value = u / 4; for the weights of norms 1 + u / 4
//! ```
//!
//! Everything is exact in 32-bit floats, so that another language computes the same bits.

pub(crate) mod gguf;
pub(crate) mod quantize;
pub(crate) mod safetensors;
pub(crate) mod tokenizer;

use std::fs;
use std::path::Path;

use code_explainer_weights::{Architecture, DType};
use serde_json::{Value, json};

use gguf::{GgufFile, Meta};
use tokenizer::TinyTokenizer;

/// A model of a few thousand weights.
#[derive(Debug, Clone)]
pub(crate) struct TinyModel {
    pub(crate) architecture: Architecture,
    pub(crate) layers: usize,
    pub(crate) hidden: usize,
    pub(crate) intermediate: usize,
    pub(crate) heads: usize,
    pub(crate) kv_heads: usize,
    pub(crate) context_length: usize,
    /// Type of the matrices; vectors are F32, as converters write them.
    pub(crate) dtype: DType,
    pub(crate) tied_head: bool,
    pub(crate) tokenizer: TinyTokenizer,
}

/// A tensor by canonical name, logical shape and values.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct TinyTensor {
    pub(crate) name: String,
    pub(crate) shape: Vec<usize>,
    pub(crate) values: Vec<f32>,
}

impl TinyModel {
    pub(crate) fn new(architecture: Architecture) -> Self {
        let gpt2 = architecture == Architecture::Gpt2;
        Self {
            architecture,
            layers: 2,
            hidden: 64,
            intermediate: 96,
            heads: 4,
            kv_heads: if gpt2 { 4 } else { 2 },
            context_length: 128,
            dtype: DType::F32,
            tied_head: true,
            tokenizer: TinyTokenizer::new(),
        }
    }

    pub(crate) fn with_dtype(self, dtype: DType) -> Self {
        Self { dtype, ..self }
    }

    pub(crate) fn untied(self) -> Self {
        Self {
            tied_head: false,
            ..self
        }
    }

    pub(crate) fn head_dim(&self) -> usize {
        self.hidden / self.heads
    }

    pub(crate) fn vocabulary(&self) -> usize {
        self.tokenizer.len()
    }

    /// All tensors in the order that the formula counts them.
    pub(crate) fn tensors(&self) -> Vec<TinyTensor> {
        let (h, kv) = (self.hidden, self.kv_heads * self.head_dim());
        let gpt2 = self.architecture == Architecture::Gpt2;
        let mut list = List::default();
        list.add("token_embd.weight", &[self.vocabulary(), h]);
        if gpt2 {
            list.add("position_embd.weight", &[self.context_length, h]);
        }
        for layer in 0..self.layers {
            let mut add = |name: &str, shape: &[usize]| {
                list.add(&format!("blk.{layer}.{name}.weight"), shape);
                let qwen2 = ["attn_q", "attn_k", "attn_v"].contains(&name)
                    && self.architecture == Architecture::Qwen2;
                if gpt2 || qwen2 {
                    list.add(&format!("blk.{layer}.{name}.bias"), &shape[..1]);
                }
            };
            add("attn_norm", &[h]);
            if gpt2 {
                add("attn_qkv", &[3 * h, h]);
            } else {
                add("attn_q", &[h, h]);
                add("attn_k", &[kv, h]);
                add("attn_v", &[kv, h]);
            }
            add("attn_output", &[h, h]);
            add("ffn_norm", &[h]);
            if !gpt2 {
                add("ffn_gate", &[self.intermediate, h]);
            }
            add("ffn_up", &[self.intermediate, h]);
            add("ffn_down", &[h, self.intermediate]);
        }
        list.add("output_norm.weight", &[h]);
        if gpt2 {
            list.add("output_norm.bias", &[h]);
        }
        if !self.tied_head {
            list.add("output.weight", &[self.vocabulary(), h]);
        }
        list.tensors
    }

    /// The model as a GGUF file, to be written or broken.
    pub(crate) fn gguf(&self) -> GgufFile {
        let arch = self.architecture.as_str();
        let mut file = GgufFile::default();
        file.set("general.architecture", Meta::str(arch));
        file.set("general.name", Meta::str("Tiny"));
        let norm = match self.architecture {
            Architecture::Gpt2 => "attention.layer_norm_epsilon",
            _ => "attention.layer_norm_rms_epsilon",
        };
        let sizes = [
            ("block_count", self.layers),
            ("context_length", self.context_length),
            ("embedding_length", self.hidden),
            ("feed_forward_length", self.intermediate),
            ("attention.head_count", self.heads),
            ("attention.head_count_kv", self.kv_heads),
            ("vocab_size", self.vocabulary()),
        ];
        for (key, value) in sizes {
            file.set(&format!("{arch}.{key}"), Meta::U32(value as u32));
        }
        file.set(&format!("{arch}.{norm}"), Meta::F32(1e-5));
        if self.architecture != Architecture::Gpt2 {
            file.set(&format!("{arch}.rope.freq_base"), Meta::F32(10_000.0));
        }
        self.tokenizer.add_to_gguf(&mut file, self.architecture);
        for TinyTensor {
            name,
            shape,
            values,
        } in self.tensors()
        {
            let mut values = values;
            if self.architecture == Architecture::Llama {
                let heads = match () {
                    () if name.contains("attn_q.") => Some(self.heads),
                    () if name.contains("attn_k.") => Some(self.kv_heads),
                    () => None,
                };
                if let Some(heads) = heads {
                    values = interleave(&values, shape[0], heads);
                }
            }
            let dtype = if shape.len() > 1 {
                self.dtype
            } else {
                DType::F32
            };
            file.tensor(&name, &shape, dtype, quantize::quantize(dtype, &values));
        }
        file
    }

    /// Writes the model as a GGUF file.
    pub(crate) fn write_gguf(&self, path: &Path) {
        fs::write(path, self.gguf().to_bytes()).expect("write the GGUF file");
    }

    /// `config.json`.
    pub(crate) fn config_json(&self) -> Value {
        let ids = json!({
            "bos_token_id": self.tokenizer.bos(),
            "eos_token_id": self.tokenizer.eos(),
            "vocab_size": self.vocabulary(),
            "tie_word_embeddings": self.tied_head,
            "model_type": self.architecture.as_str(),
        });
        let sizes = match self.architecture {
            Architecture::Gpt2 => json!({
                "architectures": ["GPT2LMHeadModel"],
                "activation_function": "gelu_new",
                "layer_norm_epsilon": 1e-5,
                "n_ctx": self.context_length,
                "n_embd": self.hidden,
                "n_head": self.heads,
                "n_inner": self.intermediate,
                "n_layer": self.layers,
                "n_positions": self.context_length,
            }),
            _ => json!({
                "hidden_act": "silu",
                "hidden_size": self.hidden,
                "intermediate_size": self.intermediate,
                "max_position_embeddings": self.context_length,
                "num_attention_heads": self.heads,
                "num_hidden_layers": self.layers,
                "num_key_value_heads": self.kv_heads,
                "rms_norm_eps": 1e-5,
                "rope_theta": 10_000.0,
            }),
        };
        merged(ids, sizes)
    }

    /// Each tensor as transformers calls and stores it: name, stored shape, type and bytes.
    pub(crate) fn safetensors(&self) -> Vec<safetensors::Stored> {
        let dtype = if self.dtype.is_quantized() {
            DType::F32
        } else {
            self.dtype
        };
        let stored = self.tensors().into_iter().map(
            |TinyTensor {
                 name,
                 mut shape,
                 values,
             }| {
                let (name, conv1d) = hugging_face_name(self.architecture, &name);
                let mut values = values;
                if conv1d && shape.len() == 2 {
                    values = transpose(&values, shape[1]);
                    shape.reverse();
                }
                let data = quantize::quantize(dtype, &values);
                safetensors::Stored {
                    name,
                    dtype: dtype.as_str().to_owned(),
                    shape,
                    data,
                }
            },
        );
        stored.collect()
    }

    /// Writes the model as a Hugging Face directory: in `model.safetensors`, or in several shards with an index.
    pub(crate) fn write_hugging_face(&self, directory: &Path, shards: usize) {
        let write = |name: &str, bytes: &[u8]| {
            fs::write(directory.join(name), bytes).expect("write a file of the model");
        };
        write("config.json", self.config_json().to_string().as_bytes());
        self.tokenizer
            .write_hugging_face(directory, self.architecture);
        let tensors = self.safetensors();
        if shards == 1 {
            return write("model.safetensors", &safetensors::to_bytes(&tensors));
        }
        let mut index = serde_json::Map::new();
        for (number, part) in tensors.chunks(tensors.len().div_ceil(shards)).enumerate() {
            let name = format!("model-{:05}-of-{shards:05}.safetensors", number + 1);
            write(&name, &safetensors::to_bytes(part));
            index.extend(
                part.iter()
                    .map(|t| (t.name.clone(), Value::from(name.clone()))),
            );
        }
        let index = json!({"metadata": {}, "weight_map": index});
        write("model.safetensors.index.json", index.to_string().as_bytes());
    }
}

/// The formula of this module's documentation.
pub(crate) fn value(tensor: usize, element: usize, norm: bool) -> f32 {
    let mut z = ((tensor as u64) << 32).wrapping_add(element as u64);
    z = z.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^= z >> 31;
    let u = (z >> 40) as f32 / (1 << 23) as f32 - 1.0;
    if norm { 1.0 + u / 4.0 } else { u / 4.0 }
}

#[derive(Default)]
struct List {
    tensors: Vec<TinyTensor>,
}

impl List {
    fn add(&mut self, name: &str, shape: &[usize]) {
        let tensor = self.tensors.len();
        let norm = name.ends_with("norm.weight");
        let values = (0..shape.iter().product())
            .map(|i| value(tensor, i, norm))
            .collect();
        self.tensors.push(TinyTensor {
            name: name.into(),
            shape: shape.to_vec(),
            values,
        });
    }
}

/// Rows in the order in which llama.cpp's converter stores query and key projections.
fn interleave(values: &[f32], rows: usize, heads: usize) -> Vec<f32> {
    let (columns, width) = (values.len() / rows, rows / heads);
    let mut stored = Vec::with_capacity(values.len());
    for head in 0..heads {
        for index in 0..width / 2 {
            for half in 0..2 {
                let row = head * width + half * (width / 2) + index;
                stored.extend_from_slice(&values[row * columns..(row + 1) * columns]);
            }
        }
    }
    stored
}

fn transpose(values: &[f32], columns: usize) -> Vec<f32> {
    (0..columns)
        .flat_map(|c| values.iter().skip(c).step_by(columns).copied())
        .collect()
}

/// What transformers calls a canonical tensor, and whether it is a Conv1D.
fn hugging_face_name(architecture: Architecture, name: &str) -> (String, bool) {
    let gpt2 = architecture == Architecture::Gpt2;
    let Some(rest) = name.strip_prefix("blk.") else {
        let name = match (gpt2, name) {
            (_, "output.weight") => "lm_head.weight",
            (true, "token_embd.weight") => "transformer.wte.weight",
            (true, "position_embd.weight") => "transformer.wpe.weight",
            (true, "output_norm.weight") => "transformer.ln_f.weight",
            (true, "output_norm.bias") => "transformer.ln_f.bias",
            (false, "token_embd.weight") => "model.embed_tokens.weight",
            (false, "output_norm.weight") => "model.norm.weight",
            _ => panic!("no tensor {name}"),
        };
        return (name.to_owned(), false);
    };
    let [layer, module, part] = rest.split('.').collect::<Vec<_>>()[..] else {
        panic!("no tensor {name}")
    };
    let (module, conv1d) = match (gpt2, module) {
        (true, "attn_norm") => ("ln_1", false),
        (true, "ffn_norm") => ("ln_2", false),
        (true, "attn_qkv") => ("attn.c_attn", true),
        (true, "attn_output") => ("attn.c_proj", true),
        (true, "ffn_up") => ("mlp.c_fc", true),
        (true, "ffn_down") => ("mlp.c_proj", true),
        (false, "attn_norm") => ("input_layernorm", false),
        (false, "ffn_norm") => ("post_attention_layernorm", false),
        (false, "attn_q") => ("self_attn.q_proj", false),
        (false, "attn_k") => ("self_attn.k_proj", false),
        (false, "attn_v") => ("self_attn.v_proj", false),
        (false, "attn_output") => ("self_attn.o_proj", false),
        (false, "ffn_gate") => ("mlp.gate_proj", false),
        (false, "ffn_up") => ("mlp.up_proj", false),
        (false, "ffn_down") => ("mlp.down_proj", false),
        _ => panic!("no tensor {name}"),
    };
    let prefix = if gpt2 {
        "transformer.h"
    } else {
        "model.layers"
    };
    (format!("{prefix}.{layer}.{module}.{part}"), conv1d)
}

fn merged(mut a: Value, b: Value) -> Value {
    if let (Value::Object(a), Value::Object(b)) = (&mut a, b) {
        a.extend(b);
    }
    a
}
