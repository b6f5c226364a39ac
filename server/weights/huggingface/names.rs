//! From the names that transformers gives tensors to the canonical ones.

use std::path::{Path, PathBuf};

use ::safetensors::Dtype;

use super::safetensors::{SafetensorsEntry, SafetensorsTable};
use crate::config::{Architecture, ModelConfig};
use crate::dtype::DType;
use crate::error::WeightsError;
use crate::table::{TensorEntry, TensorTable};
use crate::tensor::Layout;

/// The tensors of a model's safetensors files (path and table of each) under their canonical names.
///
/// What is stored but not needed, such as attention masks, is left out. [`validate`](crate::validate()) is still
/// to be called.
///
/// # Errors
/// A tensor that the architecture does not have, that is there twice, or of a type that cannot be read.
pub fn canonical_table(
    config: &ModelConfig,
    files: &[(PathBuf, SafetensorsTable)],
) -> Result<TensorTable, WeightsError> {
    let mut tensors = TensorTable::default();
    for (number, (path, table)) in files.iter().enumerate() {
        for (name, entry) in &table.tensors {
            let (canonical, layout) = match role(config, name) {
                Role::Tensor(canonical, layout) => (canonical, layout),
                Role::Redundant => continue,
                Role::Unknown => {
                    return Err(WeightsError::UnexpectedTensor {
                        path: path.clone(),
                        tensor: name.clone(),
                        architecture: config.architecture.as_str(),
                        layers: config.layers,
                    });
                }
            };
            let entry = tensor_entry(path, name, entry, layout, number)?;
            if let Some((tensor, entry)) = tensors.insert(canonical, entry) {
                let first = tensors.get(&tensor).and_then(|first| first.source.clone());
                return Err(WeightsError::DuplicateTensor {
                    path: path.clone(),
                    tensor,
                    first: first.unwrap_or_default(),
                    second: entry.source.unwrap_or_default(),
                });
            }
        }
    }
    Ok(tensors)
}

fn tensor_entry(
    path: &Path,
    name: &str,
    entry: &SafetensorsEntry,
    layout: Layout,
    file: usize,
) -> Result<TensorEntry, WeightsError> {
    let dtype = match entry.dtype {
        Dtype::F32 => DType::F32,
        Dtype::F16 => DType::F16,
        Dtype::BF16 => DType::BF16,
        other => {
            return Err(WeightsError::UnsupportedType {
                path: path.to_owned(),
                tensor: name.to_owned(),
                found: format!("{other:?}"),
                supported: "F32, F16, BF16".into(),
            });
        }
    };
    let mut shape = entry.shape.clone();
    if layout == Layout::Transposed {
        shape.reverse();
    }
    Ok(TensorEntry {
        dtype,
        shape,
        layout,
        file,
        range: entry.range.clone(),
        source: Some(name.to_owned()),
    })
}

/// What a tensor of a file is to the model.
#[derive(Debug, PartialEq, Eq)]
enum Role {
    /// A tensor of this canonical name and layout.
    Tensor(String, Layout),
    /// Stored by some versions of transformers, but computed or tied.
    Redundant,
    /// Nothing that this architecture has.
    Unknown,
}

/// What the tensor `name` is to a model of `config`.
fn role(config: &ModelConfig, name: &str) -> Role {
    let (prefix, layers) = match config.architecture {
        Architecture::Gpt2 => ("transformer.", "h."),
        Architecture::Llama | Architecture::Qwen2 => ("model.", "layers."),
    };
    if name == "lm_head.weight" {
        return match config.tied_head {
            true => Role::Redundant,
            false => Role::Tensor("output.weight".into(), Layout::Rows),
        };
    }
    // A base model that was saved without its head has no prefix.
    let name = name.strip_prefix(prefix).unwrap_or(name);
    let Some(rest) = name.strip_prefix(layers) else {
        return global(config.architecture, name);
    };
    let Some((index, rest)) = rest.split_once('.') else {
        return Role::Unknown;
    };
    // "07" or "+7" would be a second name for layer 7.
    let Some(index) = index
        .parse::<usize>()
        .ok()
        .filter(|n| n.to_string() == index)
    else {
        return Role::Unknown;
    };
    if [
        "attn.bias",
        "attn.masked_bias",
        "self_attn.rotary_emb.inv_freq",
    ]
    .contains(&rest)
    {
        return Role::Redundant;
    }
    let Some((module, part @ ("weight" | "bias"))) = rest.rsplit_once('.') else {
        return Role::Unknown;
    };
    match layer(config.architecture, module) {
        None => Role::Unknown,
        Some((name, conv1d)) => {
            let layout = if conv1d && part == "weight" {
                Layout::Transposed
            } else {
                Layout::Rows
            };
            Role::Tensor(format!("blk.{index}.{name}.{part}"), layout)
        }
    }
}

fn global(architecture: Architecture, name: &str) -> Role {
    let canonical = match (architecture, name) {
        (Architecture::Gpt2, "wte.weight") => "token_embd.weight",
        (Architecture::Gpt2, "wpe.weight") => "position_embd.weight",
        (Architecture::Gpt2, "ln_f.weight") => "output_norm.weight",
        (Architecture::Gpt2, "ln_f.bias") => "output_norm.bias",
        (Architecture::Gpt2, _) => return Role::Unknown,
        (_, "embed_tokens.weight") => "token_embd.weight",
        (_, "norm.weight") => "output_norm.weight",
        (_, "rotary_emb.inv_freq") => return Role::Redundant,
        _ => return Role::Unknown,
    };
    Role::Tensor(canonical.into(), Layout::Rows)
}

/// The canonical name of a layer's module, and whether it is a Conv1D, which stores `[in, out]`.
fn layer(architecture: Architecture, module: &str) -> Option<(&'static str, bool)> {
    Some(match (architecture, module) {
        (Architecture::Gpt2, "ln_1") => ("attn_norm", false),
        (Architecture::Gpt2, "ln_2") => ("ffn_norm", false),
        (Architecture::Gpt2, "attn.c_attn") => ("attn_qkv", true),
        (Architecture::Gpt2, "attn.c_proj") => ("attn_output", true),
        (Architecture::Gpt2, "mlp.c_fc") => ("ffn_up", true),
        (Architecture::Gpt2, "mlp.c_proj") => ("ffn_down", true),
        (Architecture::Gpt2, _) => return None,
        (_, "input_layernorm") => ("attn_norm", false),
        (_, "post_attention_layernorm") => ("ffn_norm", false),
        (_, "self_attn.q_proj") => ("attn_q", false),
        (_, "self_attn.k_proj") => ("attn_k", false),
        (_, "self_attn.v_proj") => ("attn_v", false),
        (_, "self_attn.o_proj") => ("attn_output", false),
        (_, "mlp.gate_proj") => ("ffn_gate", false),
        (_, "mlp.up_proj") => ("ffn_up", false),
        (_, "mlp.down_proj") => ("ffn_down", false),
        _ => return None,
    })
}
