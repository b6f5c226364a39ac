//! The messages of a stream, as its service reads them.

use prost::Message;
use tonic::{Request, Status, Streaming};

use crate::api::Shared;
use crate::api::body::Upload;
use crate::api::bounds::Bounded;
use crate::api::codec::BoundedDecoder;
use crate::api::leftover::ReadToEnd;

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
        // Bodies are handed on message by message: between two, the decoder has nothing that would be lost with it.
        if let Some(body) = self.body.as_ref().filter(|body| body.has_grown()) {
            let decoder = BoundedDecoder::<T>::default();
            self.messages =
                Streaming::new_request(decoder, body.clone(), None, Some(self.message_bytes));
            body.begins_anew();
        }
        Ok(message)
    }
}
