//! What a model is: its architecture and sizes, read from GGUF metadata or `config.json` into one struct.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::error::ConfigError;

/// A model family that can be run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Architecture {
    /// Llama and those built like it: SmolLM2, Mistral.
    Llama,
    /// Qwen2 and Qwen2.5: Llama with biases on query, key and value.
    Qwen2,
    /// GPT-2: learned positions, LayerNorm, one joint query-key-value projection.
    Gpt2,
}

impl Architecture {
    /// Every architecture that can be run.
    pub const ALL: [Self; 3] = [Self::Llama, Self::Qwen2, Self::Gpt2];

    /// Its name: "llama", "qwen2" or "gpt2".
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Llama => "llama",
            Self::Qwen2 => "qwen2",
            Self::Gpt2 => "gpt2",
        }
    }
}

impl Architecture {
    /// The names of all that can be run, for messages.
    pub(crate) fn supported() -> String {
        Self::ALL.map(Self::as_str).join(", ")
    }
}

impl fmt::Display for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The feed-forward network's activation function.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// `x * sigmoid(x)`.
    Silu,
    /// GELU by its tanh approximation (`gelu_new`).
    GeluTanh,
    /// GELU by the error function.
    Gelu,
}

/// How rotary frequencies are changed to reach a longer context.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum RopeScaling {
    /// Not at all, or by the factors in the tensor `rope_freqs.weight` alone.
    None,
    /// Every frequency is divided by `factor`.
    Linear {
        /// At least 1 in practice; positive.
        factor: f32,
    },
    /// Llama 3.1: low frequencies are divided by `factor`, high ones kept, a smooth ramp between.
    Llama3 {
        /// Divisor of the low frequencies.
        factor: f32,
        /// Wavelengths longer than `original_context / low_freq_factor` are low frequencies.
        low_freq_factor: f32,
        /// Wavelengths shorter than `original_context / high_freq_factor` are kept.
        high_freq_factor: f32,
        /// Context length before the scaling.
        original_context: usize,
    },
}

/// Architecture and sizes of a model. All values have been checked against each other.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// The family.
    pub architecture: Architecture,
    /// Number of transformer blocks.
    pub layers: usize,
    /// Width of the residual stream and of the embedding.
    pub hidden: usize,
    /// Width of the feed-forward network.
    pub intermediate: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Width of a head; `heads * head_dim` need not be `hidden`.
    pub head_dim: usize,
    /// Rows of the embedding.
    pub vocabulary: usize,
    /// Most positions that full attention is right for: the trained context, clamped to the sliding window if there is
    /// one (`notes` says so).
    pub context_length: usize,
    /// Added to the variance in RMSNorm or LayerNorm.
    pub norm_eps: f32,
    /// Base of the rotary frequencies; not used by GPT-2.
    pub rope_theta: f32,
    /// Scaling of the rotary frequencies.
    pub rope_scaling: RopeScaling,
    /// How many of a head's dimensions rotate, from the first; even; 0 for GPT-2.
    pub rotary_dim: usize,
    /// The feed-forward network's activation.
    pub activation: Activation,
    /// Whether logits use the embedding; then there is no `output.weight`.
    pub tied_head: bool,
    /// Begin-of-sequence token.
    pub bos: Option<u32>,
    /// Tokens that end an answer, without duplicates.
    pub eos: Vec<u32>,
    /// Width of the attention window the model was trained with, if narrower than its context.
    pub sliding_window: Option<usize>,
    /// What the operator should know, a sentence each, such as a clamped context.
    pub notes: Vec<String>,
}

/// No model has a dimension near this; sizes below it cannot overflow when two are multiplied.
const LARGEST: usize = 1 << 28;

impl ModelConfig {
    /// Checks the values against each other, whatever file they are from, and clamps the context to the window.
    pub(super) fn checked(mut self) -> Result<Self, ConfigError> {
        let sizes = [
            ("number of layers", self.layers, 1 << 16),
            ("hidden size", self.hidden, LARGEST),
            ("intermediate size", self.intermediate, LARGEST),
            ("number of attention heads", self.heads, 1 << 16),
            ("number of key-value heads", self.kv_heads, 1 << 16),
            ("head dimension", self.head_dim, 1 << 16),
            ("vocabulary size", self.vocabulary, LARGEST),
            ("context length", self.context_length, LARGEST),
        ];
        for (name, value, most) in sizes {
            if !(1..=most).contains(&value) {
                return Err(invalid(name, value, format!("from 1 to {most}")));
            }
        }
        if !self.heads.is_multiple_of(self.kv_heads) {
            let expected = format!("a divisor of the {} attention heads", self.heads);
            return Err(invalid(
                "number of key-value heads",
                self.kv_heads,
                expected,
            ));
        }
        let joint = self.architecture == Architecture::Gpt2;
        if joint && (self.kv_heads != self.heads || self.heads * self.head_dim != self.hidden) {
            let expected = "as many key-value heads, which share the hidden size".to_owned();
            return Err(invalid("number of attention heads", self.heads, expected));
        }
        if self.rotary_dim > self.head_dim || !self.rotary_dim.is_multiple_of(2) {
            let expected = format!("even and at most the head dimension {}", self.head_dim);
            return Err(invalid("rotary dimension", self.rotary_dim, expected));
        }
        if !(self.norm_eps.is_finite() && self.norm_eps >= 0.0) {
            return Err(invalid(
                "norm epsilon",
                self.norm_eps,
                "finite and not negative".into(),
            ));
        }
        if !(self.rope_theta.is_finite() && self.rope_theta > 0.0) {
            return Err(invalid(
                "rope theta",
                self.rope_theta,
                "finite and positive".into(),
            ));
        }
        self.rope_scaling.check()?;
        self.clamp_to_window()?;
        self.drop_impossible_tokens();
        Ok(self)
    }

    fn clamp_to_window(&mut self) -> Result<(), ConfigError> {
        match self.sliding_window {
            Some(0) => Err(invalid("sliding window", 0, "at least 1".into())),
            Some(window) if window < self.context_length => {
                self.notes.push(format!(
                    "context length clamped from {} to {window}: the model attends to a sliding window of {window} \
                     tokens, and up to there full attention is the same",
                    self.context_length
                ));
                self.context_length = window;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// An id outside the vocabulary can never be sampled, so it is noted, not an error: small test models have such.
    fn drop_impossible_tokens(&mut self) {
        let possible = |id: u32| (id as usize) < self.vocabulary;
        let mut dropped: Vec<u32> = self
            .bos
            .iter()
            .copied()
            .filter(|&id| !possible(id))
            .collect();
        dropped.extend(self.eos.iter().copied().filter(|&id| !possible(id)));
        self.bos = self.bos.filter(|&id| possible(id));
        let mut seen = std::collections::HashSet::new();
        self.eos
            .retain(|&id| (id as usize) < self.vocabulary && seen.insert(id));
        if !dropped.is_empty() {
            self.notes.push(format!(
                "begin- or end-of-sequence tokens {dropped:?} ignored: the vocabulary has only {} tokens",
                self.vocabulary
            ));
        }
    }
}

impl RopeScaling {
    fn check(&self) -> Result<(), ConfigError> {
        let positive = |name: &str, value: f32| {
            if value.is_finite() && value > 0.0 {
                return Ok(());
            }
            Err(invalid(name, value, "finite and positive".into()))
        };
        match *self {
            Self::None => Ok(()),
            Self::Linear { factor } => positive("rope scaling factor", factor),
            Self::Llama3 {
                factor,
                low_freq_factor,
                high_freq_factor,
                original_context,
            } => {
                positive("rope scaling factor", factor)?;
                positive("rope scaling low_freq_factor", low_freq_factor)?;
                positive("rope scaling high_freq_factor", high_freq_factor)?;
                if high_freq_factor <= low_freq_factor {
                    let expected = format!("more than low_freq_factor, {low_freq_factor}");
                    return Err(invalid(
                        "rope scaling high_freq_factor",
                        high_freq_factor,
                        expected,
                    ));
                }
                if original_context == 0 {
                    return Err(invalid(
                        "rope scaling original context",
                        0,
                        "at least 1".into(),
                    ));
                }
                Ok(())
            }
        }
    }
}

fn invalid(key: &str, found: impl fmt::Display, expected: String) -> ConfigError {
    ConfigError::Value {
        key: key.to_owned(),
        found: found.to_string(),
        expected,
    }
}
