//! The documents that the strategy "retrieval_augmented" quotes from.

use futures::stream::BoxStream;
use futures::{Stream, StreamExt};

use crate::proto::{
    AddDocumentsRequest, AddDocumentsResponse, ListDocumentsRequest, ListDocumentsResponse,
    RemoveDocumentsRequest, RemoveDocumentsResponse,
};
use crate::{Client, Error};

/// A document to load.
pub type NewDocument = AddDocumentsRequest;
/// What became of a document.
pub type DocumentResult = AddDocumentsResponse;
/// A page of documents.
pub type Documents = ListDocumentsResponse;
/// What was removed.
pub type Removed = RemoveDocumentsResponse;

impl Client {
    /// Loads documents one after another; what became of each comes as soon as it is known, in order.
    ///
    /// # Errors
    /// [`Error::Connection`] or [`Error::Server`], here and in the stream, which it ends. A document that is refused is
    /// no error: its result says so.
    pub async fn add_documents(
        &self,
        documents: impl Stream<Item = NewDocument> + Send + 'static,
    ) -> Result<BoxStream<'static, Result<DocumentResult, Error>>, Error> {
        let address = self.address.clone();
        let answer = self.admin.clone().add_documents(documents).await;
        let results = answer.map_err(|s| Error::from_status(&self.address, &s))?;
        let results = results.into_inner();
        Ok(results
            .map(move |result| result.map_err(|s| Error::from_status(&address, &s)))
            .boxed())
    }

    /// The documents whose names begin with `prefix`, after the page that ended with this token, if one did.
    ///
    /// # Errors
    /// [`Error::Connection`] or [`Error::Server`].
    pub async fn list_documents(&self, prefix: &str, page_token: &str) -> Result<Documents, Error> {
        let request = ListDocumentsRequest {
            prefix: prefix.to_owned(),
            page_size: 0,
            page_token: page_token.to_owned(),
        };
        let answer = self.admin.clone().list_documents(request).await;
        answer
            .map(tonic::Response::into_inner)
            .map_err(|s| Error::from_status(&self.address, &s))
    }

    /// Removes the documents of these names, and those whose names begin with the prefix, if there is one.
    ///
    /// # Errors
    /// [`Error::Connection`] or [`Error::Server`].
    pub async fn remove_documents(
        &self,
        ids: Vec<String>,
        prefix: Option<String>,
    ) -> Result<Removed, Error> {
        let request = RemoveDocumentsRequest { ids, prefix };
        let answer = self.admin.clone().remove_documents(request).await;
        answer
            .map(tonic::Response::into_inner)
            .map_err(|s| Error::from_status(&self.address, &s))
    }
}

/// A point in time as seconds since 1970.
pub(crate) fn seconds<S: serde::Serializer>(
    time: &Option<prost_types::Timestamp>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.serialize_i64(time.as_ref().map_or(0, |time| time.seconds))
}
