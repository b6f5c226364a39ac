//! What happens to an item, in the server's own terms.

use std::sync::Arc;
use std::time::Duration;

use crate::cache::{FinishReason, Level, Timings};
use crate::error::Error;

/// An event of an item, under the client's id.
#[derive(Debug, Clone)]
pub struct ItemEvent {
    /// The client's name for the item.
    pub id: Arc<str>,
    /// What happened.
    pub kind: EventKind,
}

/// What happened to an item.
#[derive(Debug, Clone)]
pub enum EventKind {
    /// It is queued.
    Accepted(Accepted),
    /// So many items are before it in the queue now.
    Queued(usize),
    /// More of the answer.
    Delta {
        /// The text to append.
        text: String,
        /// Counted from 0.
        sequence: u64,
    },
    /// The answer is complete.
    Done(Box<Done>),
    /// It failed.
    Failed(Error),
}

/// An item that was valid.
#[derive(Debug, Clone)]
pub struct Accepted {
    /// Items before it in the queue.
    pub queue_position: usize,
    /// As given or detected.
    pub language: Option<String>,
    /// Length of the prompt.
    pub prompt_tokens: usize,
    /// If asked for.
    pub prompt: Option<String>,
}

/// Why there is no more of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// It is complete.
    Complete(FinishReason),
    /// The item's time was up; the answer may go on for others.
    Deadline,
}

/// An answer that is complete, or as far as it came.
#[derive(Debug, Clone)]
pub struct Done {
    /// Why it ended.
    pub reason: Ending,
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Those of them that were not computed again.
    pub cached_tokens: usize,
    /// Tokens generated.
    pub generated_tokens: usize,
    /// How long it took.
    pub timings: Timings,
    /// From acceptance to the first token.
    pub first_token: Duration,
    /// The largest batch that it rode in; 0 if it came from a cache.
    pub largest_batch: usize,
    /// Where it came from; `None`: the model.
    pub level: Option<Level>,
    /// It was generated for another item, which this one joined.
    pub joined: bool,
    /// Seed that was used.
    pub seed: u64,
    /// Name of the strategy.
    pub strategy: &'static str,
    /// What the client should know.
    pub notes: Vec<String>,
    /// The answer, if asked for.
    pub full_text: Option<String>,
}
