//! Which tensors an architecture needs, and that they are there.

use std::collections::HashSet;
use std::path::Path;

use super::config::{Architecture, ModelConfig};
use super::error::WeightsError;
use super::table::TensorTable;

/// One tensor of an architecture.
pub(crate) struct Expected {
    pub(crate) name: String,
    pub(crate) shape: Vec<usize>,
    pub(crate) optional: bool,
}

/// Checks that every tensor the model needs is there in the right shape, and that no other is: a tensor that nobody reads
/// would mean that the model is not what it was trained to be. An engine can rely on it. Gives back the number of
/// parameters.
///
/// `path` is for messages only.
pub fn validate(
    config: &ModelConfig,
    tensors: &TensorTable,
    path: &Path,
) -> Result<u64, WeightsError> {
    let mut parameters = 0;
    let mut known = HashSet::new();
    let layers = (0..config.layers).flat_map(|layer| layer_tensors(config, layer));
    for Expected {
        name,
        shape,
        optional,
    } in global_tensors(config).into_iter().chain(layers)
    {
        match tensors.get(&name) {
            None if optional => {}
            None => {
                return Err(WeightsError::MissingTensor {
                    path: path.to_owned(),
                    tensor: name,
                    architecture: config.architecture.as_str(),
                    expected: shape,
                });
            }
            Some(entry) if entry.shape != shape => {
                return Err(WeightsError::Shape {
                    path: path.to_owned(),
                    tensor: name,
                    expected: shape,
                    found: entry.shape.clone(),
                });
            }
            Some(entry) => {
                // Frequencies are computed, not learned.
                if name != "rope_freqs.weight" {
                    parameters += entry.elements() as u64;
                }
                known.insert(name);
            }
        }
    }
    match tensors.iter().find(|(name, _)| !known.contains(*name)) {
        None => Ok(parameters),
        Some((name, entry)) => Err(WeightsError::UnexpectedTensor {
            path: path.to_owned(),
            tensor: entry.source.as_deref().unwrap_or(name).to_owned(),
            architecture: config.architecture.as_str(),
            layers: config.layers,
        }),
    }
}

fn global_tensors(config: &ModelConfig) -> Vec<Expected> {
    let mut list = List::new(String::new());
    list.needed("token_embd.weight", &[config.vocabulary, config.hidden]);
    if config.architecture == Architecture::Gpt2 {
        // The table has the trained context even where `context_length` is clamped; GPT-2 has no window to clamp to.
        list.needed(
            "position_embd.weight",
            &[config.context_length, config.hidden],
        );
        list.needed("output_norm.bias", &[config.hidden]);
    } else {
        list.optional("rope_freqs.weight", &[config.rotary_dim / 2]);
    }
    list.needed("output_norm.weight", &[config.hidden]);
    if !config.tied_head {
        list.needed("output.weight", &[config.vocabulary, config.hidden]);
    }
    list.tensors
}

fn layer_tensors(config: &ModelConfig, layer: usize) -> Vec<Expected> {
    let ModelConfig {
        hidden,
        intermediate,
        head_dim,
        ..
    } = *config;
    let (q, kv) = (config.heads * head_dim, config.kv_heads * head_dim);
    let mut list = List::new(format!("blk.{layer}."));
    list.needed("attn_norm.weight", &[hidden]);
    list.needed("attn_output.weight", &[hidden, q]);
    list.needed("ffn_norm.weight", &[hidden]);
    list.needed("ffn_up.weight", &[intermediate, hidden]);
    list.needed("ffn_down.weight", &[hidden, intermediate]);
    match config.architecture {
        Architecture::Gpt2 => {
            list.needed("attn_norm.bias", &[hidden]);
            list.needed("attn_qkv.weight", &[q + 2 * kv, hidden]);
            list.needed("attn_qkv.bias", &[q + 2 * kv]);
            list.needed("attn_output.bias", &[hidden]);
            list.needed("ffn_norm.bias", &[hidden]);
            list.needed("ffn_up.bias", &[intermediate]);
            list.needed("ffn_down.bias", &[hidden]);
        }
        Architecture::Llama | Architecture::Qwen2 => {
            list.needed("attn_q.weight", &[q, hidden]);
            list.needed("attn_k.weight", &[kv, hidden]);
            list.needed("attn_v.weight", &[kv, hidden]);
            list.needed("ffn_gate.weight", &[intermediate, hidden]);
            let optional = config.architecture == Architecture::Llama;
            list.add("attn_q.bias", &[q], optional);
            list.add("attn_k.bias", &[kv], optional);
            list.add("attn_v.bias", &[kv], optional);
            list.optional("attn_output.bias", &[hidden]);
            list.optional("ffn_gate.bias", &[intermediate]);
            list.optional("ffn_up.bias", &[intermediate]);
            list.optional("ffn_down.bias", &[hidden]);
        }
    }
    list.tensors
}

struct List {
    prefix: String,
    tensors: Vec<Expected>,
}

impl List {
    fn new(prefix: String) -> Self {
        Self {
            prefix,
            tensors: Vec::new(),
        }
    }

    fn needed(&mut self, name: &str, shape: &[usize]) {
        self.add(name, shape, false);
    }

    fn optional(&mut self, name: &str, shape: &[usize]) {
        self.add(name, shape, true);
    }

    fn add(&mut self, name: &str, shape: &[usize], optional: bool) {
        let name = format!("{}{name}", self.prefix);
        self.tensors.push(Expected {
            name,
            shape: shape.to_vec(),
            optional,
        });
    }
}
