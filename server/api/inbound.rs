//! The messages of a stream, as its service reads them.

use std::error::Error;

use prost::Message;
use tonic::{Request, Status, Streaming};

use crate::api::Shared;
use crate::api::body::Upload;
use crate::api::bounds::Bounded;
use crate::api::codec::BoundedDecoder;
use crate::api::leftover::ReadToEnd;
use crate::api::unreadable::Unreadable;

/// As tonic's [`Streaming`], which keeps the room of its largest message for as long as the stream lives: here, that is
/// given back when the message is read.
pub(super) struct Inbound<T> {
    messages: Streaming<T>,
    /// `None`: the call came in by another way than the door.
    body: Option<Upload<ReadToEnd>>,
    message_bytes: usize,
}

impl<T: Message + Bounded + Default + 'static> Inbound<T> {
    /// Those of a call.
    pub(super) fn of(request: Request<Streaming<T>>, shared: &Shared) -> Self {
        Self {
            body: request.extensions().get().cloned(),
            messages: request.into_inner(),
            message_bytes: shared.request_bytes.message,
        }
    }

    /// The next one; `None`: the client has said all. Nothing is lost where this is given up.
    ///
    /// # Errors
    /// As [`Streaming::message`]'s.
    pub(super) async fn message(&mut self) -> Result<Option<T>, Status> {
        let message = self.messages.message().await?;
        if self.body.as_ref().is_some_and(Upload::has_grown) {
            self.begin_anew();
        }
        Ok(message)
    }

    /// The same of a stream whose messages are items: one that cannot be decoded is the affair of its item, where it says
    /// of which.
    ///
    /// # Errors
    /// As [`Streaming::message`]'s.
    pub(super) async fn item(&mut self) -> Result<Option<Result<T, Unreadable>>, Status> {
        let status = match self.message().await {
            Ok(message) => return Ok(message.map(Ok)),
            Err(status) => status,
        };
        let source = status.source().and_then(|source| source.downcast_ref());
        match source.cloned() {
            Some(unreadable) if self.body.is_some() => {
                // The old decoder takes nothing more.
                self.begin_anew();
                Ok(Some(Err(unreadable)))
            }
            _ => Err(status),
        }
    }

    /// Goes on with a new decoder. Bodies are handed on message by message: between two, the old one has nothing that
    /// would be lost with it.
    fn begin_anew(&mut self) {
        if let Some(body) = &self.body {
            let decoder = BoundedDecoder::<T>::default();
            self.messages =
                Streaming::new_request(decoder, body.clone(), None, Some(self.message_bytes));
            body.begins_anew();
        }
    }
}
