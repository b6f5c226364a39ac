//! An answer that was generated once and can be replayed as a stream.

use std::mem::size_of;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A complete answer with what its replay needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CachedAnswer {
    /// The pieces of text as they were emitted. Their concatenation is the answer.
    pub deltas: Vec<CachedDelta>,
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

/// A piece of an answer's text, and when it came.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CachedDelta {
    /// The text.
    pub text: String,
    /// Microseconds from the first step that worked on the answer to this piece.
    pub at_us: u64,
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
    /// The whole answer.
    pub fn text(&self) -> String {
        self.deltas
            .iter()
            .map(|delta| delta.text.as_str())
            .collect()
    }

    /// Bytes that the answer takes in memory, without the allocator's own.
    pub fn size_bytes(&self) -> usize {
        let deltas = self.deltas.iter();
        let deltas = deltas.map(|d| d.text.len() + size_of::<CachedDelta>());
        let notes = self.notes.iter().map(|n| n.len() + size_of::<String>());
        size_of::<Self>() + deltas.chain(notes).sum::<usize>() + self.language.len()
    }
}
