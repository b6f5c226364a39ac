//! What the corpus keeps on disk, as bytes: a version, half a BLAKE3 of what follows, and the record in postcard's encoding.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Of the records below. Another one is not read.
const VERSION: u8 = 1;
const SUM_BYTES: usize = 16;

/// Whose a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Scope(pub [u8; 16]);

impl Scope {
    /// What every tenant may see: the operator's documents.
    pub const SHARED: Self = Self([0; 16]);

    /// What the tenants with this salt may see.
    pub fn of_tenant(salt: &[u8]) -> Self {
        let hash = blake3::derive_key("code-explainer retrieval scope, version 1", salt);
        let mut scope = [0; 16];
        scope.copy_from_slice(&hash[..16]);
        // Never the shared one, whatever the hash is.
        scope[0] |= 1;
        Self(scope)
    }
}

/// What a document is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Kind {
    /// The operator loaded it.
    Documentation,
    /// An answer that this server gave.
    Explanation,
}

/// A document, without its text.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DocumentRecord {
    /// What it is.
    pub kind: Kind,
    /// For people.
    pub title: String,
    /// Length of its text.
    pub bytes: u64,
    /// BLAKE3 of title and text.
    pub digest: [u8; 32],
    /// When it was added, in seconds since 1970.
    pub added: u64,
    /// Its passages, in order.
    pub passages: Vec<u64>,
}

/// A passage of a document.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PassageRecord {
    /// Whose it is.
    pub scope: Scope,
    /// What its document is.
    pub kind: Kind,
    /// Its document's id.
    pub document: String,
    /// Its place in the document, from 0.
    pub number: u32,
    /// For people, and for the prompt.
    pub title: String,
    /// What a prompt quotes.
    pub text: String,
    /// What the vector was made of, where that is not title and text.
    pub embedded: Option<String>,
    /// The digest of the model that made the vector.
    pub model: String,
    /// Of length 1.
    pub vector: Vec<f32>,
}

impl PassageRecord {
    /// What its vector is made of.
    pub fn to_embed(&self) -> String {
        match &self.embedded {
            Some(text) => text.clone(),
            None => format!("{}\n{}", self.title, self.text),
        }
    }
}

/// A record as bytes.
pub fn seal(record: &impl Serialize) -> Vec<u8> {
    let payload = postcard::to_allocvec(record).unwrap_or_default();
    let mut bytes = Vec::with_capacity(1 + SUM_BYTES + payload.len());
    bytes.push(VERSION);
    bytes.extend_from_slice(&blake3::hash(&payload).as_bytes()[..SUM_BYTES]);
    bytes.extend_from_slice(&payload);
    bytes
}

/// The record in bytes; nothing if it is not the one that was sealed.
pub fn unseal<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    let (&version, rest) = bytes.split_first()?;
    let (sum, payload) = rest.split_first_chunk::<SUM_BYTES>()?;
    if version != VERSION || blake3::hash(payload).as_bytes()[..SUM_BYTES] != *sum {
        return None;
    }
    postcard::from_bytes(payload).ok()
}

/// As [`unseal`], without the checksum: what fuzzing leans on.
pub fn parse<T: DeserializeOwned>(payload: &[u8]) -> Option<T> {
    postcard::from_bytes(payload).ok()
}
