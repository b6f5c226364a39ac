//! The corpus RPCs of `AdminService`.

use std::pin::Pin;
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Response, Status};

use crate::api::Shared;
use crate::api::inbound::Inbound;
use crate::error::Error;
use crate::proto::{
    self, AddDocumentsRequest, AddDocumentsResponse, DocumentOutcome, ListDocumentsRequest,
    ListDocumentsResponse, RemoveDocumentsRequest, RemoveDocumentsResponse,
};
use crate::retrieval::corpus::{Added, Document};
use crate::status::Phase;

/// Documents that a page has at most.
const PAGE: usize = 1000;
/// Outcomes that wait for a slow reader; then the documents wait.
const OUTCOMES: usize = 16;

/// What became of documents, as it becomes known.
pub(super) type Outcomes = Pin<Box<dyn Stream<Item = Result<AddDocumentsResponse, Status>> + Send>>;

/// Loads documents one after another, and says of each what became of it.
pub(super) fn add(
    shared: &Arc<Shared>,
    mut documents: Inbound<AddDocumentsRequest>,
) -> Response<Outcomes> {
    let (told, outcomes) = mpsc::channel(OUTCOMES);
    let shared = shared.clone();
    let (items, mut phases) = (shared.status.items.clone(), shared.status.watch());
    items.spawn(async move {
        loop {
            let next = tokio::select! {
                biased;
                () = told.closed() => return,
                // A server that drains waits for the document in hand, not for the next one.
                _ = phases.wait_for(|state| state.phase == Phase::Draining) => Err(Error::ShuttingDown.into()),
                next = documents.message() => next,
            };
            let answer = match next {
                Ok(None) => return,
                Err(status) => Err(status),
                Ok(Some(document)) => add_one(&shared, document).await,
            };
            let last = answer.is_err();
            if told.send(answer).await.is_err() || last {
                return;
            }
        }
    });
    Response::new(Box::pin(ReceiverStream::new(outcomes)))
}

/// A document that cannot be stored is told so; where none can be, the stream ends.
async fn add_one(
    shared: &Shared,
    request: AddDocumentsRequest,
) -> Result<AddDocumentsResponse, Status> {
    let AddDocumentsRequest { id, title, text } = request;
    let document = Document {
        id: id.clone(),
        title,
        text,
    };
    let (outcome, passages, error) = match shared.retrieval.add_document(document).await {
        Ok(Added::New(passages)) => (DocumentOutcome::Added, passages, None),
        Ok(Added::Replaced(passages)) => (DocumentOutcome::Replaced, passages, None),
        Ok(Added::Unchanged(passages)) => (DocumentOutcome::Unchanged, passages, None),
        Err(error @ (Error::Invalid { .. } | Error::CorpusFull { .. })) => {
            (DocumentOutcome::Refused, 0, Some(error))
        }
        Err(error) => return Err(error.into()),
    };
    Ok(AddDocumentsResponse {
        id: id.chars().take(512).collect(),
        outcome: outcome.into(),
        passages: passages as u32,
        field: error.as_ref().map_or("", Error::field).into(),
        error: error.map(|error| error.to_string()).unwrap_or_default(),
    })
}

/// A page of documents.
pub(super) async fn list(
    shared: &Shared,
    request: ListDocumentsRequest,
) -> Result<Response<ListDocumentsResponse>, Status> {
    let size = match request.page_size as usize {
        0 => PAGE,
        size => size.min(PAGE),
    };
    let after = (!request.page_token.is_empty()).then_some(request.page_token);
    let retrieval = &shared.retrieval;
    // One more tells whether there is a next page.
    let mut found = retrieval
        .list_documents(after, request.prefix, size + 1)
        .await?;
    let more = found.len() > size;
    found.truncate(size);
    let last = found.last().filter(|_| more);
    let next_page_token = last.map(|(id, _)| id.clone()).unwrap_or_default();
    let stats = retrieval.stats();
    let documents = found.into_iter().map(|(id, record)| proto::Document {
        id,
        title: record.title,
        bytes: record.bytes,
        passages: record.passages.len() as u32,
        added: Some(prost_types::Timestamp {
            seconds: record.added as i64,
            nanos: 0,
        }),
    });
    Ok(Response::new(ListDocumentsResponse {
        documents: documents.collect(),
        next_page_token,
        total_documents: stats.documents,
        total_passages: stats.passages,
        kept_answers: stats.answers,
    }))
}

/// Removes documents.
pub(super) async fn remove(
    shared: &Shared,
    request: RemoveDocumentsRequest,
) -> Result<Response<RemoveDocumentsResponse>, Status> {
    let RemoveDocumentsRequest { ids, prefix } = request;
    if ids.is_empty() && prefix.is_none() {
        let error = Error::invalid(
            "ids",
            "is empty, and so is prefix: expected documents to remove",
        );
        return Err(error.into());
    }
    let (documents, passages) = shared.retrieval.remove_documents(ids, prefix).await?;
    Ok(Response::new(RemoveDocumentsResponse {
        documents,
        passages,
    }))
}
