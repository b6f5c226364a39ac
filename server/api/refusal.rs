//! Why a request's body is read no further.

use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

/// When there may be room again: messages that are under way have come or are given up.
const RETRY: Duration = Duration::from_secs(1);

/// The reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// A message is to be longer than those that the call takes.
    TooLarge {
        /// What it is to have.
        bytes: usize,
        /// What it may have.
        limit: usize,
    },
    /// A compressed message is no gzip.
    Unreadable,
    /// It unpacks to more than anybody needs.
    Inflates {
        /// To more than so many bytes.
        most: usize,
    },
    /// More than one message for a call that takes one.
    NotOne,
    /// The server receives as much as it may.
    NoRoom,
    /// A message did not come within about this time.
    TooSlow(Duration),
    /// Others without credentials have called, and more of them than may be served at once.
    Crowded,
}

impl Refusal {
    /// In metrics.
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::TooLarge { .. } => "too_large",
            Self::Unreadable => "unreadable",
            Self::Inflates { .. } => "inflates",
            Self::NotOne => "not_one",
            Self::NoRoom => "no_room",
            Self::TooSlow(_) => "too_slow",
            Self::Crowded => "crowded",
        }
    }

    /// What the client is told.
    pub(super) fn status(self) -> Status {
        match self {
            // As tonic has it.
            Self::TooLarge { bytes, limit } => Status::out_of_range(format!(
                "a message of {bytes} bytes, of which this call takes {limit} at most; send less"
            )),
            Self::Unreadable => Status::invalid_argument(
                "a message that is said to be compressed, and is no gzip or not all of it; send it as gzip, or as it is",
            ),
            Self::Inflates { most } => Status::invalid_argument(format!(
                "a message that unpacks to more than {most} bytes, which is out of proportion to its own; send it \
                 uncompressed"
            )),
            Self::NotOne => Status::invalid_argument(
                "a second message, where this call takes one; send one alone",
            ),
            Self::TooSlow(time) => Status::deadline_exceeded(format!(
                "the message did not come within {time:?} and a second for each 64 KiB of it; send it faster, or in \
                 smaller parts"
            )),
            Self::NoRoom => later(
                "the server receives as many bytes for these credentials, or in all, as it may; try again later",
            ),
            Self::Crowded => later("too many calls without credentials are open; try again later"),
        }
    }
}

fn later(message: &str) -> Status {
    let details = ErrorDetails::with_retry_info(Some(RETRY));
    Status::with_error_details(Code::ResourceExhausted, message, details)
}
