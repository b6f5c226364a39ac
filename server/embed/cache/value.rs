//! Keys and values as bytes.
//!
//! | bytes | what                                                                      |
//! |------:|---------------------------------------------------------------------------|
//! |     8 | when it was used last, in the order of uses; not under the checksum       |
//! |    16 | the first half of the BLAKE3 of the key and of all that follows           |
//! |     4 | tokens of the text, and in the highest bit whether it was cut             |
//! |       | the vector, 4 bytes a number                                              |
//!
//! Integers and floats are little-endian.

use std::fmt;

use crate::embed::Embedding;

/// Separates these hashes from every other use of BLAKE3's key derivation.
const KEY_CONTEXT: &str = "code-explainer embedding cache key, version 2";
const SUM_BYTES: usize = 16;
const HEADER_BYTES: usize = 8 + SUM_BYTES;
const CUT: u32 = 1 << 31;

/// Bytes of a key that are the same for all who share a salt, and for nobody else.
const OWNER_BYTES: usize = 8;

/// The 256-bit name of a text's vector. It says nothing about the text to who does not know the salt. It begins with whose
/// it is, so that a tenant that fills the cache makes room by vectors of its own.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct VectorKey([u8; 32]);

impl VectorKey {
    /// The key of a text under a model, for those who share a salt.
    pub fn new(salt: &[u8], model_digest: &str, text: &str) -> Self {
        let key = blake3::derive_key(KEY_CONTEXT, salt);
        // Of no bytes: what is hashed of a text has some.
        let owner = blake3::keyed_hash(&key, &[]);
        let mut hasher = blake3::Hasher::new_keyed(&key);
        hasher.update(&(model_digest.len() as u64).to_le_bytes());
        hasher.update(model_digest.as_bytes());
        hasher.update(text.as_bytes());
        let mut name = *hasher.finalize().as_bytes();
        name[..OWNER_BYTES].copy_from_slice(&owner.as_bytes()[..OWNER_BYTES]);
        Self(name)
    }

    /// Whose it is, as a stored key says.
    pub(super) fn owner(stored: &[u8; 32]) -> u64 {
        let owner = stored.first_chunk::<OWNER_BYTES>();
        owner.map_or(0, |owner| u64::from_le_bytes(*owner))
    }

    pub(super) fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for VectorKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "VectorKey({})",
            blake3::Hash::from_bytes(self.0).to_hex()
        )
    }
}

pub(super) fn value_bytes(dimensions: usize) -> usize {
    HEADER_BYTES + size_of::<u32>() + dimensions * size_of::<f32>()
}

/// A vector's value, with room for when it was used.
pub fn encode(key: &VectorKey, embedding: &Embedding) -> Vec<u8> {
    let mut value = vec![0; HEADER_BYTES];
    let cut = if embedding.truncated { CUT } else { 0 };
    value.extend_from_slice(&((embedding.tokens & !CUT) | cut).to_le_bytes());
    for number in &embedding.values {
        value.extend_from_slice(&number.to_le_bytes());
    }
    let sum = checksum(key, &value[HEADER_BYTES..]);
    value[8..HEADER_BYTES].copy_from_slice(&sum);
    value
}

/// When it was used, and the vector; nothing if it is not the one that was stored under the key.
pub fn decode(key: &VectorKey, value: &[u8], dimensions: usize) -> Option<(u64, Embedding)> {
    if value.len() != value_bytes(dimensions) {
        return None;
    }
    let (used, rest) = value.split_first_chunk::<8>()?;
    let (sum, payload) = rest.split_first_chunk::<SUM_BYTES>()?;
    if checksum(key, payload) != *sum {
        return None;
    }
    let (tokens, numbers) = payload.split_first_chunk::<4>()?;
    let tokens = u32::from_le_bytes(*tokens);
    let numbers = numbers.as_chunks::<4>().0;
    let embedding = Embedding {
        values: numbers.iter().map(|b| f32::from_le_bytes(*b)).collect(),
        tokens: tokens & !CUT,
        truncated: tokens & CUT != 0,
        cached: true,
    };
    Some((u64::from_le_bytes(*used), embedding))
}

pub(super) fn set_used(value: &mut [u8], used: u64) {
    if let Some(place) = value.first_chunk_mut::<8>() {
        *place = used.to_le_bytes();
    }
}

pub(super) fn used(value: &[u8]) -> Option<u64> {
    value
        .first_chunk::<8>()
        .map(|used| u64::from_le_bytes(*used))
}

fn checksum(key: &VectorKey, payload: &[u8]) -> [u8; SUM_BYTES] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&key.0);
    hasher.update(payload);
    let mut sum = [0; SUM_BYTES];
    sum.copy_from_slice(&hasher.finalize().as_bytes()[..SUM_BYTES]);
    sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_value_comes_back_and_no_other_is_taken_for_it(
            values in prop::collection::vec(-1f32..1.0, 1..16),
            tokens in 0u32..1000,
            truncated: bool,
            used: u64,
            at in any::<prop::sample::Index>(),
            flip in 1u8..,
        ) {
            let key = VectorKey::new(b"salt", "model", "text");
            let put = Embedding { values: values.clone(), tokens, truncated, cached: true };
            let mut value = encode(&key, &put);
            set_used(&mut value, used);
            prop_assert_eq!(decode(&key, &value, values.len()), Some((used, put)));
            prop_assert_eq!(decode(&key, &value, values.len() + 1), None);
            prop_assert_eq!(decode(&VectorKey::new(b"salt", "model", "other"), &value, values.len()), None);
            let at = 8 + at.index(value.len() - 8);
            value[at] ^= flip;
            prop_assert_eq!(decode(&key, &value, values.len()), None);
        }

        #[test]
        fn salt_model_and_text_each_make_another_key(a in "[ab]{0,3}", b in "[ab]{0,3}", c in "[ab]{0,3}", d in "[ab]{0,3}") {
            let same = a == c && b == d;
            prop_assert_eq!(VectorKey::new(b"s", &a, &b) == VectorKey::new(b"s", &c, &d), same);
            prop_assert_eq!(VectorKey::new(a.as_bytes(), "m", &b) == VectorKey::new(c.as_bytes(), "m", &d), same);
        }
    }
}
