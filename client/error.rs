//! Every failure, with what a caller may do about it.

use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

use serde::Serialize;
use serde::ser::{SerializeStruct, Serializer};
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::proto;

/// Why something did not work.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Error {
    /// The address cannot be one of a server.
    #[error(
        "{address:?} is not the address of a server ({reason}): give HOST:PORT, http://HOST:PORT or https://HOST:PORT"
    )]
    Address {
        /// The address as given.
        address: String,
        /// What is wrong with it.
        reason: String,
    },
    /// What this client is known by, or knows the server by, is of no use.
    #[error("the credentials are of no use: {0}")]
    Credentials(String),
    /// The server could not be reached, or the connection was lost.
    #[error("no connection to the server at {address}: {reason}; is there a server?")]
    Connection {
        /// The server's address.
        address: String,
        /// What the transport said.
        reason: String,
        /// The status that the loss was mapped to.
        code: Code,
    },
    /// The server refused an item or a call, or failed at it.
    #[error("{0}")]
    Server(Failure),
    /// The stream ended and left the item without a last event.
    #[error("the server ended the stream before the answer was complete")]
    Incomplete,
    /// The server sent what the contract does not allow.
    #[error("the server broke the contract: {0}")]
    Contract(&'static str),
    /// The item was cancelled by this client before the server ended it.
    #[error("cancelled")]
    Cancelled,
    /// The stream has ended: nothing more can be sent on it.
    #[error("the stream has ended; open another one")]
    Closed,
}

/// A refusal or failure, in the server's own words.
#[derive(Clone, Debug, PartialEq)]
pub struct Failure {
    /// The gRPC status code.
    pub code: Code,
    /// What went wrong, for a person.
    pub message: String,
    /// The same item may succeed if it is sent again.
    pub retryable: bool,
    /// How long to wait before that, if the server said so.
    pub retry_delay: Option<Duration>,
    /// The field of the request that is at fault, if one is.
    pub field: Option<String>,
}

impl Error {
    /// The gRPC status code, or the one that comes closest.
    pub fn code(&self) -> Code {
        match self {
            Self::Address { .. } | Self::Credentials(_) => Code::InvalidArgument,
            Self::Connection { code, .. } => *code,
            Self::Server(failure) => failure.code,
            Self::Incomplete | Self::Closed => Code::Unavailable,
            Self::Contract(_) => Code::Internal,
            Self::Cancelled => Code::Cancelled,
        }
    }

    /// Whether the same item may succeed if it is sent again.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Connection { .. } | Self::Incomplete | Self::Closed => true,
            Self::Server(failure) => failure.retryable,
            Self::Address { .. } | Self::Credentials(_) | Self::Contract(_) | Self::Cancelled => {
                false
            }
        }
    }

    /// How long the server asks to wait before another try.
    pub fn retry_delay(&self) -> Option<Duration> {
        match self {
            Self::Server(failure) => failure.retry_delay,
            _ => None,
        }
    }

    /// The field of the request that is at fault.
    pub fn field(&self) -> Option<&str> {
        match self {
            Self::Server(failure) => failure.field.as_deref(),
            _ => None,
        }
    }

    /// Whether there was no server to talk to.
    pub fn is_connection(&self) -> bool {
        matches!(self, Self::Connection { .. })
    }

    /// Whether there is no connection because the server's certificate is not trusted.
    pub fn is_untrusted(&self) -> bool {
        // rustls's words; the transport hands no more on.
        matches!(self, Self::Connection { reason, .. } if reason.starts_with("invalid peer certificate"))
    }

    /// From the status that ended a call to `address`.
    pub(crate) fn from_status(address: &str, status: &Status) -> Self {
        // tonic gives a source only to a status that it made itself, out of a transport's error.
        if let Some(source) = status.source() {
            let (address, code) = (address.to_owned(), status.code());
            return Self::Connection {
                address,
                reason: innermost(source),
                code,
            };
        }
        let retry = status.get_details_retry_info();
        let field = status
            .get_details_bad_request()
            .and_then(|details| details.field_violations.into_iter().next())
            .map(|violation| violation.field)
            .filter(|field| !field.is_empty());
        let transient = matches!(
            status.code(),
            Code::Unavailable | Code::Aborted | Code::ResourceExhausted
        );
        Self::Server(Failure {
            code: status.code(),
            message: status.message().to_owned(),
            retryable: transient || retry.is_some(),
            retry_delay: retry.and_then(|retry| retry.retry_delay),
            field,
        })
    }

    /// Whether a stream that ended so is worth opening again.
    pub(crate) fn is_worth_reopening(&self) -> bool {
        match self {
            Self::Connection { .. } | Self::Incomplete => true,
            // What a proxy or a dying server says about a stream that it gives up.
            Self::Server(failure) => {
                failure.retryable
                    || matches!(
                        failure.code,
                        Code::Unknown | Code::Internal | Code::Cancelled | Code::DeadlineExceeded
                    )
            }
            _ => false,
        }
    }
}

impl From<proto::ItemError> for Error {
    fn from(m: proto::ItemError) -> Self {
        Self::Server(Failure {
            code: code_from_i32(m.code),
            message: m.message,
            retryable: m.retryable,
            // A negative delay is none.
            retry_delay: m.retry_delay.and_then(crate::retry::time),
            field: Some(m.field).filter(|field| !field.is_empty()),
        })
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let message = if self.message.is_empty() {
            self.code.description()
        } else {
            &self.message
        };
        write!(f, "{message} ({}", code_name(self.code))?;
        if let Some(field) = &self.field {
            write!(f, ", field {field}")?;
        }
        if let Some(delay) = self.retry_delay {
            write!(f, ", retry after {delay:?}")?;
        }
        f.write_str(")")
    }
}

/// `code`, `message`, `retryable`, and where they are known `retry_delay_ms` and `field`.
impl Serialize for Error {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let message = match self {
            Self::Server(failure) => failure.message.clone(),
            other => other.to_string(),
        };
        let mut map = serializer.serialize_struct("Error", 5)?;
        map.serialize_field("code", code_name(self.code()))?;
        map.serialize_field("message", &message)?;
        map.serialize_field("retryable", &self.is_retryable())?;
        if let Some(delay) = self.retry_delay() {
            let millis = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
            map.serialize_field("retry_delay_ms", &millis)?;
        }
        if let Some(field) = self.field() {
            map.serialize_field("field", field)?;
        }
        map.end()
    }
}

/// The code of that number; [`Code::Unknown`] for a number that is none.
pub fn code_from_i32(code: i32) -> Code {
    match Code::from_i32(code) {
        // OK is not a failure's code.
        Code::Ok => Code::Unknown,
        code => code,
    }
}

/// The code's name as gRPC writes it: "INVALID_ARGUMENT".
pub fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

/// The last error of the chain, which says most: "Connection refused", not "transport error".
fn innermost(error: &(dyn StdError + 'static)) -> String {
    let mut last = error;
    while let Some(source) = last.source() {
        last = source;
    }
    last.to_string()
}
