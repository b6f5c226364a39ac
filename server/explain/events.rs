//! What happens to an item, in the server's own terms.

use std::sync::Arc;
use std::time::Duration;

use code_explainer_cache::{FinishReason, Level, Timings};

use crate::error::Error;
use crate::retrieval::{Found, Kind};

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
    /// Of the stream, without an id: it is served on these terms.
    Opened(Box<Opened>),
    /// Of the stream: more may be sent.
    Credit(Credit),
    /// Of the stream: how its items fare.
    Progress(Progress),
    /// Of the stream: it takes no more items.
    GoAway(Box<GoAway>),
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
    /// What the prompt quoted, the best first.
    pub sources: Vec<Source>,
    /// The answer, if asked for.
    pub full_text: Option<String>,
}

/// The terms on which a stream is served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opened {
    /// By which it can be gone on with after its connection is lost; empty: it cannot.
    pub token: String,
    /// For how long after that.
    pub ttl: Duration,
    /// It goes on where it was.
    pub resumed: bool,
    /// Items that the client asked for and that are not there.
    pub unknown: Vec<String>,
    /// What may be sent.
    pub credit: Credit,
}

/// What a client may send more than it has been told before.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Credit {
    /// Items.
    pub items: usize,
    /// Bytes of code.
    pub code_bytes: usize,
}

/// How a stream's items fare.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Progress {
    /// Answered.
    pub done: u64,
    /// Failed or refused.
    pub failed: u64,
    /// Cancelled.
    pub cancelled: u64,
    /// In flight, and not begun by an engine.
    pub queued: u64,
    /// In flight, and begun.
    pub running: u64,
    /// Items that end in a second.
    pub items_per_second: f64,
    /// Generated tokens of answered items in a second.
    pub tokens_per_second: f64,
    /// Until all that is known to come will have ended; `None`: nothing has ended lately.
    pub eta: Option<Duration>,
}

/// The stream takes no more items; those that run are answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GoAway {
    /// Why.
    pub reason: GoAwayReason,
    /// Items that no engine has begun. Each ends with a retryable error.
    pub not_started: Vec<String>,
    /// When to open another stream.
    pub reconnect_after: Duration,
}

/// Why a stream takes no more items.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GoAwayReason {
    /// It is old: another stream may go to a server with less to do.
    Age,
    /// The server is shutting down.
    Drain,
}

/// A passage that a prompt quoted.
#[derive(Debug, Clone, PartialEq)]
pub struct Source {
    /// Its name.
    pub id: String,
    /// Its title.
    pub title: String,
    /// Its cosine with the code.
    pub score: f32,
    /// What it is from.
    pub kind: Kind,
}

impl From<Found> for Source {
    fn from(found: Found) -> Self {
        Self {
            id: found.id,
            title: found.title,
            score: found.score,
            kind: found.kind,
        }
    }
}
