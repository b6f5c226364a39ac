//! How the program ends.

use std::io;
use std::process::ExitCode;

use code_explainer_client::{Code, Error};

/// The exit codes, as `--help` documents them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    Ok = 0,
    Failed = 1,
    Usage = 2,
    /// `EX_UNAVAILABLE` of sysexits.h.
    Unavailable = 69,
    /// 128 + SIGINT.
    Interrupted = 130,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit as u8)
    }
}

/// Why a command stops before its end.
#[derive(Debug)]
pub(crate) enum Stop {
    /// Nobody reads the output any more (`| head`), which is no failure.
    ClosedPipe,
    /// The output cannot be written.
    Output(io::Error),
    /// What the user asked for cannot be done.
    Usage(String),
    /// The server.
    Server(Error),
}

impl Stop {
    /// What to tell the user, if anything.
    pub(crate) fn message(&self) -> Option<String> {
        match self {
            Self::ClosedPipe => None,
            Self::Output(error) => Some(format!("the output cannot be written: {error}")),
            Self::Usage(message) => Some(message.clone()),
            Self::Server(
                error @ Error::Connection {
                    address, reason, ..
                },
            ) if error.is_untrusted() => Some(format!(
                "the server at {address} is not trusted ({reason}): --tls-ca FILE names the authority that signs its \
                 certificate, and --tls-server-name the name that is in it"
            )),
            Self::Server(Error::Connection {
                address, reason, ..
            }) => Some(match what_to_do(address, reason) {
                Some(advice) => format!("no connection to {address} ({reason}): {advice}"),
                None => format!(
                    "no server answers at {address} ({reason}): start one with `code-explainer-server \
                     serve`, or name another with --server HOST:PORT"
                ),
            }),
            Self::Server(error) => Some(error.to_string()),
        }
    }

    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::ClosedPipe => Exit::Ok,
            Self::Output(_) => Exit::Failed,
            Self::Usage(_) | Self::Server(Error::Address { .. } | Error::Credentials(_)) => {
                Exit::Usage
            }
            Self::Server(error) if error.is_connection() => Exit::Unavailable,
            Self::Server(error) if error.code() == Code::Unavailable => Exit::Unavailable,
            Self::Server(_) => Exit::Failed,
        }
    }
}

/// What mends a connection that was made, and is of no use, by what the transport says of it.
fn what_to_do(address: &str, reason: &str) -> Option<&'static str> {
    let says = |parts: &[&str]| parts.iter().any(|part| reason.contains(part));
    if says(&["InvalidContentType"]) {
        return Some("what listens there does not speak TLS; give http:// instead of https://");
    }
    if address.starts_with("http://") && says(&["frame with invalid size", "invalid frame"]) {
        return Some(
            "what listens there does not speak gRPC without TLS; give https:// and --tls-ca if the server has a \
             certificate, and the port of gRPC if this is that of HTTP",
        );
    }
    // A server that refuses a certificate closes the connection, and its reason may come too late to be read.
    // How that is told depends on what the client was about to do then.
    let closed = [
        "broken pipe",
        "Broken pipe",
        "reset by peer",
        "connection closed",
        "closed connection",
        "unexpected end of file",
        "handshake eof",
    ];
    if address.starts_with("https://") && (says(&["received fatal alert"]) || says(&closed)) {
        return Some(
            "the server ended the connection: it stopped, as its own log tells, or it asks for a certificate, and \
             --tls-client-cert and --tls-client-key give one of an authority that it knows",
        );
    }
    // So does a TLS server whose client does not speak TLS.
    if says(&closed) {
        return Some(
            "the server ended the connection: it stopped, as its own log tells, or it has a certificate; then give https:// \
             and --tls-ca",
        );
    }
    if says(&["HTTP/2 was not negotiated"]) {
        return Some("what listens there speaks TLS, and no gRPC; give the port of gRPC");
    }
    (reason == "operation timed out" || says(&["handshake timeout"])).then_some(
        "something listens there and says nothing; the server's own log, or `ss -ltnp` on its machine, tells what it is",
    )
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Server(error)
    }
}

/// Errors of writing the output.
impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::ClosedPipe,
            _ => Self::Output(error),
        }
    }
}
