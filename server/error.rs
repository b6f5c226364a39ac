//! Every way an item can fail, and the one map from there to gRPC.

use std::time::Duration;

use code_explainer_scheduler::NoRoom;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::access::rates::Rate;
use crate::explain::CancelReason;

/// Why an item was refused or failed.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Error {
    /// A field of the request has no valid value.
    #[error("{field}: {problem}")]
    Invalid {
        /// The field's name in the proto.
        field: &'static str,
        /// What is wrong with it and what is expected.
        problem: String,
    },
    /// An item of the same id is in flight on the stream.
    #[error("id: an item with the id '{0}' is in flight on this stream")]
    DuplicateId(String),
    /// The server's queue is full.
    #[error("the queue is full ({limit} {unit}); try again later")]
    QueueFull {
        /// What it holds.
        limit: usize,
        /// Of what.
        unit: &'static str,
        /// When to try again.
        retry: Duration,
    },
    /// The stream has as many items in flight as it may.
    #[error("the stream has {limit} items in flight, which is the limit; wait for an answer first")]
    StreamFull {
        /// Items in flight that a stream may have.
        limit: usize,
    },
    /// The item was to be answered from the caches alone.
    #[error("no cache has the answer, and cache_mode forbids to compute it")]
    NotCached,
    /// The stream's items in flight have as much code as they may.
    #[error(
        "the items in flight on the stream have {limit} bytes of code, which is the limit; wait for an answer first"
    )]
    StreamBytesFull {
        /// Bytes of code that a stream's items may have.
        limit: usize,
    },
    /// The tenant has asked for more than it may in a time.
    #[error("over the limit of {rate} {what} for these credentials; {}", later(*retry))]
    RateLimited {
        /// Items or tokens.
        what: &'static str,
        /// How many of them in which time.
        rate: Rate,
        /// When to try again; `None`: the item alone is more than that.
        retry: Option<Duration>,
    },
    /// Who calls has not shown who they are. What was wrong is not told.
    #[error(
        "no valid credentials; send a bearer token, or a client certificate, that this server knows"
    )]
    Unauthenticated,
    /// Who calls may not do this, for want of a role.
    #[error("these credentials do not allow this call, which needs the role \"{0}\"")]
    PermissionDenied(&'static str),
    /// The files cannot be read that would tell who may call. Which, and why, is in the server's log.
    #[error(
        "the server cannot read who may call, so it lets nobody in; try another one, or again later"
    )]
    CallersUnknown,
    /// The stream takes no more items.
    #[error("the stream is ending; open another one")]
    Retiring,
    /// The model is not ready yet.
    #[error("the model is loading; try again soon")]
    Loading,
    /// The server is shutting down.
    #[error("the server is shutting down; try another one")]
    ShuttingDown,
    /// The client asked for it, or went away.
    #[error("{0}")]
    Cancelled(CancelReason),
    /// The client did not read what the item had to say.
    #[error("the stream was not read for {} s, so the item was given up; read faster, or use more streams", waited.as_secs_f32())]
    SlowReader {
        /// How long there was no room for the item's next event.
        waited: Duration,
    },
    /// Its time was up.
    #[error("the item's time was up")]
    Deadline,
    /// A step that the item rode in failed for want of memory.
    #[error("the engine ran out of memory; try again later")]
    OutOfMemory,
    /// A step that the item rode in failed. The cause is in the server's log.
    #[error("the engine failed; the server's log says why")]
    Engine,
    /// The corpus has as many passages as it may.
    #[error(
        "the corpus has no room for the document: it may have {limit} passages; remove others first"
    )]
    CorpusFull {
        /// Passages that it may have.
        limit: usize,
    },
    /// The disk under what the server keeps fails or is full. It is tried again until it works.
    #[error(
        "the server's disk fails or is full, so nothing can be stored or looked up there now; what was stored before is kept; try again later"
    )]
    Disk,
    /// There is no embedding model to ask.
    #[error("{0}")]
    NoEmbeddings(&'static str),
    /// The engine did not come back from a step that the item rode in, and is started again.
    #[error("the engine hangs and is started again; try again")]
    Wedged,
    /// Something that should not happen. The cause is in the server's log.
    #[error("internal error; the server's log says why")]
    Internal,
}

impl Error {
    /// Shorthand for [`Error::Invalid`].
    pub fn invalid(field: &'static str, problem: impl Into<String>) -> Self {
        Self::Invalid {
            field,
            problem: problem.into(),
        }
    }

    /// The gRPC status code.
    pub fn code(&self) -> Code {
        match self {
            Self::Invalid { .. } => Code::InvalidArgument,
            Self::DuplicateId(_) => Code::AlreadyExists,
            Self::NotCached => Code::NotFound,
            Self::QueueFull { .. }
            | Self::StreamFull { .. }
            | Self::StreamBytesFull { .. }
            | Self::RateLimited { .. }
            | Self::SlowReader { .. }
            | Self::OutOfMemory => Code::ResourceExhausted,
            Self::Loading | Self::ShuttingDown | Self::Wedged | Self::Retiring | Self::Disk => {
                Code::Unavailable
            }
            Self::CallersUnknown => Code::Unavailable,
            Self::NoEmbeddings(_) => Code::FailedPrecondition,
            Self::CorpusFull { .. } => Code::ResourceExhausted,
            Self::Unauthenticated => Code::Unauthenticated,
            Self::PermissionDenied(_) => Code::PermissionDenied,
            Self::Cancelled(_) => Code::Cancelled,
            Self::Deadline => Code::DeadlineExceeded,
            Self::Engine | Self::Internal => Code::Internal,
        }
    }

    /// Its name in metrics: a closed set.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Invalid { .. } => "invalid",
            Self::DuplicateId(_) => "duplicate_id",
            Self::QueueFull { .. } => "queue_full",
            Self::StreamFull { .. } => "stream_full",
            Self::NotCached => "not_cached",
            Self::StreamBytesFull { .. } => "stream_bytes_full",
            Self::Retiring => "retiring",
            Self::RateLimited { .. } => "rate_limited",
            Self::Unauthenticated => "unauthenticated",
            Self::PermissionDenied(_) => "permission_denied",
            Self::CallersUnknown => "callers_unknown",
            Self::Loading => "loading",
            Self::ShuttingDown => "shutting_down",
            Self::Cancelled(_) => "cancelled",
            Self::SlowReader { .. } => "slow_reader",
            Self::Deadline => "deadline",
            Self::OutOfMemory => "out_of_memory",
            Self::Engine => "engine",
            Self::NoEmbeddings(_) => "no_embeddings",
            Self::Disk => "disk",
            Self::Wedged => "wedged",
            Self::CorpusFull { .. } => "corpus_full",
            Self::Internal => "internal",
        }
    }

    /// How long to wait before the same item is sent again; `None` if that would not help.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::QueueFull { retry, .. } => Some(*retry),
            Self::RateLimited { retry, .. } => *retry,
            Self::StreamFull { .. } | Self::StreamBytesFull { .. } => {
                Some(Duration::from_millis(100))
            }
            Self::Loading
            | Self::OutOfMemory
            | Self::Engine
            | Self::Wedged
            | Self::CallersUnknown
            | Self::SlowReader { .. } => Some(Duration::from_secs(1)),
            Self::Disk => Some(Duration::from_secs(10)),
            // Another replica takes it at once.
            Self::ShuttingDown | Self::Retiring => Some(Duration::ZERO),
            Self::Invalid { .. }
            | Self::DuplicateId(_)
            | Self::NotCached
            | Self::Unauthenticated
            | Self::PermissionDenied(_)
            | Self::Cancelled(_)
            | Self::NoEmbeddings(_)
            | Self::Deadline
            | Self::CorpusFull { .. }
            | Self::Internal => None,
        }
    }

    /// The request's field at fault, or nothing.
    pub fn field(&self) -> &'static str {
        match self {
            Self::Invalid { field, .. } => field,
            Self::DuplicateId(_) => "id",
            Self::QueueFull { .. }
            | Self::StreamFull { .. }
            | Self::NotCached
            | Self::StreamBytesFull { .. }
            | Self::RateLimited { .. }
            | Self::Unauthenticated
            | Self::PermissionDenied(_)
            | Self::CallersUnknown
            | Self::Retiring
            | Self::Loading
            | Self::ShuttingDown
            | Self::Cancelled(_)
            | Self::SlowReader { .. }
            | Self::Deadline
            | Self::OutOfMemory
            | Self::Engine
            | Self::NoEmbeddings(_)
            | Self::Disk
            | Self::Wedged
            | Self::CorpusFull { .. }
            | Self::Internal => "",
        }
    }
}

fn later(retry: Option<Duration>) -> &'static str {
    match retry {
        Some(_) => "try again later",
        None => "the item alone is more than that",
    }
}

impl From<NoRoom> for Error {
    fn from(no_room: NoRoom) -> Self {
        match no_room {
            NoRoom::QueueFull { limit, unit, retry } => Self::QueueFull { limit, unit, retry },
            NoRoom::ShuttingDown => Self::ShuttingDown,
        }
    }
}

/// A stream that ends hands items back, which is no wish of the client's.
impl From<CancelReason> for Error {
    fn from(reason: CancelReason) -> Self {
        match reason {
            CancelReason::Retired => Self::Retiring,
            CancelReason::Asked
            | CancelReason::StreamEnded
            | CancelReason::ClientVanished
            | CancelReason::CutOff
            | CancelReason::Unclaimed
            | CancelReason::Withdrawn
            | CancelReason::Superseded
            | CancelReason::Deadline
            | CancelReason::SlowReader
            | CancelReason::Shutdown => Self::Cancelled(reason),
        }
    }
}

/// With `google.rpc.BadRequest` and `google.rpc.RetryInfo` where they apply.
impl From<Error> for Status {
    fn from(error: Error) -> Self {
        let mut details = ErrorDetails::new();
        if !error.field().is_empty() {
            details.add_bad_request_violation(error.field(), error.to_string());
        }
        if let Some(delay) = error.retry_after() {
            details.set_retry_info(Some(delay));
        }
        Self::with_error_details(error.code(), error.to_string(), details)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_at_fault_is_named_in_the_details() {
        let status = Status::from(Error::invalid("top_p", "is 3, expected 0 to 1"));
        assert_eq!(status.code(), Code::InvalidArgument);
        let violations = status
            .get_details_bad_request()
            .expect("bad request")
            .field_violations;
        assert_eq!(violations[0].field, "top_p");
    }

    #[test]
    fn a_full_queue_says_when_to_come_back() {
        let retry = Duration::from_millis(1500);
        let status = Status::from(Error::QueueFull {
            limit: 8,
            unit: "items",
            retry,
        });
        assert_eq!(status.code(), Code::ResourceExhausted);
        assert_eq!(
            status
                .get_details_retry_info()
                .expect("retry info")
                .retry_delay,
            Some(retry)
        );
    }
}
