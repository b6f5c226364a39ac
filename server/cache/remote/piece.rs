//! A piece of what the holder of a lease tells of its answer, as an entry of a stream of Redis.

use serde::{Deserialize, Serialize};

use super::token::Token;
use crate::answer::{CachedAnswer, CachedDelta};
use crate::codec::BrokenValue;
use crate::key::CacheKey;
use crate::mac::{MacKey, Purpose};

/// A piece of what is told: its message authentication code, and itself as JSON.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Piece {
    pub(super) deltas: Vec<CachedDelta>,
    /// The answer without its deltas, once it is complete.
    pub(super) end: Option<CachedAnswer>,
}

/// Where a piece belongs. Its code covers all of it, so that a piece of another answer or of another teller, or one that comes
/// twice or out of its turn, is known for what it is.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) mac: &'a MacKey,
    pub(super) key: &'a CacheKey,
    pub(super) token: Token,
    /// Pieces told before.
    pub(super) index: u64,
}

impl Place<'_> {
    fn code(&self, text: &[u8]) -> blake3::Hash {
        let (holder, index) = (self.token.holder(), self.index.to_le_bytes());
        self.mac
            .code(Purpose::Piece, self.key, &[&holder, &index, text])
    }
}

impl Piece {
    /// As bytes that are read at this place alone.
    pub(super) fn encode(&self, place: Place<'_>) -> Vec<u8> {
        let text =
            serde_json::to_vec(self).expect("strings, integers and durations have a JSON form");
        let mut bytes = place.code(&text).as_bytes().to_vec();
        bytes.extend_from_slice(&text);
        bytes
    }

    /// Reads what [`encode`](Self::encode) wrote for this place.
    ///
    /// # Errors
    /// Any other bytes.
    pub(super) fn decode(place: Place<'_>, bytes: &[u8]) -> Result<Self, BrokenValue> {
        let truncated = BrokenValue::Truncated(bytes.len());
        let (stated, text) = bytes
            .split_first_chunk::<{ MacKey::BYTES }>()
            .ok_or(truncated)?;
        if place.code(text) != *stated {
            return Err(BrokenValue::Mac);
        }
        Ok(serde_json::from_slice(text)?)
    }
}
