//! The door to a model that turns texts into vectors.

use super::EngineError;

/// An embedding model, ready to run. Synchronous and driven by one thread, like a [`Backend`](super::Backend).
pub trait Encoder: Send {
    /// What was loaded. Does not change.
    fn info(&self) -> &EncoderInfo;

    /// The vectors of texts, in order, each of [`EncoderInfo::dimensions`] numbers and of length 1. Shorter texts are
    /// padded to the longest one; a vector's last bits can depend on that.
    ///
    /// # Errors
    /// A failed call leaves the encoder usable.
    fn encode(&mut self, texts: &[&[u32]]) -> Result<Vec<Vec<f32>>, EngineError>;
}

/// What an encoder has loaded.
#[derive(Debug, Clone, PartialEq)]
pub struct EncoderInfo {
    /// Name of the model.
    pub model: String,
    /// Tells it from other models.
    pub digest: String,
    /// Numbers in a vector.
    pub dimensions: usize,
    /// The most tokens that a text may have.
    pub positions: usize,
    /// Number of tokens in the vocabulary.
    pub vocabulary: usize,
    /// "cpu", "cuda:0".
    pub device: String,
    /// Bytes of the weights.
    pub weights_bytes: u64,
}
