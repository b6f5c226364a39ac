//! Model files: what is in them, checked before anything is computed with it.
//!
//! A [`Checkpoint`] is a GGUF file or a Hugging Face directory, memory-mapped. Whatever the source, it has one
//! [`ModelConfig`] and one table of tensors under the same names (those of GGUF), in the same layout (`[out, in]` for
//! linear weights, rotary rows in "rotate half" order), so that an engine reads every model with one loop.
//!
//! An [`EncoderCheckpoint`] is the same for a model that turns texts into vectors.
//!
//! A [`PackedModel`] is a checkpoint as `quantize` has written it: the bytes that kernels read.
//!
//! The parsers ([`gguf::Gguf`], [`huggingface::SafetensorsTable`], [`packed::Table`], [`ModelConfig::from_gguf`],
//! [`ModelConfig::from_hugging_face`]) work on byte slices: they believe no length before it is compared with the bytes
//! that are left, and they never panic. That is what the fuzz targets lean on.
//!
//! Reading order: [`config`], [`dtype`], [`tensor`], [`gguf`], [`huggingface`], `validate`, [`checkpoint`], [`packed`].

pub mod checkpoint;
pub mod config;
mod dequantize;
mod digest;
pub mod dtype;
pub mod error;
mod file;
pub mod gguf;
pub mod huggingface;
pub mod model_files;
pub mod model_json;
pub mod packed;
mod rope;
mod table;
pub mod tensor;
mod validate;

pub use checkpoint::Checkpoint;
pub use config::{Activation, Architecture, ModelConfig, RopeScaling};
pub use dtype::DType;
pub use error::{ConfigError, WeightsError};
pub use file::ModelMemory;
pub use gguf::{Array, Gguf, GgufError, Metadata, StringArray, Value};
pub use huggingface::{EncoderCheckpoint, EncoderConfig, SafetensorsError, SafetensorsTable};
pub use packed::{PackedError, PackedModel};
pub use table::{TensorEntry, TensorTable};
pub use tensor::{Layout, TensorView};
pub use validate::validate;
