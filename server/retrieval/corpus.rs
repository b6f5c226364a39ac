//! The operator's documents: loaded, listed and removed.

use std::sync::Arc;

use super::Retrieval;
use super::chunk::passages;
use super::record::{DocumentRecord, Kind, Scope};
use super::store::{NewDocument, NewPassage};
use crate::access::rates::Rates;
use crate::disk::DiskError;
use crate::embed::Lane;
use crate::error::Error;

/// The longest name of a document, in bytes.
pub const MAX_ID_BYTES: usize = 512;
/// The longest title, in bytes.
pub const MAX_TITLE_BYTES: usize = 256;
/// Passages that are embedded at once.
const AT_ONCE: usize = 32;
/// Documents' vectors are no tenant's: their salt in the embedding cache.
const SALT: &[u8] = b"corpus";

/// A document to load.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// Its name, such as a path.
    pub id: String,
    /// For people; empty: its name.
    pub title: String,
    /// UTF-8.
    pub text: String,
}

/// What became of a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Added {
    /// It is new, with so many passages.
    New(usize),
    /// It has taken the place of another one of its name.
    Replaced(usize),
    /// It is there already.
    Unchanged(usize),
}

impl Document {
    fn check(&self, most: usize) -> Result<(), Error> {
        let control = |text: &str| text.chars().any(char::is_control);
        for (field, text, most) in [
            ("id", &self.id, MAX_ID_BYTES),
            ("title", &self.title, MAX_TITLE_BYTES),
        ] {
            if text.len() > most {
                let problem = format!("is {} bytes long, expected at most {most}", text.len());
                return Err(Error::invalid(field, problem));
            }
            if control(text) {
                return Err(Error::invalid(field, "has control characters"));
            }
        }
        if self.id.trim().is_empty() {
            return Err(Error::invalid(
                "id",
                "is empty, expected a name for the document",
            ));
        }
        if self.text.len() > most {
            let problem = format!("is {} bytes long, expected at most {most}", self.text.len());
            return Err(Error::invalid("text", problem));
        }
        if self.text.trim().is_empty() {
            return Err(Error::invalid("text", "is empty, expected a document"));
        }
        Ok(())
    }

    fn digest(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&(self.title.len() as u64).to_le_bytes());
        hasher.update(self.title.as_bytes());
        hasher.update(self.text.as_bytes());
        *hasher.finalize().as_bytes()
    }
}

impl Retrieval {
    /// Loads a document, in place of one of its name. It is on disk, and found, when this returns.
    ///
    /// # Errors
    /// [`Error::Invalid`] names the field; [`Error::CorpusFull`]; and what an embedding can fail with.
    pub async fn add_document(self: &Arc<Self>, mut document: Document) -> Result<Added, Error> {
        document.check(self.config.document_bytes)?;
        if document.title.is_empty() {
            document.title = document.id.clone();
        }
        let digest = document.digest();
        let store = self.store().await?.clone();
        let (from, id) = (store.clone(), document.id.clone());
        let before = blocking(move || from.document(Scope::SHARED, &id)).await?;
        if let Some(same) = before.as_ref().filter(|before| before.digest == digest) {
            return Ok(Added::Unchanged(same.passages.len()));
        }
        let bytes = document.text.len() as u64;
        let cut = tokio::task::spawn_blocking(move || {
            let cut = passages(&document.id, &document.title, &document.text);
            (document, cut)
        });
        let (document, cut) = cut.await.map_err(|_| Error::Internal)?;
        let count = cut.len();
        let full = || Error::CorpusFull {
            limit: self.config.passages,
        };
        if count > self.config.passages {
            return Err(full());
        }
        let mut made = Vec::with_capacity(count);
        for some in cut.chunks(AT_ONCE) {
            let texts = some
                .iter()
                .map(|p| format!("{}\n{}", p.title, p.text))
                .collect();
            let vectors = self
                .embedder
                .embed(Lane::Background, SALT, &Rates::unlimited(), texts)
                .await?;
            made.extend(
                some.iter()
                    .zip(vectors)
                    .map(|(passage, vector)| NewPassage {
                        title: passage.title.clone(),
                        text: passage.text.clone(),
                        embedded: None,
                        vector: vector.values,
                    }),
            );
        }
        let new = NewDocument {
            scope: Scope::SHARED,
            id: document.id,
            kind: Kind::Documentation,
            title: document.title,
            bytes,
            digest,
            passages: made,
        };
        let limit = self.config.passages;
        if !blocking(move || store.put(new, limit)).await? {
            return Err(full());
        }
        Ok(match before {
            None => Added::New(count),
            Some(_) => Added::Replaced(count),
        })
    }

    /// Documents in the order of their names: those after `after` that begin with `prefix`, at most `count`.
    ///
    /// # Errors
    /// [`Error::NoEmbeddings`] where there is no corpus.
    pub async fn list_documents(
        self: &Arc<Self>,
        after: Option<String>,
        prefix: String,
        count: usize,
    ) -> Result<Vec<(String, DocumentRecord)>, Error> {
        let store = self.store().await?.clone();
        blocking(move || store.list(Scope::SHARED, after.as_deref(), &prefix, count)).await
    }

    /// Removes documents: those of these names, or those that begin with a prefix. How many, and their passages.
    ///
    /// # Errors
    /// [`Error::NoEmbeddings`] where there is no corpus.
    pub async fn remove_documents(
        self: &Arc<Self>,
        names: Vec<String>,
        prefix: Option<String>,
    ) -> Result<(u64, u64), Error> {
        let store = self.store().await?.clone();
        let names: std::collections::HashSet<String> = names.into_iter().collect();
        let wanted = move |id: &str| {
            names.contains(id) || prefix.as_ref().is_some_and(|p| id.starts_with(p))
        };
        blocking(move || store.remove(Scope::SHARED, wanted)).await
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, DiskError> + Send + 'static,
) -> Result<T, Error> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done.map_err(|error| failed(&error)),
        Err(panic) => {
            tracing::error!(%panic, "the corpus failed");
            Err(Error::Internal)
        }
    }
}

/// What a client is told. That the disk is in trouble has been logged once.
pub(super) fn failed(error: &DiskError) -> Error {
    if matches!(error, DiskError::Away { .. }) {
        return Error::Disk;
    }
    tracing::error!("the corpus failed: {error}");
    if error.is_of_the_disk() {
        Error::Disk
    } else {
        Error::Internal
    }
}
