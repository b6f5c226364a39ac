//! What is chosen for a model and a machine where a setting was left open. Pure: what the machine has is an argument.

use std::fmt;

use code_explainer_engine::Precision;

use code_explainer_scheduler::StepLimits;

/// What an engine has to run on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hardware {
    /// The CPU.
    Cpu {
        /// Bytes that the process may use.
        memory: u64,
    },
    /// A CUDA device.
    Cuda,
}

/// What the choice depends on of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ModelFacts {
    /// Most weights lie in its files as blocks of 4 bits that the native engine uses as they are.
    pub four_bits: bool,
    /// The precision that its files are packed in, or its TorchScript module is, if they are.
    pub packed: Option<Precision>,
    /// Bytes of keys and values of a token, in the precision that the KV cache has.
    pub kv_token_bytes: u64,
    /// Parameters.
    pub parameters: u64,
    /// Most tokens of a sequence.
    pub context_length: usize,
}

/// Settings that may be left open.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OpenSettings {
    /// Precision of weights and arithmetic.
    pub precision: Option<Precision>,
    /// Tokens in the KV cache of an engine.
    pub kv_cache_tokens: Option<usize>,
    /// Sequences in a step.
    pub batch_size: Option<usize>,
    /// Tokens in a step.
    pub step_tokens: Option<usize>,
}

/// Settings that are all decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// `None`: what the engine takes by itself.
    pub precision: Option<Precision>,
    /// Tokens in the KV cache of an engine.
    pub kv_cache_tokens: usize,
    /// What a step may hold.
    pub step: StepLimits,
    /// What was chosen, and why, for the log.
    pub reasons: Vec<Reason>,
}

/// Why a setting is what it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason {
    /// Its name.
    pub setting: &'static str,
    /// Its value.
    pub value: String,
    /// Why.
    pub why: &'static str,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} = {}: {}", self.setting, self.value, self.why)
    }
}

impl OpenSettings {
    /// Without `--optimize`: fixed values for what was left open.
    pub fn plain(self) -> Choice {
        let sequences = self.batch_size.unwrap_or(32);
        Choice {
            precision: self.precision,
            kv_cache_tokens: self.kv_cache_tokens.unwrap_or(16384),
            step: StepLimits {
                sequences,
                tokens: self.step_tokens.unwrap_or(256.max(sequences)),
            },
            reasons: Vec::new(),
        }
    }

    /// What suits the model and the machine, for what was left open; `native` tells whether the native engine can be used.
    pub fn optimized(self, model: &ModelFacts, machine: Hardware, native: bool) -> Choice {
        let mut reasons = Vec::new();
        let mut because = |setting, value: String, why| {
            reasons.push(Reason {
                setting,
                value,
                why,
            });
        };
        let precision = self.precision.or_else(|| {
            let (precision, why) = precision(model, machine, native);
            because("precision", precision.to_string(), why);
            Some(precision)
        });
        let sequences = self.batch_size.unwrap_or_else(|| {
            let (sequences, why) = match machine {
                Hardware::Cpu { .. } => {
                    (32, "more sequences at once make no step of a CPU cheaper")
                }
                Hardware::Cuda => (128, "a step of a GPU costs little more with more sequences"),
            };
            because("batch-size", sequences.to_string(), why);
            sequences
        });
        let tokens = self.step_tokens.unwrap_or_else(|| {
            let (tokens, why) = match machine {
                Hardware::Cpu { .. } => (
                    256,
                    "enough rows for the kernels' full speed, and short steps",
                ),
                Hardware::Cuda => (2048, "enough rows to fill a GPU"),
            };
            let tokens = tokens.max(sequences);
            because("step-tokens", tokens.to_string(), why);
            tokens
        });
        let kv_cache_tokens = self.kv_cache_tokens.unwrap_or_else(|| {
            let (tokens, why) = kv_cache_tokens(model, machine, precision, sequences);
            because("kv-cache-tokens", tokens.to_string(), why);
            tokens
        });
        Choice {
            precision,
            kv_cache_tokens,
            step: StepLimits { sequences, tokens },
            reasons,
        }
    }
}

fn precision(model: &ModelFacts, machine: Hardware, native: bool) -> (Precision, &'static str) {
    match (model.packed, machine) {
        (Some(packed), _) => (packed, "the model is packed in it"),
        (None, Hardware::Cuda) => (
            Precision::Bf16,
            "the device computes in it, with the range of fp32",
        ),
        (None, Hardware::Cpu { .. }) if !native => {
            (Precision::Fp32, "libtorch is fastest in it on a CPU")
        }
        (None, Hardware::Cpu { .. }) if model.four_bits => (
            Precision::Int4,
            "the file's weights have 4 bits: used as they are, they lose nothing and are the fastest",
        ),
        (None, Hardware::Cpu { .. }) => (
            Precision::Int8,
            "two to three times as fast as fp32, and closer to it than llama.cpp's Q8_0",
        ),
    }
}

/// Tokens of an answer and its prompt that a sequence has room for in the KV cache, where memory allows it.
const TYPICAL_TOKENS: usize = 512;
/// Less is of no use.
const FEWEST_TOKENS: usize = 1024;

fn kv_cache_tokens(
    model: &ModelFacts,
    machine: Hardware,
    precision: Option<Precision>,
    sequences: usize,
) -> (usize, &'static str) {
    let bits = match precision {
        Some(Precision::Int4) => 5,
        Some(Precision::Int8) => 9,
        Some(Precision::Bf16 | Precision::Fp16) => 16,
        Some(Precision::Fp32) | None => 32,
    };
    let weights = model.parameters * bits / 8;
    let Hardware::Cpu { memory } = machine else {
        return (
            sequences * 2 * TYPICAL_TOKENS,
            "room for a full batch of long sequences",
        );
    };
    let wanted = sequences * TYPICAL_TOKENS;
    // A quarter: the rest is for the caches, for the network, and for other processes.
    let room = memory.saturating_sub(weights) / 4 / model.kv_token_bytes.max(1);
    let room = usize::try_from(room).unwrap_or(usize::MAX);
    if room >= wanted {
        (
            wanted,
            "room for as many sequences of the usual length as a step can have",
        )
    } else {
        (
            room.max(FEWEST_TOKENS),
            "all that the memory leaves room for",
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;
    const MODEL: ModelFacts = ModelFacts {
        four_bits: true,
        packed: None,
        kv_token_bytes: 46_080,
        parameters: 134_515_008,
        context_length: 8192,
    };

    fn on(machine: Hardware, model: ModelFacts) -> Choice {
        OpenSettings::default().optimized(&model, machine, true)
    }

    #[test]
    fn a_cpu_computes_in_the_bits_that_the_file_has() {
        let cpu = Hardware::Cpu { memory: 16 * GIB };
        let precision = |four_bits| on(cpu, ModelFacts { four_bits, ..MODEL }).precision;
        assert_eq!(precision(true), Some(Precision::Int4));
        assert_eq!(precision(false), Some(Precision::Int8));
        let eager = OpenSettings::default().optimized(&MODEL, cpu, false);
        assert_eq!(eager.precision, Some(Precision::Fp32));
        let packed = Some(Precision::Int8);
        assert_eq!(on(cpu, ModelFacts { packed, ..MODEL }).precision, packed);
    }

    #[test]
    fn a_gpu_gets_bf16_and_larger_steps() {
        let choice = on(Hardware::Cuda, MODEL);
        assert_eq!(choice.precision, Some(Precision::Bf16));
        assert!(choice.step.sequences > 32 && choice.step.tokens > 256);
        assert!(choice.kv_cache_tokens > 100_000);
    }

    #[test]
    fn the_kv_cache_fits_into_the_memory() {
        let tokens = |memory| on(Hardware::Cpu { memory }, MODEL).kv_cache_tokens;
        assert_eq!(tokens(64 * GIB), 32 * TYPICAL_TOKENS);
        assert!(tokens(GIB) as u64 * MODEL.kv_token_bytes < GIB / 4);
        assert_eq!(tokens(0), FEWEST_TOKENS);
    }

    #[test]
    fn what_was_set_stays_and_is_not_explained() {
        let settings = OpenSettings {
            precision: Some(Precision::Fp32),
            kv_cache_tokens: Some(4096),
            batch_size: Some(400),
            step_tokens: None,
        };
        let choice = settings.optimized(&MODEL, Hardware::Cpu { memory: GIB }, true);
        assert_eq!(choice.precision, Some(Precision::Fp32));
        assert_eq!((choice.kv_cache_tokens, choice.step.sequences), (4096, 400));
        assert_eq!(
            choice.step.tokens, 400,
            "every decode advances in every step"
        );
        let named: Vec<_> = choice.reasons.iter().map(|r| r.setting).collect();
        assert_eq!(named, ["step-tokens"]);
    }

    #[test]
    fn without_it_the_values_are_fixed() {
        let choice = OpenSettings::default().plain();
        assert_eq!((choice.precision, choice.kv_cache_tokens), (None, 16384));
        assert_eq!((choice.step.sequences, choice.step.tokens), (32, 256));
    }
}
