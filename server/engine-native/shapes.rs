//! Which matrices and vectors a model has, and which of a checkpoint's tensors become which.

use code_explainer_engine::EngineError;
use code_explainer_engine::Precision;
use code_explainer_weights::{Activation, Architecture, ModelConfig};

use super::kernels::quantized_weights::Bits;

/// What a model needs that this engine has no kernel for; `None`: it runs the model.
pub fn lacks(config: &ModelConfig) -> Option<&'static str> {
    match (config.architecture, config.activation) {
        (Architecture::Gpt2, Activation::Silu) => Some("SiLU in a network without a gate"),
        (Architecture::Gpt2, Activation::Gelu | Activation::GeluTanh) => None,
        (Architecture::Llama | Architecture::Qwen2, Activation::Silu) => None,
        (Architecture::Llama | Architecture::Qwen2, Activation::Gelu | Activation::GeluTanh) => {
            Some("GELU in a gated network")
        }
    }
}

/// # Errors
/// The engine lacks something that the model needs.
pub(super) fn runs(config: &ModelConfig) -> Result<(), EngineError> {
    lacks(config).map_or(Ok(()), |lack| {
        Err(EngineError::Device {
            device: "cpu".to_owned(),
            reason: format!(
                "the native engine has no {lack}, which this model needs (its activation function); use --engine eager"
            ),
        })
    })
}

/// A packed matrix: some rows of some tensors, one part after the other.
#[derive(Debug, Clone)]
pub struct MatrixShape {
    /// Its name, such as `blk.0.qkv`.
    pub name: String,
    /// Bits of a weight; `None`: fp32.
    pub bits: Option<Bits>,
    /// Columns of all parts.
    pub inputs: usize,
    /// What it is made of.
    pub parts: Vec<Part>,
}

/// Some rows of a tensor.
#[derive(Debug, Clone)]
pub struct Part {
    /// The tensor's name, without `.weight` or `.bias`.
    pub name: String,
    /// The first row.
    pub first: usize,
    /// How many rows.
    pub rows: usize,
}

/// A transformer block.
#[derive(Debug, Clone)]
pub struct LayerShape {
    /// The norm before attention.
    pub attention_norm: String,
    /// Query, key and value.
    pub qkv: MatrixShape,
    /// Attention's way out.
    pub attention_out: MatrixShape,
    /// The norm before the feed-forward network.
    pub feed_forward_norm: String,
    /// Gate and up, or up alone.
    pub up: MatrixShape,
    /// The feed-forward network's way out.
    pub down: MatrixShape,
}

/// A model's shapes in a precision.
#[derive(Debug, Clone, Copy)]
pub struct Shapes<'a> {
    /// Sizes.
    pub config: &'a ModelConfig,
    /// Of the blocks' weights; `None`: fp32.
    bits: Option<Bits>,
    /// Of the head and the embeddings; `None`: fp32.
    head_bits: Option<Bits>,
}

impl<'a> Shapes<'a> {
    /// Those in `precision`; `None` for one that the native engine does not have.
    pub fn new(config: &'a ModelConfig, precision: Precision) -> Option<Self> {
        let (bits, head_bits) = match precision {
            Precision::Fp32 => (None, None),
            // The head decides between tokens that are close: 4 bits are too few for it.
            Precision::Int8 => (Some(Bits::Eight), Some(Bits::Eight)),
            Precision::Int4 => (Some(Bits::Four), Some(Bits::Eight)),
            Precision::Bf16 | Precision::Fp16 => return None,
        };
        Some(Self {
            config,
            bits,
            head_bits,
        })
    }

    /// Where embeddings come from, if not from the head.
    pub fn embedding(&self) -> Option<MatrixShape> {
        (!self.config.tied_head).then(|| self.table("token_embd"))
    }

    /// The vocabulary head.
    pub fn head(&self) -> MatrixShape {
        self.table(match self.config.tied_head {
            true => "token_embd",
            false => "output",
        })
    }

    /// Block `index`.
    pub fn layer(&self, index: usize) -> LayerShape {
        let ModelConfig {
            hidden,
            intermediate,
            ..
        } = *self.config;
        let (q, kv) = self.attention_widths();
        let name = |suffix: &str| format!("blk.{index}.{suffix}");
        let qkv = match self.is_gpt2() {
            true => [(0, q), (q, kv), (q + kv, kv)].map(|(first, rows)| Part {
                name: name("attn_qkv"),
                first,
                rows,
            }),
            false => [("attn_q", q), ("attn_k", kv), ("attn_v", kv)]
                .map(|(suffix, rows)| whole(&name(suffix), rows)),
        };
        let up = match self.is_gpt2() {
            true => vec![whole(&name("ffn_up"), intermediate)],
            false => ["ffn_gate", "ffn_up"]
                .map(|s| whole(&name(s), intermediate))
                .into(),
        };
        let matrix = |suffix: &str, inputs, parts| MatrixShape {
            name: name(suffix),
            bits: self.bits,
            inputs,
            parts,
        };
        let square =
            |suffix: &str, inputs| matrix(suffix, inputs, vec![whole(&name(suffix), hidden)]);
        LayerShape {
            attention_norm: name("attn_norm"),
            qkv: matrix("qkv", hidden, qkv.into()),
            attention_out: square("attn_output", q),
            feed_forward_norm: name("ffn_norm"),
            up: matrix("up", hidden, up),
            down: square("ffn_down", intermediate),
        }
    }

    /// The vectors of a norm.
    pub fn norm_vectors(&self, norm: &str) -> Vec<String> {
        let suffixes: &[&str] = match self.is_gpt2() {
            true => &["weight", "bias"],
            false => &["weight"],
        };
        suffixes.iter().map(|s| format!("{norm}.{s}")).collect()
    }

    /// Whether it is a GPT-2: LayerNorm, learned positions, one joint query-key-value projection.
    pub fn is_gpt2(&self) -> bool {
        self.config.architecture == Architecture::Gpt2
    }

    /// Columns of all queries, and of all keys.
    pub fn attention_widths(&self) -> (usize, usize) {
        let ModelConfig {
            heads,
            kv_heads,
            head_dim,
            ..
        } = *self.config;
        (heads * head_dim, kv_heads * head_dim)
    }

    fn table(&self, name: &str) -> MatrixShape {
        MatrixShape {
            name: name.to_owned(),
            bits: self.head_bits,
            inputs: self.config.hidden,
            parts: vec![whole(name, self.config.vocabulary)],
        }
    }
}

fn whole(name: &str, rows: usize) -> Part {
    Part {
        name: name.to_owned(),
        first: 0,
        rows,
    }
}
