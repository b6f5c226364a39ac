//! What is asked of the server.

use std::time::Duration;

use crate::proto;

/// A snippet to explain, and how.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Item {
    /// The caller's own name for it, which comes back with every event. Needed on a
    /// [`stream`](crate::Client::stream), where it must differ from all ids in flight; free elsewhere.
    pub id: String,
    /// The source code.
    pub code: String,
    /// How to explain it.
    pub options: ExplainOptions,
}

impl Item {
    /// An item without an id and with the server's defaults.
    pub fn new(code: impl Into<String>) -> Self {
        Self {
            code: code.into(),
            ..Self::default()
        }
    }

    /// The same item with this id.
    #[must_use]
    pub fn with_id(mut self, id: impl Into<String>) -> Self {
        self.id = id.into();
        self
    }

    /// The same item with these options.
    #[must_use]
    pub fn with_options(mut self, options: ExplainOptions) -> Self {
        self.options = options;
        self
    }
}

/// How to explain a snippet. What is `None`, empty or false is left to the server.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ExplainOptions {
    /// The programming language in lower case ("python", "c++"). `None`: the server detects it.
    pub language: Option<String>,
    /// How the prompt is made: "vanilla", "ast_augmented" or "retrieval_augmented".
    pub strategy: Option<String>,
    /// With "retrieval_augmented": what to take of what is known, where it is not to be the server's choice.
    pub retrieval: Option<proto::Retrieval>,
    /// The most tokens to generate.
    pub max_new_tokens: Option<u32>,
    /// Tokens before which the answer may not end.
    pub min_new_tokens: Option<u32>,
    /// Sampling temperature; 0 is greedy.
    pub temperature: Option<f32>,
    /// Sample from the smallest set of tokens with this probability in sum, in (0, 1].
    pub top_p: Option<f32>,
    /// Sample from this many most likely tokens.
    pub top_k: Option<u32>,
    /// Divides the scores of tokens that occurred already; 1 is off.
    pub repetition_penalty: Option<f32>,
    /// Seed of the sampling. `None`: the server picks one and names it in the receipt.
    pub seed: Option<u64>,
    /// Strings that end the answer.
    pub stop: Vec<String>,
    /// Go on to `max_new_tokens` when the model says it has finished.
    pub ignore_eos: bool,
    /// Send the whole answer again in [`Done`](crate::Done).
    pub include_full_text: bool,
    /// Send the exact prompt in [`Accepted`](crate::Accepted).
    pub include_prompt: bool,
    /// What the server's caches are to the item.
    pub cache_mode: proto::CacheMode,
    /// How fast an answer from a cache is sent.
    pub replay: proto::Replay,
    /// How urgent it is, beside the others of the same tenant. `None`: normal.
    pub priority: Option<Priority>,
    /// The most time for it on the server, from its receipt on.
    pub timeout: Option<Duration>,
    /// When its time is up, end with what there is instead of an error.
    pub keep_at_deadline: bool,
}

/// How urgent an item is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Priority {
    /// Somebody is waiting for the answer.
    Interactive,
    /// As most.
    Normal,
    /// Whenever there is nothing more urgent.
    Bulk,
}

impl From<Item> for proto::ExplainRequest {
    fn from(Item { id, code, options }: Item) -> Self {
        // The wire counts in i32. What is larger is larger than any limit of a server, which says so.
        let count = |n: Option<u32>| i32::try_from(n.unwrap_or(0)).unwrap_or(i32::MAX);
        let priority = options.priority.map(|priority| match priority {
            Priority::Interactive => proto::Priority::Interactive,
            Priority::Normal => proto::Priority::Normal,
            Priority::Bulk => proto::Priority::Bulk,
        });
        let on_deadline = if options.keep_at_deadline {
            proto::OnDeadline::Keep
        } else {
            proto::OnDeadline::Unspecified
        };
        // What does not fit into the wire's type is longer than any limit of a server, which says so.
        let timeout = |time| {
            prost_types::Duration::try_from(time).unwrap_or(prost_types::Duration {
                seconds: i64::MAX,
                nanos: 0,
            })
        };
        Self {
            id,
            code,
            language: options.language.unwrap_or_default(),
            strategy: options.strategy.unwrap_or_default(),
            retrieval: options.retrieval,
            max_new_tokens: count(options.max_new_tokens),
            min_new_tokens: count(options.min_new_tokens),
            temperature: options.temperature.unwrap_or(0.0),
            top_p: options.top_p.unwrap_or(0.0),
            top_k: count(options.top_k),
            repetition_penalty: options.repetition_penalty.unwrap_or(0.0),
            seed: options.seed,
            stop: options.stop,
            ignore_eos: options.ignore_eos,
            include_full_text: options.include_full_text,
            include_prompt: options.include_prompt,
            priority: priority.unwrap_or_default().into(),
            timeout: options.timeout.map(timeout),
            on_deadline: on_deadline.into(),
            replaces: String::new(),
            cache_mode: options.cache_mode.into(),
            replay: options.replay.into(),
        }
    }
}
