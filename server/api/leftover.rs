//! What a client still sends when its call has been answered already.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use tokio::runtime::Handle;
use tokio::time::timeout;

/// For so long; then the stream is reset.
const PATIENCE: Duration = Duration::from_secs(5);

/// A request's body. What nobody has read of it when it is dropped is read and thrown away, until the client has seen that
/// its call is over and ends or resets it. Else h2 would reset the stream, forget it after 50 others, and count what still
/// comes for it against the connection, which it closes after 1,024 such frames: with the calls of everybody who shares it.
pub(super) struct ReadToEnd(Option<Incoming>);

impl ReadToEnd {
    pub(super) fn new(body: Incoming) -> Self {
        Self(Some(body))
    }
}

impl Drop for ReadToEnd {
    fn drop(&mut self) {
        // Outside of a runtime it is the runtime that ends, with all its connections.
        if let Some(mut rest) = self.0.take().filter(|body| !body.is_end_stream())
            && let Ok(runtime) = Handle::try_current()
        {
            runtime.spawn(async move {
                let reading = async { while let Some(Ok(_)) = rest.frame().await {} };
                // What comes later still is counted by h2; it is of a client that does not listen at all.
                let _ = timeout(PATIENCE, reading).await;
            });
        }
    }
}

impl Body for ReadToEnd {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Some(body) = &mut self.0 else {
            return Poll::Ready(None);
        };
        let frame = std::task::ready!(Pin::new(body).poll_frame(cx));
        if !matches!(frame, Some(Ok(_))) {
            self.0 = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.0.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.0.as_ref().map(Body::size_hint).unwrap_or_default()
    }
}
