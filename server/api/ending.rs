//! An answer that may have to end before it is through.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::http::{HeaderMap, Response};
use futures::FutureExt;
use futures::future::BoxFuture;
use hyper::body::{Body as HttpBody, Bytes, Frame, SizeHint};
use tonic::Status;
use tonic::body::Body;

/// The answer, to the end of its stream or until there is this status, which then is its end.
pub(super) async fn until(
    mut ended: BoxFuture<'static, Status>,
    answer: impl Future<Output = Response<Body>>,
) -> Response<Body> {
    let answer = tokio::select! {
        biased;
        status = &mut ended => return status.into_http(),
        answer = answer => answer,
    };
    answer.map(|body| {
        Body::new(Standing {
            body: Some(body),
            ended,
        })
    })
}

/// The rest of an answer.
struct Standing {
    /// `None`: it has ended.
    body: Option<Body>,
    ended: BoxFuture<'static, Status>,
}

impl HttpBody for Standing {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let Self { body, ended } = &mut *self;
        let Some(body) = body else {
            return Poll::Ready(None);
        };
        // First: a stream with always more to say ends as well.
        let Poll::Ready(status) = ended.poll_unpin(cx) else {
            return Pin::new(body).poll_frame(cx);
        };
        self.body = None;
        let mut trailers = HeaderMap::new();
        Poll::Ready(Some(
            (status.add_header(&mut trailers)).map(|()| Frame::trailers(trailers)),
        ))
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body
            .as_ref()
            .map(HttpBody::size_hint)
            .unwrap_or_default()
    }
}
