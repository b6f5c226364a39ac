//! Why an item is given up before its end, and the handle by which it is.

use std::fmt;
use std::sync::{Arc, OnceLock};

use tokio_util::sync::CancellationToken;

/// Why an item is given up before its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CancelReason {
    /// The client sent a cancellation.
    Asked,
    /// The stream, the call or the connection is gone, and nobody will come back for the item.
    ClientGone,
    /// Another item of the stream took its place.
    Superseded,
    /// Its time was up.
    Deadline,
    /// Its client did not read for too long.
    SlowReader,
    /// The server stopped.
    Shutdown,
    /// No engine had begun it when its stream was retired; the client sends it again on another one.
    Retired,
}

impl CancelReason {
    /// All of them, as they are counted.
    pub const ALL: [Self; 7] = [
        Self::Asked,
        Self::ClientGone,
        Self::Superseded,
        Self::Deadline,
        Self::SlowReader,
        Self::Shutdown,
        Self::Retired,
    ];

    /// Its name in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Asked => "asked",
            Self::ClientGone => "client_gone",
            Self::Superseded => "superseded",
            Self::Deadline => "deadline",
            Self::SlowReader => "slow_reader",
            Self::Shutdown => "shutdown",
            Self::Retired => "retired",
        }
    }
}

impl fmt::Display for CancelReason {
    /// As it stands in the client's error.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Asked => "cancelled by the client",
            Self::ClientGone => "cancelled: the client is gone",
            Self::Superseded => "cancelled: replaced by a newer item",
            Self::Deadline => "cancelled: its time was up",
            Self::SlowReader => "cancelled: the client did not read",
            Self::Shutdown => "cancelled: the server stops",
            Self::Retired => "cancelled: the stream is ending",
        })
    }
}

/// Gives an item up, once; the first reason counts. Clones are the same handle.
#[derive(Debug, Clone, Default)]
pub struct Cancel {
    token: CancellationToken,
    reason: Arc<OnceLock<CancelReason>>,
}

impl Cancel {
    /// The item ends with [`Error::Cancelled`](crate::error::Error::Cancelled), unless its last event is under way.
    pub fn cancel(&self, reason: CancelReason) {
        // Set before: only the first counts.
        let _ = self.reason.set(reason);
        self.token.cancel();
    }

    /// Whether it is given up.
    pub fn is_cancelled(&self) -> bool {
        self.token.is_cancelled()
    }

    /// Waits until it is given up. Safe to drop.
    pub async fn cancelled(&self) -> CancelReason {
        self.token.cancelled().await;
        self.reason.get().copied().unwrap_or(CancelReason::Asked)
    }
}
