//! A request's body, as it is received: nothing of it is read that the call does not take, that there is no room for, or
//! that does not come in time.
//!
//! What is counted is what tonic's decoder holds: it takes room for a message when it has read how long that is to be, not
//! as it comes. So the room is taken out of the budget before it hears that length.
//!
//! A message's way: `Length => (Room =>) (Content | Packed) => Length`. In `Room` nothing is read, so that flow control stops
//! the client. What is compressed is handed on unpacked.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::BoxError;
use futures::FutureExt;
use hyper::body::{Body, Bytes, Frame};
use tokio::time::{Instant, Sleep, sleep_until};

use crate::api::budget::{Held, Room, Share, Waiting};
use crate::api::methods::{Messages, Takes};
use crate::api::packed::{most, unpack};
use crate::api::refusal::Refusal;
use crate::metrics::Metrics;

/// What tonic's decoder of a call begins with. It grows for a message that does not fit, and keeps what it has grown to.
pub(super) const DECODER_BYTES: usize = 8 << 10;
/// Before each message: whether it is compressed, and how long it is.
const PREFIX_BYTES: usize = 5;
/// Of a message that is compressed, the first byte.
const COMPRESSED: u8 = 1;
/// A message may take a second more for each of these, so that a long one has time on a slow line.
const BYTES_PER_SECOND: usize = 64 << 10;

/// What a call's decoder has when it has grown from `holds` for a message of `bytes`. Vectors double, or grow by as much
/// as is asked for, whichever is more; and it asks for more than it has.
pub(super) const fn grown(holds: usize, bytes: usize) -> usize {
    let needs = PREFIX_BYTES + bytes;
    if needs <= holds { holds } else { holds + needs }
}

/// A body that is being received. Its clones are one.
pub(super) struct Upload<B>(Arc<Mutex<Receiving<B>>>);

struct Receiving<B> {
    /// `None`: it has ended, or no more of it is wanted.
    body: Option<B>,
    takes: Takes,
    patience: Duration,
    metrics: Arc<Metrics>,
    /// Received, and not looked at: a part of one frame.
    rest: Bytes,
    /// The length of the message in hand, which its reader is to get next.
    prefix: Option<Bytes>,
    /// The message in hand, where it was unpacked; it comes after its length.
    unpacked: Option<Bytes>,
    state: State,
    messages: u64,
    /// When the message in hand has to be there; `None`: there is none.
    deadline: Option<Instant>,
    alarm: Option<Pin<Box<Sleep>>>,
    /// What the decoder has.
    holds: usize,
    /// `None`: messages of this call are so small that its decoder does not grow.
    paid: Option<Paid>,
}

/// What is paid for a body out of the budget.
pub(super) struct Paid {
    share: Share,
    _base: Held,
    /// For what the decoder has grown by.
    grown: Vec<Held>,
    /// For a compressed message: as it came, and unpacked.
    copies: Option<Held>,
}

impl Paid {
    /// By this share, of which `base` is held for what the decoder begins with, and for what may lie in the stream's window.
    pub(super) fn new(share: Share, base: Held) -> Self {
        Self {
            share,
            _base: base,
            grown: Vec::new(),
            copies: None,
        }
    }

    /// Room for a message, of which all beyond what the decoder grows by is for copies of it.
    fn take(&mut self, mut held: Held, grows: usize) {
        self.copies = Some(held.beyond(grows));
        if grows > 0 {
            self.grown.push(held);
        }
    }
}

enum State {
    /// So much is read of the next message's prefix.
    Length {
        read: usize,
        prefix: [u8; PREFIX_BYTES],
    },
    /// There is no room yet for a message of so many bytes.
    Room {
        waiting: Waiting,
        bytes: usize,
        grows: usize,
        packed: bool,
    },
    /// So much of the message is to come, or to be handed on.
    Content { left: usize },
    /// The same of a message that is compressed, with what has come of it.
    Packed { left: usize, packed: Vec<u8> },
}

const BETWEEN: State = State::Length {
    read: 0,
    prefix: [0; PREFIX_BYTES],
};

impl<B> Clone for Upload<B> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<B> Upload<B> {
    /// A body with what its call takes. A message is read within `patience`.
    pub(super) fn new(
        body: B,
        takes: Takes,
        patience: Duration,
        paid: Option<Paid>,
        metrics: Arc<Metrics>,
    ) -> Self {
        // Where there is one message, its time begins with the call.
        let at_once = takes.messages == Messages::One;
        Self(Arc::new(Mutex::new(Receiving {
            body: (takes.messages != Messages::None).then_some(body),
            takes,
            patience,
            metrics,
            rest: Bytes::new(),
            prefix: None,
            unpacked: None,
            state: BETWEEN,
            messages: 0,
            deadline: at_once.then(|| Instant::now() + patience),
            alarm: None,
            holds: DECODER_BYTES,
            paid,
        })))
    }

    /// Whether its decoder has grown.
    pub(super) fn has_grown(&self) -> bool {
        self.lock().holds > DECODER_BYTES
    }

    /// Its decoder is a new one.
    pub(super) fn begins_anew(&self) {
        let mut receiving = self.lock();
        receiving.holds = DECODER_BYTES;
        if let Some(paid) = &mut receiving.paid {
            paid.grown.clear();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Receiving<B>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<B> Receiving<B> {
    /// The next message is to be so long; `prefix` says so.
    fn begin(&mut self, prefix: Bytes) -> Result<(), Refusal> {
        let bytes = u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]) as usize;
        if bytes > self.takes.bytes {
            return Err(Refusal::TooLarge {
                bytes,
                limit: self.takes.bytes,
            });
        }
        self.messages += 1;
        if self.takes.messages == Messages::One && self.messages > 1 {
            return Err(Refusal::NotOne);
        }
        let packed = self.takes.gzip && prefix[0] == COMPRESSED;
        let most = match packed {
            true => most(bytes, self.takes.bytes),
            false => bytes,
        };
        if !packed {
            self.prefix = Some(prefix);
        }
        let grows = grown(self.holds, most) - self.holds;
        // A packed message lies here twice, until it has been handed on.
        let more = grows + if packed { bytes + most } else { 0 };
        // Messages that nobody pays for are as small as what a decoder begins with.
        if grows == 0 && self.paid.as_ref().is_none_or(|_| !packed) {
            self.content(bytes, packed);
            return Ok(());
        }
        let paid = self.paid.as_mut().ok_or(Refusal::NoRoom)?;
        self.holds += grows;
        match paid.share.take(more) {
            Room::Held(held) => {
                paid.take(held, grows);
                self.content(bytes, packed);
            }
            Room::Waiting(waiting) => {
                self.deadline = Some(Instant::now() + self.patience);
                self.state = State::Room {
                    waiting,
                    bytes,
                    grows,
                    packed,
                };
            }
            Room::None => return Err(Refusal::NoRoom),
        }
        Ok(())
    }

    fn content(&mut self, bytes: usize, packed: bool) {
        let slow = Duration::from_secs((bytes / BYTES_PER_SECOND) as u64);
        self.deadline = self.deadline.map(|deadline| deadline + slow);
        if packed {
            self.state = State::Packed {
                left: bytes,
                packed: Vec::with_capacity(bytes),
            };
            return;
        }
        self.state = State::Content { left: bytes };
        self.ended_at(bytes);
    }

    /// All of a packed message is there.
    fn unpack(&mut self, packed: &[u8]) -> Result<(), Refusal> {
        let message = unpack(packed, self.takes.bytes)?;
        let mut prefix = vec![0];
        // It is no longer than what was sent as a length may be.
        prefix.extend((message.len() as u32).to_be_bytes());
        self.prefix = Some(prefix.into());
        self.unpacked = Some(message).filter(|message| !message.is_empty());
        self.ended_at(0);
        Ok(())
    }

    /// So much of the message is left.
    fn ended_at(&mut self, left: usize) {
        if left == 0 {
            self.state = BETWEEN;
            // Where there is one message, the body's end is to come as well.
            if self.takes.messages == Messages::Many {
                self.deadline = None;
            }
        }
    }

    /// What can be handed on of what has been received.
    fn next(&mut self) -> Result<Option<Bytes>, Refusal> {
        loop {
            // It comes alone: what the decoder has of a message is added to what it then takes for it.
            if !matches!(self.state, State::Room { .. })
                && let Some(prefix) = self.prefix.take()
            {
                return Ok(Some(prefix));
            }
            if let Some(message) = self.unpacked.take() {
                return Ok(Some(message));
            }
            if let (State::Length { .. }, Some(paid)) = (&self.state, &mut self.paid) {
                // What was unpacked is in the decoder now.
                paid.copies = None;
            }
            if let State::Packed { left: 0, packed } = &mut self.state {
                let packed = std::mem::take(packed);
                self.unpack(&packed)?;
                continue;
            }
            if self.rest.is_empty() {
                return Ok(None);
            }
            match &mut self.state {
                State::Packed { left, packed } => {
                    let part = self.rest.split_to(self.rest.len().min(*left));
                    packed.extend_from_slice(&part);
                    *left -= part.len();
                }
                State::Room { .. } => return Ok(None),
                State::Content { left } => {
                    let count = self.rest.len().min(*left);
                    *left -= count;
                    let left = *left;
                    self.ended_at(left);
                    return Ok(Some(self.rest.split_to(count)));
                }
                State::Length { read, prefix } => {
                    let count = self.rest.len().min(PREFIX_BYTES - *read);
                    let part = self.rest.split_to(count);
                    prefix[*read..*read + count].copy_from_slice(&part);
                    *read += count;
                    let whole = (*read == PREFIX_BYTES).then_some(*prefix);
                    self.deadline
                        .get_or_insert_with(|| Instant::now() + self.patience);
                    if let Some(prefix) = whole {
                        let prefix = match count {
                            PREFIX_BYTES => part,
                            _ => Bytes::copy_from_slice(&prefix),
                        };
                        self.begin(prefix)?;
                    }
                }
            }
        }
    }

    /// Nothing can be done until something comes, which has to be before the deadline.
    fn in_time(&mut self, cx: &mut Context<'_>) -> Result<(), Refusal> {
        let Some(deadline) = self.deadline else {
            return Ok(());
        };
        let alarm = (self.alarm).get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if alarm.deadline() != deadline {
            alarm.as_mut().reset(deadline);
        }
        if alarm.poll_unpin(cx).is_pending() {
            return Ok(());
        }
        Err(match self.state {
            State::Room { .. } => Refusal::NoRoom,
            State::Length { .. } | State::Content { .. } | State::Packed { .. } => {
                Refusal::TooSlow(self.patience)
            }
        })
    }
}

impl<B: Body<Data = Bytes, Error: Into<BoxError>> + Unpin> Receiving<B> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        loop {
            if let State::Room {
                waiting,
                bytes,
                grows,
                packed,
            } = &mut self.state
            {
                let (bytes, grows, packed) = (*bytes, *grows, *packed);
                let Poll::Ready(held) = waiting.poll_unpin(cx) else {
                    return match self.in_time(cx) {
                        Ok(()) => Poll::Pending,
                        Err(refusal) => self.refuse(refusal),
                    };
                };
                if let Some(paid) = &mut self.paid {
                    paid.take(held, grows);
                }
                // The client could send nothing meanwhile.
                self.deadline = Some(Instant::now() + self.patience);
                self.content(bytes, packed);
            }
            match self.next() {
                Ok(Some(data)) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                Ok(None) => {}
                Err(refusal) => return self.refuse(refusal),
            }
            if matches!(self.state, State::Room { .. }) {
                continue;
            }
            let Some(body) = &mut self.body else {
                return Poll::Ready(None);
            };
            let Poll::Ready(frame) = Pin::new(body).poll_frame(cx) else {
                return match self.in_time(cx) {
                    Ok(()) => Poll::Pending,
                    Err(refusal) => self.refuse(refusal),
                };
            };
            match frame {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.rest = data,
                    Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                },
                Some(Err(broken)) => {
                    self.body = None;
                    return Poll::Ready(Some(Err(broken.into())));
                }
                // tonic has seen nothing of a compressed message, and so would not miss it.
                None if matches!(self.state, State::Packed { .. }) => {
                    return self.refuse(Refusal::Unreadable);
                }
                None => self.body = None,
            }
        }
    }

    /// The call ends with this, and what still comes for it is thrown away.
    fn refuse(&mut self, refusal: Refusal) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.body = None;
        self.rest = Bytes::new();
        (self.prefix, self.unpacked) = (None, None);
        self.state = BETWEEN;
        self.metrics.bodies.refused(refusal.label());
        Poll::Ready(Some(Err(Box::new(refusal.status()))))
    }
}

impl<B: Body<Data = Bytes, Error: Into<BoxError>> + Unpin> Body for Upload<B> {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = ready!(self.lock().poll(cx));
        Poll::Ready(frame)
    }
}

#[cfg(test)]
mod tests;
