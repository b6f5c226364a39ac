//! What comes back from the server, in types that leave nothing to guess.

use serde::Serialize;

use crate::proto;

/// Something that happened to an item: `Accepted`, then any number of `Queued`, any number of `Delta`, then `Done`.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The item was valid and is queued.
    Accepted(Accepted),
    /// Its place in the queue has changed: how many items are before it now.
    Queued(u32),
    /// More of the answer.
    Delta(Delta),
    /// The answer is complete; the item's last event.
    Done(Done),
}

/// The item was valid and is queued.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Accepted {
    /// How many items were before it in the queue.
    pub queue_position: u32,
    /// The language, as given or as detected; empty if it could not be told.
    pub language: String,
    /// Length of the prompt in tokens.
    pub prompt_tokens: u32,
    /// The exact prompt, if asked for.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub prompt: String,
}

/// More of an answer's text.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Delta {
    /// The text to append.
    pub text: String,
    /// Its number within the item, from 0 without a gap.
    pub sequence: u64,
}

/// A complete answer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Done {
    /// Why it ended.
    pub finish_reason: FinishReason,
    /// Tokens spent.
    pub usage: Usage,
    /// How it was made.
    pub receipt: Receipt,
    /// The whole answer, if asked for.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub full_text: String,
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FinishReason {
    /// The model said that it had finished.
    Eos,
    /// A stop string appeared.
    Stop,
    /// `max_new_tokens` were generated.
    Length,
    /// The model's context was full.
    Context,
    /// Its time was up.
    Deadline,
    /// A reason that this client does not know.
    Unknown,
}

impl FinishReason {
    /// Its name in lower case.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Eos => "eos",
            Self::Stop => "stop",
            Self::Length => "length",
            Self::Context => "context",
            Self::Deadline => "deadline",
            Self::Unknown => "unknown",
        }
    }
}

/// Tokens spent on an item.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Usage {
    /// Tokens of the prompt.
    pub prompt_tokens: u32,
    /// Tokens of the prompt that were not computed again.
    pub cached_tokens: u32,
    /// Tokens generated.
    pub generated_tokens: u32,
}

/// How an answer was made. Times are milliseconds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Receipt {
    /// From acceptance to the first step that worked on the item.
    pub queue_ms: f64,
    /// From there to the first generated token.
    pub prefill_ms: f64,
    /// From the first generated token to the last.
    pub decode_ms: f64,
    /// From acceptance to the first generated token.
    pub time_to_first_token_ms: f64,
    /// The most sequences that any of its steps worked on.
    pub largest_batch: u32,
    /// Name of the model.
    pub model: String,
    /// Precision of weights and arithmetic.
    pub precision: String,
    /// Name of the server that answered.
    pub replica: String,
    /// Seed that was used.
    pub seed: u64,
    /// Strategy that was used.
    pub strategy: String,
    /// Where the answer came from.
    pub cache: CacheLevel,
    /// What the caller should know.
    pub notes: Vec<String>,
    /// With the strategy "retrieval_augmented": what the prompt quoted, the best first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<Source>,
    /// It shared the answer of another item that was in flight.
    pub joined: bool,
}

/// A passage that a prompt quoted.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Source {
    /// Its document's name and, after `#`, its place therein; or the name of an answer.
    pub id: String,
    /// Its title.
    pub title: String,
    /// Its cosine with the code.
    pub score: f32,
    /// An answer that was given before, and no documentation.
    pub explanation: bool,
}

impl From<proto::Source> for Source {
    fn from(m: proto::Source) -> Self {
        Self {
            explanation: m.kind() == proto::SourceKind::Explanation,
            id: m.id,
            title: m.title,
            score: m.score,
        }
    }
}

/// Where an answer came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CacheLevel {
    /// Computed by the model for this item.
    Computed,
    /// Replayed from the server's memory.
    Memory,
    /// Replayed from Redis.
    Redis,
    /// A level that this client does not know.
    Unknown,
}

impl From<proto::Accepted> for Accepted {
    fn from(m: proto::Accepted) -> Self {
        Self {
            queue_position: m.queue_position,
            language: m.language,
            prompt_tokens: m.prompt_tokens,
            prompt: m.prompt,
        }
    }
}

impl From<proto::Delta> for Delta {
    fn from(m: proto::Delta) -> Self {
        Self {
            text: m.text,
            sequence: m.sequence,
        }
    }
}

impl From<proto::Done> for Done {
    fn from(m: proto::Done) -> Self {
        let finish_reason = match m.finish_reason() {
            proto::FinishReason::Eos => FinishReason::Eos,
            proto::FinishReason::Stop => FinishReason::Stop,
            proto::FinishReason::Length => FinishReason::Length,
            proto::FinishReason::Context => FinishReason::Context,
            proto::FinishReason::Deadline => FinishReason::Deadline,
            proto::FinishReason::Unspecified => FinishReason::Unknown,
        };
        Self {
            finish_reason,
            usage: m.usage.unwrap_or_default().into(),
            receipt: m.receipt.unwrap_or_default().into(),
            full_text: m.full_text,
        }
    }
}

impl From<proto::Usage> for Usage {
    fn from(m: proto::Usage) -> Self {
        Self {
            prompt_tokens: m.prompt_tokens,
            cached_tokens: m.cached_tokens,
            generated_tokens: m.generated_tokens,
        }
    }
}

impl From<proto::Receipt> for Receipt {
    fn from(m: proto::Receipt) -> Self {
        let cache = match proto::CacheLevel::try_from(m.cache) {
            Ok(proto::CacheLevel::Unspecified) => CacheLevel::Computed,
            Ok(proto::CacheLevel::Memory) => CacheLevel::Memory,
            Ok(proto::CacheLevel::Redis) => CacheLevel::Redis,
            Err(_) => CacheLevel::Unknown,
        };
        Self {
            queue_ms: m.queue_ms,
            prefill_ms: m.prefill_ms,
            decode_ms: m.decode_ms,
            time_to_first_token_ms: m.time_to_first_token_ms,
            largest_batch: m.largest_batch,
            model: m.model,
            precision: m.precision,
            replica: m.replica,
            seed: m.seed,
            strategy: m.strategy,
            cache,
            notes: m.notes,
            sources: m.sources.into_iter().map(Source::from).collect(),
            joined: m.joined,
        }
    }
}
