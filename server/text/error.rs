//! What can be wrong with a model's tokenizer or chat template.

use std::path::PathBuf;

/// A failure of the text room. Each names the metadata key or the file that is at fault.
#[derive(Debug, thiserror::Error)]
pub enum TextError {
    /// Neither a `tokenizer.json` nor the files that one can be built from.
    #[error(
        "no tokenizer in {}: expected tokenizer.json, or vocab.json with merges.txt",
        directory.display()
    )]
    NoTokenizer {
        /// The model's directory.
        directory: PathBuf,
    },
    /// The checkpoint is neither a GGUF file nor a directory.
    #[error("the model has neither GGUF metadata nor a directory to take a tokenizer from")]
    NoSource,
    /// A GGUF file without a key that a tokenizer cannot be built without.
    #[error("GGUF metadata has no {key}: the file carries no usable tokenizer")]
    MissingKey {
        /// The metadata key.
        key: &'static str,
    },
    /// A GGUF key holds something else than it must.
    #[error("GGUF metadata {key}: {problem}")]
    Metadata {
        /// The metadata key.
        key: &'static str,
        /// What is wrong with its value.
        problem: String,
    },
    /// A kind of tokenizer that is not built here.
    #[error(
        "{place} is {found:?}, which is not supported; convert the model with one of: {supported}"
    )]
    Unsupported {
        /// The metadata key, or the file and its field.
        place: String,
        /// What it says.
        found: String,
        /// What could be there instead.
        supported: String,
    },
    /// A file that cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file that was read and makes no sense.
    #[error("{}: {problem}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A chat template with a syntax error.
    #[error("chat template in {place}: {problem}")]
    Template {
        /// Where the template was found.
        place: String,
        /// The template engine's message, with the line.
        problem: String,
    },
    /// A chat template that failed on these messages, or refused them by `raise_exception`.
    #[error("chat template in {place} cannot render this prompt: {problem}")]
    Render {
        /// Where the template was found.
        place: String,
        /// The template engine's message, with the line.
        problem: String,
    },
    /// The tokenizer failed on a text.
    #[error("the text cannot be tokenized: {problem}")]
    Encode {
        /// The tokenizer's message.
        problem: String,
    },
}
