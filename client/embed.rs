//! Texts to vectors.

use crate::proto::{EmbedRequest, EmbedResponse};
use crate::{Client, Error};

/// Vectors of texts, in the texts' order.
pub type Embeddings = EmbedResponse;

impl Client {
    /// The vectors of texts: close where the texts mean the like.
    ///
    /// # Errors
    /// [`Error::Connection`], or [`Error::Server`] when a text is refused, there are too many, or the server has no
    /// embedding model.
    pub async fn embed(
        &self,
        texts: impl IntoIterator<Item = impl Into<String>>,
    ) -> Result<Embeddings, Error> {
        let texts = texts.into_iter().map(Into::into).collect();
        let answer = self.explain.clone().embed(EmbedRequest { texts }).await;
        answer
            .map(tonic::Response::into_inner)
            .map_err(|s| Error::from_status(&self.address, &s))
    }
}
