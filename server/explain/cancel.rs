//! Why an item is given up before its end, and the handle by which it is.

use std::fmt;
use std::sync::{Arc, OnceLock};

use tokio_util::sync::CancellationToken;

/// Why an item is given up before its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CancelReason {
    /// The client sent a cancellation.
    Asked,
    /// The client ended the call or the stream that the item was on.
    StreamEnded,
    /// The connection that the item was on broke, or its other end fell silent.
    ClientVanished,
    /// The server cut off the connection that the item was on: at its greatest age, or because it was closing and its client
    /// went on making calls.
    CutOff,
    /// The client came back for other items of its stream, and not for this one.
    Unclaimed,
    /// What let its client in was withdrawn.
    Withdrawn,
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
    pub const ALL: [Self; 11] = [
        Self::Asked,
        Self::StreamEnded,
        Self::ClientVanished,
        Self::CutOff,
        Self::Unclaimed,
        Self::Withdrawn,
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
            Self::StreamEnded => "stream_ended",
            Self::ClientVanished => "client_vanished",
            Self::CutOff => "cut_off",
            Self::Unclaimed => "unclaimed",
            Self::Withdrawn => "withdrawn",
            Self::Superseded => "superseded",
            Self::Deadline => "deadline",
            Self::SlowReader => "slow_reader",
            Self::Shutdown => "shutdown",
            Self::Retired => "retired",
        }
    }

    /// Whether nobody is left to be told, or the call as a whole tells it.
    pub(super) fn leaves_nobody(self) -> bool {
        match self {
            Self::StreamEnded
            | Self::ClientVanished
            | Self::CutOff
            | Self::Unclaimed
            | Self::Withdrawn => true,
            Self::Asked
            | Self::Superseded
            | Self::Deadline
            | Self::SlowReader
            | Self::Shutdown
            | Self::Retired => false,
        }
    }
}

impl fmt::Display for CancelReason {
    /// As it stands in the client's error.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Asked => "cancelled by the client",
            Self::StreamEnded => "cancelled: the client ended the stream",
            Self::ClientVanished => "cancelled: the client is gone",
            Self::CutOff => "cancelled: the server cut off the connection",
            Self::Unclaimed => "cancelled: the client did not come back for it",
            Self::Withdrawn => "cancelled: the credentials count no more",
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
