//! The GGUF container, versions 2 and 3: typed metadata, a table of tensors, aligned data.
//!
//! Format: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>.

mod cursor;
mod error;
mod header;
mod metadata;
mod model;
mod values;

pub use error::GgufError;
pub(super) use header::without_tensors;
pub use header::{Gguf, MAGIC};
pub use metadata::{Array, Metadata, StringArray, Value};
pub use model::{GgufModel, read_model};
