//! An answer that was generated once and can be replayed as a stream.

use std::mem::size_of;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A complete answer with what its replay needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CachedAnswer {
    /// The pieces of text as they were emitted. Their concatenation is the answer.
    pub deltas: Vec<String>,
    /// Why the answer ended.
    pub finish_reason: FinishReason,
    /// Length of the prompt in tokens.
    pub prompt_tokens: u32,
    /// Tokens generated, a final end-of-sequence token included.
    pub generated_tokens: u32,
    /// Seed that was used.
    pub seed: u64,
    /// What the client should know about how the prompt was made.
    pub notes: Vec<String>,
    /// The language, as given or as detected; empty if it could not be told.
    pub language: String,
    /// How long the answer took when it was generated.
    pub timings: Timings,
}

/// Why an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FinishReason {
    /// The model said that it had finished.
    Eos,
    /// A stop string appeared.
    Stop,
    /// The most tokens that were asked for were generated.
    Length,
    /// The model's context was full.
    Context,
}

/// How long an answer took when it was generated.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Timings {
    /// From acceptance to the first step.
    pub queue: Duration,
    /// From there to the first generated token.
    pub prefill: Duration,
    /// From the first generated token to the last.
    pub decode: Duration,
}

impl CachedAnswer {
    /// Bytes that the answer takes in memory, without the allocator's own.
    pub fn size_bytes(&self) -> usize {
        let strings = self.deltas.iter().chain(&self.notes);
        let heap: usize = strings.map(|s| s.len() + size_of::<String>()).sum();
        size_of::<Self>() + heap + self.language.len()
    }
}
