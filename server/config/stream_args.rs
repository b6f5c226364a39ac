//! The settings of streams.

use std::time::Duration;

use clap::Args;

use crate::session::ResumeOptions;

/// How streams are served; every value is valid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamOptions {
    /// An item that finds no room for its next event for as long as this is shed.
    pub slow_reader_timeout: Duration,
    /// Items that ask for the same answer at the same time share one generation.
    pub single_flight: bool,
    /// Code of a stream's items in flight, in bytes.
    pub code_bytes: usize,
    /// When a stream is to end; zero: never.
    pub max_age: Duration,
    /// What outlives a lost connection.
    pub resume: ResumeOptions,
    /// Items that all streams may have in flight.
    pub in_flight_items: usize,
    /// Who is told of the load that others make.
    pub report_load: ReportLoad,
}

/// Who is told of the load that others make.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum ReportLoad {
    /// Every client of a server that asks nobody who they are; else nobody
    Auto,
    /// Every client
    Always,
    /// Nobody
    Never,
}

impl ReportLoad {
    /// Whether clients are told, on a server that may tell tenants apart.
    pub fn tells(self, knows_tenants: bool) -> bool {
        match self {
            Self::Auto => !knows_tenants,
            Self::Always => true,
            Self::Never => false,
        }
    }
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

    /// Code of the items in flight on one stream at most, in bytes; at least --max-code-bytes
    #[arg(long, env = "CODE_EXPLAINER_STREAM_CODE_BYTES", value_name = "N")]
    #[arg(default_value_t = 16 << 20)]
    stream_code_bytes: usize,

    /// Ask clients to open another stream after about this long (a tenth more or less, so that they do not all come at
    /// once), so that a load balancer can share them out again. Only clients that sent `open` are asked. 0s: never
    #[arg(long, env = "CODE_EXPLAINER_MAX_STREAM_AGE", value_name = "TIME")]
    #[arg(default_value = "1h")]
    max_stream_age: humantime::Duration,

    /// After its connection is lost, or all is said on it, keep a resumable stream's items for this long, running and
    /// finished, for its client to come back for what it has not read. 0s: not at all
    #[arg(long, env = "CODE_EXPLAINER_RESUME_TTL", value_name = "TIME")]
    #[arg(default_value = "60s")]
    resume_ttl: humantime::Duration,

    /// Resumable streams at most; more are served, but cannot be resumed: their clients send again what they miss
    #[arg(long, env = "CODE_EXPLAINER_RESUME_SESSIONS", value_name = "N")]
    #[arg(default_value_t = 256)]
    resume_sessions: usize,

    /// Finished answers that are kept for a resumable stream, in bytes. Beyond that the oldest are forgotten, and sent
    /// again if their client asks for them
    #[arg(long, env = "CODE_EXPLAINER_RESUME_BYTES", value_name = "N")]
    #[arg(default_value_t = 1 << 20)]
    resume_bytes: usize,

    /// Items in flight at most, on all streams and as calls of their own: those that are worked on, and those whose answers wait to be read,
    /// which take about 4 KB each; one that is told its prompt counts once more for each 4 KB of its code. More are refused with RESOURCE_EXHAUSTED. A tenant may have as many as are left free, so
    /// that there is always room for another
    #[arg(long, env = "CODE_EXPLAINER_IN_FLIGHT_ITEMS", value_name = "N")]
    #[arg(default_value_t = 65536)]
    in_flight_items: usize,

    /// Tell clients how busy the server is with others: an item's place in the queue and how long it waited there, and the
    /// largest batch that it rode in. auto: only where nobody has to say who they are, so that no tenant can watch another.
    /// Where it is not told, these are 0, and the time in the queue counts as prefill
    #[arg(long, env = "CODE_EXPLAINER_REPORT_LOAD", default_value = "auto")]
    report_load: ReportLoad,
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
    pub(super) fn validate(self, max_code_bytes: usize) -> Result<StreamOptions, String> {
        let slow_reader_timeout = Duration::from(self.slow_reader_timeout);
        if slow_reader_timeout.is_zero() {
            return Err("--slow-reader-timeout is 0s, expected more".into());
        }
        let code_bytes = self.stream_code_bytes;
        if code_bytes < max_code_bytes || code_bytes > 1 << 40 {
            return Err(format!(
                "--stream-code-bytes is {code_bytes}, expected {max_code_bytes} (--max-code-bytes) to {}",
                1_u64 << 40
            ));
        }
        for (flag, value) in [
            ("in-flight-items", self.in_flight_items),
            ("resume-sessions", self.resume_sessions),
            ("resume-bytes", self.resume_bytes),
        ] {
            if value == 0 || value > 1 << 32 {
                return Err(format!(
                    "--{flag} is {value}, expected 1 to {}",
                    1_u64 << 32
                ));
            }
        }
        Ok(StreamOptions {
            code_bytes,
            max_age: self.max_stream_age.into(),
            resume: ResumeOptions {
                ttl: self.resume_ttl.into(),
                sessions: self.resume_sessions,
                bytes: self.resume_bytes,
            },
            slow_reader_timeout,
            in_flight_items: self.in_flight_items,
            report_load: self.report_load,
            single_flight: self.single_flight == SingleFlight::On,
        })
    }
}
