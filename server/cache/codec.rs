//! Answers as bytes, for a store that other programs can write to.
//!
//! A value is a header and a payload. All integers are little-endian.
//!
//! | bytes | what                                                                       |
//! |------:|----------------------------------------------------------------------------|
//! |     4 | `CXAN`                                                                     |
//! |     2 | version of the format                                                      |
//! |    32 | the key that the value was stored under                                    |
//! |     8 | length of the payload                                                      |
//! |    32 | BLAKE3 of all bytes above and of the payload                               |
//! |       | the payload: the answer as JSON, in a frame of zstd                        |
//!
//! The checksum finds what storage and transport break. It is no signature: who can write to the store can forge. So a
//! frame is unpacked no further than an answer may be long, however long it says that it is.

use std::io::Read;

use super::answer::CachedAnswer;
use super::key::CacheKey;

const MAGIC: &[u8; 4] = b"CXAN";
pub(super) const VERSION: u16 = 2;
/// Of zstd: 2 KB of text shrink to a third in some 20 microseconds; higher levels gain a few percent for several times that.
const COMPRESSION_LEVEL: i32 = 3;
/// The smallest window that zstd knows, as a power of two.
const SMALLEST_WINDOW: u32 = 10;
const CHECKED_BYTES: usize = MAGIC.len() + size_of::<u16>() + CacheKey::BYTES + size_of::<u64>();
const HEADER_BYTES: usize = CHECKED_BYTES + blake3::OUT_LEN;

/// Why a stored value cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BrokenValue {
    /// Larger than answers may be, as it is or unpacked.
    #[error("the value is longer than {limit} bytes")]
    TooLarge {
        /// The most bytes that a value may have.
        limit: usize,
    },
    /// Too short to hold a header.
    #[error("the value ends within its header, after {0} bytes")]
    Truncated(usize),
    /// Some other program's value.
    #[error("the value is not an answer: its first bytes are {0:02x?}")]
    Magic([u8; 4]),
    /// Written by a release with another format.
    #[error("the value has format version {0}, expected {VERSION}")]
    Version(u16),
    /// Cut, or something was appended.
    #[error("the value's payload has {actual} bytes, its header says {stated}")]
    Length {
        /// As the header says.
        stated: u64,
        /// As they are.
        actual: usize,
    },
    /// Some bytes are not those that were written.
    #[error("the value's checksum does not match its bytes")]
    Checksum,
    /// The answer to another request.
    #[error("the value was stored under another key")]
    Key,
    /// The checksum is right, but the payload is no frame of zstd.
    #[error("the value's payload cannot be unpacked: {0}")]
    Compression(#[source] std::io::Error),
    /// The checksum is right, but the payload is no answer.
    #[error("the value's payload is not an answer: {0}")]
    Payload(#[from] serde_json::Error),
    /// The key holds something that is not a string.
    #[error("the key holds a value of another type")]
    Type,
}

impl CachedAnswer {
    /// The answer as bytes that only a look-up of `key` accepts. `None`: it has more than `limit` bytes before it is
    /// compressed.
    pub fn encode(&self, key: &CacheKey, limit: usize) -> Option<Vec<u8>> {
        let text =
            serde_json::to_vec(self).expect("strings, integers and durations have a JSON form");
        if text.len() > limit {
            return None;
        }
        let payload = zstd::bulk::compress(&text, COMPRESSION_LEVEL)
            .expect("the buffer has room for what cannot be compressed");
        let mut value = Vec::with_capacity(HEADER_BYTES + payload.len());
        value.extend_from_slice(MAGIC);
        value.extend_from_slice(&VERSION.to_le_bytes());
        value.extend_from_slice(key.as_bytes());
        value.extend_from_slice(&(payload.len() as u64).to_le_bytes());
        let checksum = checksum(&value, &payload);
        value.extend_from_slice(checksum.as_bytes());
        value.extend_from_slice(&payload);
        Some(value)
    }

    /// Reads back what [`encode`](Self::encode) wrote for the same key.
    ///
    /// Unpacks `limit` bytes at most, and allocates in proportion to that, never to a length that the value states.
    ///
    /// # Errors
    /// Any other bytes: [`BrokenValue`] says what is wrong with them.
    pub fn decode(key: &CacheKey, value: &[u8], limit: usize) -> Result<Self, BrokenValue> {
        let truncated = || BrokenValue::Truncated(value.len());
        let (magic, rest) = value.split_first_chunk().ok_or_else(truncated)?;
        if magic != MAGIC {
            return Err(BrokenValue::Magic(*magic));
        }
        let (version, rest) = rest.split_first_chunk().ok_or_else(truncated)?;
        let version = u16::from_le_bytes(*version);
        if version != VERSION {
            return Err(BrokenValue::Version(version));
        }
        let (echo, rest) = rest.split_first_chunk().ok_or_else(truncated)?;
        let (stated, rest) = rest.split_first_chunk().ok_or_else(truncated)?;
        let (expected, payload) = rest
            .split_first_chunk::<{ blake3::OUT_LEN }>()
            .ok_or_else(truncated)?;
        let stated = u64::from_le_bytes(*stated);
        if stated != payload.len() as u64 {
            return Err(BrokenValue::Length {
                stated,
                actual: payload.len(),
            });
        }
        if checksum(&value[..CHECKED_BYTES], payload) != *expected {
            return Err(BrokenValue::Checksum);
        }
        if echo != key.as_bytes() {
            return Err(BrokenValue::Key);
        }
        Ok(serde_json::from_slice(&unpack(payload, limit)?)?)
    }
}

fn unpack(payload: &[u8], limit: usize) -> Result<Vec<u8>, BrokenValue> {
    let unpacked = || {
        let mut frames = zstd::stream::read::Decoder::with_buffer(payload)?;
        // What the decoder keeps of the text to copy from: no more than the text may be long.
        let window = limit.next_power_of_two().trailing_zeros();
        frames.window_log_max(window.max(SMALLEST_WINDOW))?;
        let mut text = Vec::new();
        // One byte more than the limit tells that there is too much.
        let most = (limit as u64).saturating_add(1);
        frames.take(most).read_to_end(&mut text)?;
        Ok(text)
    };
    let text = unpacked().map_err(BrokenValue::Compression)?;
    if text.len() > limit {
        return Err(BrokenValue::TooLarge { limit });
    }
    Ok(text)
}

fn checksum(header: &[u8], payload: &[u8]) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    hasher.update(header);
    hasher.update(payload);
    hasher.finalize()
}
