//! Why a model's files cannot be served. Every message names the file, the key or tensor, and what would be right.
//!
//! The parsers see bytes and know no file: their own errors ([`GgufError`], [`SafetensorsError`], [`PackedError`], [`ConfigError`]) are
//! wrapped in a [`WeightsError`] by whoever knows the path.

use std::path::{Path, PathBuf};

use super::gguf::GgufError;
use super::huggingface::SafetensorsError;
use super::packed::PackedError;

/// A model cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    /// Nothing is there.
    #[error(
        "{path}: no such file or directory; give a GGUF file or a Hugging Face directory{from}",
        from = from(path)
    )]
    NotFound {
        /// As asked for.
        path: PathBuf,
    },
    /// The operating system refused.
    #[error("{path}: cannot be read: {source}")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file of no bytes.
    #[error("{path}: the file is empty; was its download cut?")]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// Neither a file nor a directory.
    #[error("{path}: neither a regular file nor a directory")]
    NotAFile {
        /// A device, socket or pipe.
        path: PathBuf,
    },
    /// A file that is not GGUF, or a broken one.
    #[error("{path}: {source}")]
    Gguf {
        /// The file.
        path: PathBuf,
        /// What is wrong in it.
        source: GgufError,
    },
    /// A broken safetensors file.
    #[error("{path}: {source}")]
    Safetensors {
        /// The file.
        path: PathBuf,
        /// What is wrong in it.
        source: SafetensorsError,
    },
    /// A packed model that is broken, or not for this server.
    #[error("{path}: {source}")]
    Packed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: PackedError,
    },
    /// A file that was to be made.
    #[error("{path}: cannot be written: {source}")]
    Write {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Metadata or `config.json` describe no model that can be run.
    #[error("{path}: {source}")]
    Config {
        /// The file.
        path: PathBuf,
        /// What is wrong in it.
        source: ConfigError,
    },
    /// A directory that is not a Hugging Face checkpoint.
    #[error("{path}: the directory has no config.json; {hint}")]
    NoConfig {
        /// The directory.
        path: PathBuf,
        /// What it has instead, or what is expected.
        hint: String,
    },
    /// A checkpoint without weights that can be read.
    #[error("{path}: the directory has no *.safetensors file; {hint}")]
    NoSafetensors {
        /// The directory.
        path: PathBuf,
        /// What it has instead, or what is expected.
        hint: String,
    },
    /// `model.safetensors.index.json` is not what it should be.
    #[error("{path}: {reason}")]
    Index {
        /// The index.
        path: PathBuf,
        /// What is wrong in it.
        reason: String,
    },
    /// A shard that the index names is not there.
    #[error("{shard}: the shard is missing; {index} names it for tensor '{tensor}'")]
    MissingShard {
        /// The index.
        index: PathBuf,
        /// The shard.
        shard: PathBuf,
        /// A tensor that should be in it.
        tensor: String,
    },
    /// A tensor is not in the shard that the index names.
    #[error("{shard}: has no tensor '{tensor}', which {index} says it holds")]
    NotInShard {
        /// The index.
        index: PathBuf,
        /// The shard.
        shard: PathBuf,
        /// The tensor, as the file calls it.
        tensor: String,
    },
    /// Two tensors of one name.
    #[error("{path}: tensor '{tensor}' is there twice (as '{first}' and as '{second}')")]
    DuplicateTensor {
        /// The file or directory.
        path: PathBuf,
        /// Its canonical name.
        tensor: String,
        /// What one file calls it.
        first: String,
        /// What the other calls it.
        second: String,
    },
    /// A tensor that the architecture needs is not there.
    #[error("{path}: tensor '{tensor}' is missing; {architecture} needs it in shape {expected:?}")]
    MissingTensor {
        /// The file or directory.
        path: PathBuf,
        /// Its canonical name.
        tensor: String,
        /// The architecture.
        architecture: &'static str,
        /// The shape it should have.
        expected: Vec<usize>,
    },
    /// A tensor that the architecture does not have.
    #[error(
        "{path}: tensor '{tensor}' is not part of a {architecture} model of {layers} layers; without it the model would \
         compute something else than it was trained for"
    )]
    UnexpectedTensor {
        /// The file or directory.
        path: PathBuf,
        /// Its name in the file.
        tensor: String,
        /// The architecture.
        architecture: &'static str,
        /// The number of layers.
        layers: usize,
    },
    /// A tensor's shape is not what the configuration says.
    #[error(
        "{path}: tensor '{tensor}' has shape {found:?}, but the model's configuration makes it {expected:?}"
    )]
    Shape {
        /// The file or directory.
        path: PathBuf,
        /// Its canonical name.
        tensor: String,
        /// What the configuration says.
        expected: Vec<usize>,
        /// What the file has.
        found: Vec<usize>,
    },
    /// A tensor of a type that cannot be read.
    #[error("{path}: tensor '{tensor}' has type {found}; supported are {supported}")]
    UnsupportedType {
        /// The file or directory.
        path: PathBuf,
        /// Its name in the file.
        tensor: String,
        /// Its type.
        found: String,
        /// The types that can be read.
        supported: String,
    },
    /// A reader asked for a tensor that this model does not have.
    #[error("{path}: has no tensor '{tensor}'")]
    NoSuchTensor {
        /// The file or directory.
        path: PathBuf,
        /// The canonical name asked for.
        tensor: String,
    },
}

/// Metadata or `config.json` describe no model that can be run.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ConfigError {
    /// Not JSON, or not an object.
    #[error("not valid JSON: {reason}")]
    Json {
        /// What the parser said, with line and column.
        reason: String,
    },
    /// A key that must be there is not.
    #[error("'{key}' is missing")]
    Missing {
        /// The key.
        key: String,
    },
    /// A value of the wrong type.
    #[error("'{key}' must be {expected}, not {found}")]
    Type {
        /// The key.
        key: String,
        /// The type it should have.
        expected: &'static str,
        /// What is there.
        found: String,
    },
    /// A value that makes no sense.
    #[error("'{key}' is {found}; it must be {expected}")]
    Value {
        /// The key.
        key: String,
        /// What is there.
        found: String,
        /// What would be right.
        expected: String,
    },
    /// An architecture that cannot be run.
    #[error("architecture '{found}' is not supported; supported are {supported}")]
    Architecture {
        /// What the file says.
        found: String,
        /// What can be run.
        supported: String,
    },
    /// A feature that would change the model's answers and is not implemented.
    #[error("'{key}' is {found}, which is not supported: {reason}")]
    Unsupported {
        /// The key.
        key: String,
        /// What is there.
        found: String,
        /// What is, or what to do.
        reason: String,
    },
}

/// Where a relative path was looked for: the default one is of the directory that the project was built in.
fn from(path: &Path) -> String {
    if path.is_absolute() {
        return String::new();
    }
    let here = std::env::current_dir();
    here.map_or_else(
        |_| String::new(),
        |here| format!(" (seen from {})", here.display()),
    )
}
