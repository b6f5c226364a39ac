//! Answers as bytes, for a store that other programs can write to.
//!
//! A value is a header and a payload. Integers are little-endian.
//!
//! | bytes | what                                                                                          |
//! |------:|-----------------------------------------------------------------------------------------------|
//! |     4 | `CXAN`                                                                                        |
//! |     2 | version of the format                                                                         |
//! |    32 | message authentication code of the key, the bytes above and the payload: see [`MacKey`]       |
//! |       | the payload: the answer as JSON, in a frame of zstd                                           |
//!
//! Nothing of the payload is looked at before its code is found to be right: who can write to the store, but does not know the
//! installation's secret, can take answers away and put them back, and cannot have other bytes unpacked. Who knows the
//! secret, or where there is none, gets no further than a frame that is unpacked to as much as an answer may be long.

use std::io::Read;

use super::answer::CachedAnswer;
use super::key::CacheKey;
use super::mac::{MacKey, Purpose};

const MAGIC: &[u8; 4] = b"CXAN";
/// Names in Redis hold it, so that replicas of releases with different formats can share one.
pub(super) const VERSION: u16 = 3;
/// Of zstd: 2 KB of text shrink to a third in some 20 microseconds; higher levels gain a few percent for several times that.
const COMPRESSION_LEVEL: i32 = 3;
/// The smallest window that zstd knows, as a power of two.
const SMALLEST_WINDOW: u32 = 10;
const HEADER_BYTES: usize = MAGIC.len() + size_of::<u16>() + MacKey::BYTES;

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
    /// Not what a replica with this cache secret has put into this place: forged, moved, cut, or damaged.
    #[error(
        "the value is not authentic: it was not written in this place with this installation's cache secret"
    )]
    Mac,
    /// The code is right, but the payload is no frame of zstd.
    #[error("the value's payload cannot be unpacked: {0}")]
    Compression(#[source] std::io::Error),
    /// The code is right, but the payload is no answer.
    #[error("the value's payload is not an answer: {0}")]
    Payload(#[from] serde_json::Error),
    /// The key holds something that is not a string.
    #[error("the key holds a value of another type")]
    Type,
}

impl BrokenValue {
    /// Labels of all kinds, for metrics.
    pub const KINDS: [&str; 4] = ["mac", "format", "size", "payload"];

    /// The index in [`KINDS`](Self::KINDS) of what is wrong.
    pub(super) fn kind(&self) -> usize {
        match self {
            Self::Mac => 0,
            Self::Truncated(_) | Self::Magic(_) | Self::Version(_) | Self::Type => 1,
            Self::TooLarge { .. } => 2,
            Self::Compression(_) | Self::Payload(_) => 3,
        }
    }
}

impl CachedAnswer {
    /// The answer as bytes that only a look-up of `key` with the same secret accepts. `None`: it has more than `limit` bytes
    /// before it is compressed.
    pub fn encode(&self, mac: &MacKey, key: &CacheKey, limit: usize) -> Option<Vec<u8>> {
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
        let code = mac.code(Purpose::Answer, key, &[&value, &payload]);
        value.extend_from_slice(code.as_bytes());
        value.extend_from_slice(&payload);
        Some(value)
    }

    /// Reads back what [`encode`](Self::encode) wrote for the same key with the same secret.
    ///
    /// Unpacks `limit` bytes at most, and allocates in proportion to that.
    ///
    /// # Errors
    /// Any other bytes: [`BrokenValue`] says what is wrong with them.
    pub fn decode(
        mac: &MacKey,
        key: &CacheKey,
        value: &[u8],
        limit: usize,
    ) -> Result<Self, BrokenValue> {
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
        let (stated, payload) = rest
            .split_first_chunk::<{ MacKey::BYTES }>()
            .ok_or_else(truncated)?;
        let header = &value[..MAGIC.len() + size_of::<u16>()];
        if mac.code(Purpose::Answer, key, &[header, payload]) != *stated {
            return Err(BrokenValue::Mac);
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
