//! Message authentication codes of what lies in Redis, which others can write to.

use super::key::CacheKey;

/// Separates this key from every other use of BLAKE3's key derivation.
const MAC_CONTEXT: &str = "code-explainer cache MAC, version 1";

/// Keys the message authentication codes of everything that this installation puts into Redis.
///
/// Derived from the installation's secret (`cache_secret`), so that all replicas have the same one and nobody else does. With
/// an empty secret everybody can derive it: then the codes find what storage breaks, and no forgeries.
#[derive(Clone)]
pub struct MacKey([u8; blake3::KEY_LEN]);

/// What a code is for. A code for one is never one for another.
#[derive(Debug, Clone, Copy)]
pub(super) enum Purpose {
    /// A complete answer.
    Answer = 1,
    /// The lease to make one.
    Lease = 2,
    /// A piece of one that is being made.
    Piece = 3,
}

impl MacKey {
    /// Length of a code in bytes.
    pub const BYTES: usize = blake3::OUT_LEN;

    /// The key that follows from the installation's secret.
    pub fn new(secret: &[u8]) -> Self {
        Self(blake3::derive_key(MAC_CONTEXT, secret))
    }

    /// The code of `parts` at the place of an answer: keyed BLAKE3 over the purpose (one byte), the answer's key, and each
    /// part behind its length (8 bytes, little-endian). What is moved to another place, or cut elsewhere, has another code.
    ///
    /// Codes are compared in constant time.
    pub(super) fn code(&self, purpose: Purpose, key: &CacheKey, parts: &[&[u8]]) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        hasher.update(&[purpose as u8]).update(key.as_bytes());
        for part in parts {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        hasher.finalize()
    }
}

impl std::fmt::Debug for MacKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MacKey(...)")
    }
}
