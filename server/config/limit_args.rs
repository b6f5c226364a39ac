//! How much is done at once.

use std::time::Duration;

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

    /// Items in flight on one stream at most; up to 4096
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

    /// CPU time, not time on the clock, that a snippet of 64 KiB may take before an engine gets it: to look for its secrets, to
    /// tell its language, to outline it, to make its prompt. A shorter one gets its part of that, as one of 4 KiB at least; no
    /// parse takes more than a quarter of a snippet's time. Without a bound, a few KiB that are made for it take
    /// minutes. When the time is up, the language is told from words alone, or the prompt has no
    /// outline: the receipt says so, and the answer is not cached
    #[arg(
        long,
        env = "CODE_EXPLAINER_CODE_CPU_TIME",
        default_value = "500ms",
        value_name = "TIME"
    )]
    code_cpu_time: humantime::Duration,

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

impl LimitArgs {
    /// # Errors
    /// Not even one look at the clock, or no bound at all.
    pub(super) fn code_cpu_time(&self) -> Result<Duration, String> {
        let time = Duration::from(self.code_cpu_time);
        let range = Duration::from_millis(1)..=Duration::from_secs(60);
        let wrong = || {
            format!(
                "--code-cpu-time is {}, expected 1ms to 1m",
                self.code_cpu_time
            )
        };
        range.contains(&time).then_some(time).ok_or_else(wrong)
    }
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
