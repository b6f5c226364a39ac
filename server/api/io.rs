//! A connection that tells how its client leaves, and is read while its client keeps to what it may do.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::api::calls::Calls;
use crate::explain::Presence;

/// What is read from and written to a connection goes on as it is; that something came, or that the connection broke,
/// is noted before whoever reads it can act on it. Once its calls are cut off, it is over.
pub(super) struct Watched<C> {
    inner: C,
    presence: Arc<Presence>,
    calls: Calls,
}

impl<C> Watched<C> {
    pub(super) fn new(inner: C, presence: Arc<Presence>, calls: Calls) -> Self {
        Self {
            inner,
            presence,
            calls,
        }
    }

    /// An operation of the connection, as it ended.
    fn note<T>(&self, result: io::Result<T>) -> Poll<io::Result<T>> {
        if result.is_err() {
            self.presence.lost();
        }
        Poll::Ready(result)
    }
}

impl<C: AsyncRead + Unpin> AsyncRead for Watched<C> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.calls.is_cut_off() {
            self.presence.cut_off();
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        let (filled, room) = (buffer.filled().len(), buffer.remaining());
        let result = ready!(Pin::new(&mut self.inner).poll_read(cx, buffer));
        if buffer.filled().len() > filled {
            self.presence.heard();
        } else if room > 0 {
            self.presence.lost();
        }
        self.note(result)
    }
}

impl<C: AsyncWrite + Unpin> AsyncWrite for Watched<C> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = ready!(Pin::new(&mut self.inner).poll_write(cx, bytes));
        self.note(result)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = ready!(Pin::new(&mut self.inner).poll_flush(cx));
        self.note(result)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = ready!(Pin::new(&mut self.inner).poll_shutdown(cx));
        self.note(result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = ready!(Pin::new(&mut self.inner).poll_write_vectored(cx, bytes));
        self.note(result)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}
