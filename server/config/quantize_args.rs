//! The command line of `quantize`.

use std::path::PathBuf;

use clap::Args;

use super::QuantizeConfig;

#[derive(Debug, Args)]
pub(super) struct QuantizeArgs {
    /// Bits of a weight. 8: a scale for every 32 weights. 4: a scale and a minimum for every 32, with embeddings and head
    /// in 8 bits; exact for GGUF files in Q4_0 and Q4_1. Weights take 28 % and 20 % of the memory that they take in fp32
    #[arg(long, value_name = "4|8", value_parser = bits)]
    pub(super) bits: u32,

    /// A GGUF file, or a Hugging Face directory (config.json, safetensors, tokenizer.json)
    #[arg(value_name = "IN")]
    pub(super) input: PathBuf,

    /// The directory to write: a new one, or one that is empty
    #[arg(value_name = "OUT")]
    pub(super) output: PathBuf,
}

impl QuantizeArgs {
    pub(super) fn validate(self) -> QuantizeConfig {
        let Self {
            bits,
            input,
            output,
        } = self;
        QuantizeConfig {
            bits,
            input,
            output,
        }
    }
}

fn bits(text: &str) -> Result<u32, String> {
    match text {
        "4" => Ok(4),
        "8" => Ok(8),
        _ => Err("expected 4 or 8".into()),
    }
}
