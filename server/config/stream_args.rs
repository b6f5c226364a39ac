//! The settings of streams.

use std::time::Duration;

use clap::Args;

/// How streams are served; every value is valid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamOptions {
    /// An item that finds no room for its next event for as long as this is shed.
    pub slow_reader_timeout: Duration,
    /// Items that ask for the same answer at the same time share one generation.
    pub single_flight: bool,
}

#[derive(Debug, Args)]
pub(super) struct StreamArgs {
    /// Give an item up, with RESOURCE_EXHAUSTED, when its client has not read on for this long. Until then its answer
    /// waits, finished and bounded, and is sent in larger pieces; it never holds up the engine or another stream. A client
    /// that does not take even the error for as long again loses its stream
    #[arg(long, env = "CODE_EXPLAINER_SLOW_READER_TIMEOUT", value_name = "TIME")]
    #[arg(default_value = "60s")]
    slow_reader_timeout: humantime::Duration,

    /// Generate an answer once when several items ask for it at the same time; those that come later get what has been
    /// said and then go along. off: for measurements of the engine
    #[arg(long, env = "CODE_EXPLAINER_SINGLE_FLIGHT", default_value = "on")]
    single_flight: SingleFlight,
}

/// Whether the same question in flight is answered once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum SingleFlight {
    /// Once for all
    On,
    /// For each item
    Off,
}

impl StreamArgs {
    /// What one value alone cannot tell.
    pub(super) fn validate(self) -> Result<StreamOptions, String> {
        let slow_reader_timeout = Duration::from(self.slow_reader_timeout);
        if slow_reader_timeout.is_zero() {
            return Err("--slow-reader-timeout is 0s, expected more".into());
        }
        Ok(StreamOptions {
            slow_reader_timeout,
            single_flight: self.single_flight == SingleFlight::On,
        })
    }
}
