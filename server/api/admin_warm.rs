//! Warming the cache: items that nobody reads.

use std::pin::Pin;
use std::sync::Arc;

use futures::stream::FuturesUnordered;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tonic::Status;

use crate::api::Shared;
use crate::api::caller::Caller;
use crate::api::inbound::Inbound;
use crate::error::Error;
use crate::explain::{Call, Cancel, Done, EventKind, Record};
use crate::metrics::Outcome;
use crate::proto::{ExplainRequest, WarmCacheRequest, WarmCacheResponse, WarmOutcome};
use crate::request::{MAX_ID_BYTES, ValidRequest};
use crate::telemetry::TraceParent;

/// Events of an item that wait; they are read at once.
const EVENTS: usize = 64;
/// Progress that waits for a slow reader; then no more snippets are taken.
const PROGRESS: usize = 64;

pub(super) type Progress = Pin<Box<dyn Stream<Item = Result<WarmCacheResponse, Status>> + Send>>;

/// Explains the snippets of a stream, as many at once as a stream of items may have in flight.
pub(super) fn warm(
    shared: Arc<Shared>,
    caller: Caller,
    snippets: Inbound<WarmCacheRequest>,
) -> Progress {
    let (progress, responses) = mpsc::channel(PROGRESS);
    tokio::spawn(async move {
        let end = run(&shared, &caller, snippets, &progress).await;
        if let Err(status) = end {
            // Nobody is left to tell where this fails.
            let _ = progress.send(Err(status)).await;
        }
    });
    Box::pin(ReceiverStream::new(responses))
}

async fn run(
    shared: &Arc<Shared>,
    caller: &Caller,
    mut snippets: Inbound<WarmCacheRequest>,
    progress: &mpsc::Sender<Result<WarmCacheResponse, Status>>,
) -> Result<(), Status> {
    let mut under_way = FuturesUnordered::new();
    let (mut received, mut done, mut open) = (0, 0, true);
    while open || !under_way.is_empty() {
        let ended = tokio::select! {
            biased;
            () = progress.closed() => return Ok(()),
            () = shared.status.closing.cancelled() => return Err(Error::ShuttingDown.into()),
            Some(ended) = under_way.next(), if !under_way.is_empty() => ended,
            message = snippets.message(), if open && under_way.len() < shared.stream_items => {
                match message? {
                    Some(message) => {
                        received += 1;
                        let item = message.item.unwrap_or_default();
                        under_way.push(one(shared, caller, item));
                    }
                    None => open = false,
                }
                continue;
            }
        };
        done += 1;
        let response = WarmCacheResponse {
            done,
            received,
            ..ended
        };
        if progress.send(Ok(response)).await.is_err() {
            return Ok(());
        }
    }
    Ok(())
}

/// Explains one snippet and drops its text.
async fn one(shared: &Arc<Shared>, caller: &Caller, item: ExplainRequest) -> WarmCacheResponse {
    let id = item.id[..item.id.floor_char_boundary(MAX_ID_BYTES)].to_owned();
    let result = explain(shared, caller, item).await;
    let (outcome, error) = match result {
        Ok(outcome) => (outcome, String::new()),
        Err(error) => (WarmOutcome::Failed, error.to_string()),
    };
    WarmCacheResponse {
        id,
        outcome: outcome.into(),
        error,
        ..WarmCacheResponse::default()
    }
}

async fn explain(
    shared: &Arc<Shared>,
    caller: &Caller,
    item: ExplainRequest,
) -> Result<WarmOutcome, Error> {
    let valid = (shared.status.explainer().cloned())
        .and_then(|e| Ok((e, ValidRequest::new(item, &shared.request)?)));
    let (explainer, request) = valid.inspect_err(|_| shared.metrics.item_ended(Outcome::Failed))?;
    let kept = request.reproducible && shared.cache.enabled();
    let identity = caller.identity.clone();
    let (out, mut events) =
        caller.outlet(&shared.events, EVENTS, shared.stream.slow_reader_timeout);
    // A task of its own, so that it ends and is counted where this call ends before it.
    shared.status.items.spawn(async move {
        let call = Call {
            out: &out,
            cancel: &Cancel::default(),
            parent: &TraceParent::default(),
            identity: &identity,
            deadline: None,
            record: &Record::default(),
        };
        explainer.run(Box::new(request), call, |_, _| true).await;
    });
    let mut last = Err(Error::Internal);
    while let Some(event) = events.recv().await {
        match event.kind {
            EventKind::Done(done) => last = Ok(done),
            EventKind::Failed(error) => last = Err(error),
            _ => {}
        }
    }
    let done: Box<Done> = last?;
    Ok(match (done.level, kept) {
        (Some(_), _) => WarmOutcome::Present,
        (None, true) => WarmOutcome::Warmed,
        (None, false) => WarmOutcome::NotCacheable,
    })
}
