//! How much is done at once.

use clap::Args;

#[derive(Debug, Args)]
pub(super) struct LimitArgs {
    /// Sequences that a step works on at most. Chosen by --optimize, else 32
    #[arg(long, env = "CODE_EXPLAINER_BATCH_SIZE", value_name = "N")]
    pub(super) batch_size: Option<usize>,

    /// Tokens that a step works on at most: one for each decoding sequence, the rest for prefill. More gives a shorter
    /// time to first token, fewer a steadier stream for the others. Chosen by --optimize, else 256
    #[arg(long, env = "CODE_EXPLAINER_STEP_TOKENS", value_name = "N")]
    pub(super) step_tokens: Option<usize>,

    /// Keep the time between two tokens of a stream at this, such as 50ms, by giving steps fewer tokens and sequences than
    /// the limits above allow where that is needed. Without it only the limits count
    #[arg(long, env = "CODE_EXPLAINER_TARGET_ITL", value_name = "TIME")]
    pub(super) target_itl: Option<humantime::Duration>,

    /// Guess tokens that the answer may copy from the code, and check several in one step. auto: where measured step times
    /// say that it pays. always: wherever there is something to guess, to measure with. Answers are the same with it and without
    #[arg(long, env = "CODE_EXPLAINER_SPECULATION", default_value = "auto")]
    pub(super) speculation: Speculation,

    /// Keep what was computed of prompts that begin alike, as long as the KV cache has room
    #[arg(long, env = "CODE_EXPLAINER_PREFIX_CACHE", default_value = "on")]
    pub(super) prefix_cache: PrefixCache,

    /// Items that wait at most; more are refused with RESOURCE_EXHAUSTED and the time to wait
    #[arg(
        long,
        env = "CODE_EXPLAINER_QUEUE_ITEMS",
        default_value_t = 1024,
        value_name = "N"
    )]
    pub(super) queue_items: usize,

    /// Items in flight on one stream at most
    #[arg(
        long,
        env = "CODE_EXPLAINER_STREAM_ITEMS",
        default_value_t = 256,
        value_name = "N"
    )]
    pub(super) stream_items: usize,

    /// The largest snippet, in bytes
    #[arg(
        long,
        env = "CODE_EXPLAINER_MAX_CODE_BYTES",
        default_value_t = 65536,
        value_name = "N"
    )]
    pub(super) max_code_bytes: usize,

    /// The most tokens that a request may ask for
    #[arg(
        long,
        env = "CODE_EXPLAINER_MAX_NEW_TOKENS",
        default_value_t = 1024,
        value_name = "N"
    )]
    pub(super) max_new_tokens: usize,

    /// Tokens for a request that asks for no number
    #[arg(long, env = "CODE_EXPLAINER_DEFAULT_MAX_NEW_TOKENS", value_name = "N")]
    #[arg(default_value_t = 256)]
    pub(super) default_max_new_tokens: usize,
}

/// Whether tokens are guessed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Speculation {
    /// Where it pays
    Auto,
    /// Wherever there is something to guess
    Always,
    /// Never
    Off,
}

/// Whether beginnings of prompts are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum PrefixCache {
    /// Computed once
    On,
    /// Computed for each item
    Off,
}
