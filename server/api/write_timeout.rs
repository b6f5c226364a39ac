//! A connection whose client has to take what is sent to it.

use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// Fails with `TimedOut` when something has been waiting to be sent for so long and nothing of it could be: the client
/// does not read, and what is kept for it and the connection itself would stay for good. Nothing is timed while there is
/// nothing to send, and a client that reads slowly begins the time anew with every byte that the system takes for it.
pub(super) struct WriteTimeout<C, F> {
    inner: C,
    limit: Duration,
    /// Told once, when the time is up.
    stalled: F,
    /// Since a write could not go on.
    waiting: Option<Pin<Box<Sleep>>>,
}

impl<C, F: Fn() + Unpin> WriteTimeout<C, F> {
    pub(super) fn new(inner: C, limit: Duration, stalled: F) -> Self {
        Self {
            inner,
            limit,
            stalled,
            waiting: None,
        }
    }

    fn timed<T>(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.waiting = None;
            return written;
        }
        let limit = self.limit;
        let waiting = self.waiting.get_or_insert_with(|| Box::pin(sleep(limit)));
        if waiting.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        self.waiting = None;
        (self.stalled)();
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<C: AsyncRead + Unpin, F: Unpin> AsyncRead for WriteTimeout<C, F> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buffer)
    }
}

impl<C: AsyncWrite + Unpin, F: Fn() + Unpin> AsyncWrite for WriteTimeout<C, F> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write(cx, bytes);
        self.timed(cx, written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.inner).poll_flush(cx);
        self.timed(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = Pin::new(&mut self.inner).poll_shutdown(cx);
        self.timed(cx, shut)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write_vectored(cx, bytes);
        self.timed(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    const LIMIT: Duration = Duration::from_secs(30);

    #[tokio::test(start_paused = true)]
    async fn who_reads_nothing_is_cut_off_and_who_reads_slowly_is_not() {
        let told = AtomicUsize::new(0);
        let (server, mut client) = duplex(8);
        let mut server = WriteTimeout::new(server, LIMIT, || {
            told.fetch_add(1, Ordering::Relaxed);
        });
        let slowly = async {
            let mut byte = [0];
            for _ in 0..24 {
                tokio::time::sleep(LIMIT / 2).await;
                client.read_exact(&mut byte).await.expect("it goes on");
            }
        };
        let (sent, ()) = tokio::join!(server.write_all(&[1; 32]), slowly);
        sent.expect("each byte began the time anew");
        assert_eq!(told.load(Ordering::Relaxed), 0);
        let before = tokio::time::Instant::now();
        let error = server.write_all(&[2; 32]).await.expect_err("nobody reads");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(told.load(Ordering::Relaxed), 1);
        assert!(before.elapsed() < 2 * LIMIT);
    }

    #[tokio::test(start_paused = true)]
    async fn where_nothing_is_to_be_sent_nothing_is_timed() {
        let (server, client) = duplex(8);
        let mut server = WriteTimeout::new(server, LIMIT, || {});
        server.write_all(&[1; 8]).await.expect("there is room");
        let mut byte = [0];
        let read = tokio::time::timeout(10 * LIMIT, server.read(&mut byte)).await;
        assert!(read.is_err(), "still open");
        drop(client);
    }
}
