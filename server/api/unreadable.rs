//! A message of a stream that cannot be decoded, such as one whose code is not UTF-8: which item it was to be, so that
//! this item fails and the stream goes on.

use prost::DecodeError;

use crate::api::bounds::{Bounded, bytes_at};
use crate::error::Error;

/// Where the messages of a stream have what is to be known of an item: field numbers, from the outside in.
#[derive(Debug)]
pub(crate) struct ItemFields {
    /// The item's name.
    pub(crate) id: &'static [u32],
    /// Its code, where the client counts that.
    pub(crate) code: Option<&'static [u32]>,
}

/// An item that could not be read.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{error}")]
pub(crate) struct Unreadable {
    /// As it stands in the message.
    pub(crate) id: String,
    /// The bytes of its code, where the client counts them.
    pub(crate) cost: Option<usize>,
    /// What its client is told.
    #[source]
    pub(crate) error: Error,
}

impl Unreadable {
    /// `None`: the message does not say which item it was to be.
    pub(crate) fn of<U: Bounded>(message: &[u8], error: &DecodeError) -> Option<Self> {
        let fields = U::ITEM?;
        let id = bytes_at(fields.id, message)?;
        let code = fields.code.map(|code| bytes_at(code, message));
        Some(Self {
            id: std::str::from_utf8(id).ok()?.to_owned(),
            cost: code.map(|code| code.map_or(0, <[u8]>::len)),
            error: Error::invalid("request", problem(error)),
        })
    }
}

/// What is wrong with a message, and what mends it.
pub(crate) fn problem(error: &DecodeError) -> String {
    format!(
        "is not a message of this call ({error}): send its type as the proto files have it, with all strings in UTF-8"
    )
}
