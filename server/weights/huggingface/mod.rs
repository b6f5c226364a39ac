//! Hugging Face checkpoints: a directory with `config.json` and one or several safetensors files.

mod config;
mod directory;
mod encoder;
mod error;
mod names;
mod safetensors;

pub(super) use directory::{Directory, SMALL_FILES};
pub use encoder::{EncoderCheckpoint, EncoderConfig, check as check_encoder};
pub use error::SafetensorsError;
pub use names::canonical_table;
pub use safetensors::{SafetensorsEntry, SafetensorsTable};
