//! A call whose caller may do nothing any more: it ends, whatever it is at.

use std::future::Future;
use std::sync::Arc;

use axum::http::Response;
use futures::FutureExt;
use tonic::Status;
use tonic::body::Body;

use crate::api::ending::until;
use crate::identity::Identity;

/// The answer to a call of this caller, to the end of its stream or until what lets the caller in is withdrawn: then the
/// status of one who is not known is its end.
pub(super) async fn until_withdrawn(
    caller: Option<Arc<Identity>>,
    answer: impl Future<Output = Response<Body>>,
) -> Response<Body> {
    let Some(grant) = caller.and_then(|caller| caller.grant.clone()) else {
        return answer.await;
    };
    let withdrawn = async move {
        grant.withdrawn().await;
        Status::from(grant.error())
    };
    until(withdrawn.boxed(), answer).await
}
