//! A call whose caller may do nothing any more: it ends, whatever it is at.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::http::{HeaderMap, Response};
use futures::FutureExt;
use futures::future::BoxFuture;
use hyper::body::{Body as HttpBody, Bytes, Frame, SizeHint};
use tonic::Status;
use tonic::body::Body;

use crate::error::Error;
use crate::identity::Identity;

/// The answer to a call of this caller, to the end of its stream or until the caller's key is withdrawn: then the status
/// of one who is not known is its end.
pub(super) async fn until_withdrawn(
    caller: Option<Arc<Identity>>,
    answer: impl Future<Output = Response<Body>>,
) -> Response<Body> {
    let Some(grant) = caller.and_then(|caller| caller.grant.clone()) else {
        return answer.await;
    };
    let answer = tokio::select! {
        biased;
        () = grant.withdrawn() => return Status::from(Error::Unauthenticated).into_http(),
        answer = answer => answer,
    };
    let withdrawn = async move { grant.withdrawn().await }.boxed();
    answer.map(|body| {
        Body::new(Standing {
            body: Some(body),
            withdrawn,
        })
    })
}

/// The rest of an answer.
struct Standing {
    /// `None`: it has ended.
    body: Option<Body>,
    withdrawn: BoxFuture<'static, ()>,
}

impl HttpBody for Standing {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let Self { body, withdrawn } = &mut *self;
        let Some(body) = body else {
            return Poll::Ready(None);
        };
        // First: a stream with always more to say ends as well.
        if withdrawn.poll_unpin(cx).is_pending() {
            return Pin::new(body).poll_frame(cx);
        }
        self.body = None;
        let mut trailers = HeaderMap::new();
        Poll::Ready(Some(
            Status::from(Error::Unauthenticated)
                .add_header(&mut trailers)
                .map(|()| Frame::trailers(trailers)),
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
