//! What a stream remembers of an item: how far it is, and, on a stream that can be resumed, what was sent of it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::error::Error;
use crate::explain::reader::Reader;
use crate::explain::{Accepted, EventKind, ItemEvent, Outlet};

/// What a stream remembers of an item.
#[derive(Debug, Default)]
pub struct Record {
    started: AtomicBool,
    /// What was sent, where it is kept so that it can be sent again.
    sent: Option<Box<Mutex<Sent>>>,
}

/// What a client has of an item, by its own account.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Has {
    /// The event `accepted`.
    pub accepted: bool,
    /// This many deltas.
    pub deltas: usize,
}

#[derive(Debug, Default)]
struct Sent {
    accepted: Option<Accepted>,
    /// For each delta that was sent, the deltas of the log that it and those before it hold.
    marks: Vec<usize>,
    /// Where to go on on a new connection, until the item has seen it.
    has: Option<Has>,
    last: Option<Last>,
}

/// An item that has ended.
#[derive(Debug)]
struct Last {
    /// Of an answer, complete or as far as it came.
    reader: Option<Reader>,
    kind: EventKind,
}

/// What is told of an item that has ended, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Accepted,
    /// What is left of its text, in one piece.
    Text,
    Last,
}

impl Record {
    /// Of an item that has done nothing yet. With `keeps` it remembers what was sent.
    pub fn new(keeps: bool) -> Self {
        Self {
            started: AtomicBool::new(false),
            sent: keeps.then(Box::default),
        }
    }

    /// An engine works on it, or it had no need of one.
    pub fn is_started(&self) -> bool {
        self.started.load(Ordering::Acquire)
    }

    pub(super) fn started(&self) {
        self.started.store(true, Ordering::Release);
    }

    pub(super) fn accepted(&self, accepted: &Accepted) {
        if let Some(mut sent) = self.lock() {
            sent.accepted = Some(accepted.clone());
        }
    }

    /// A delta was sent: with those before it, this many of the log.
    pub(super) fn delta(&self, read: usize) {
        if let Some(mut sent) = self.lock() {
            sent.marks.push(read);
        }
    }

    /// Its last event is all that is left to send: it is nobody's to hand back any more. `reader` is asked where the
    /// answer is kept.
    pub(super) fn ended(&self, reader: impl FnOnce() -> Option<Reader>, kind: &EventKind) {
        self.started();
        if self.sent.is_some() {
            let last = Last {
                reader: reader(),
                kind: kind.clone(),
            };
            if let Some(mut sent) = self.lock() {
                sent.last = Some(last);
            }
        }
    }

    /// Goes on behind what the client has, on its new connection.
    pub fn go_on_from(&self, has: Has) {
        if let Some(mut sent) = self.lock() {
            sent.has = Some(has);
        }
    }

    /// On a new connection: where to go on. Gives what the client has, and the deltas of the log that this is.
    pub(super) fn rewind(&self) -> Option<(Has, usize)> {
        let mut sent = self.lock()?;
        let mut has = sent.has.take()?;
        has.deltas = has.deltas.min(sent.marks.len());
        sent.marks.truncate(has.deltas);
        Some((has, sent.marks.last().copied().unwrap_or(0)))
    }

    /// Bytes that are kept of an item that has ended, about.
    pub fn kept_bytes(&self) -> usize {
        // The record, its entries under its id, its last event, and the log that its answer is in.
        const BASE: usize = 2048;
        let Some(sent) = self.lock() else {
            return BASE;
        };
        let text = sent.last.as_ref().map_or(0, |last| {
            let full = match &last.kind {
                EventKind::Done(done) => done.full_text.as_ref().map_or(0, String::len),
                _ => 0,
            };
            full + last.reader.as_ref().map_or(0, Reader::bytes)
        });
        let prompt = sent.accepted.as_ref().and_then(|a| a.prompt.as_ref());
        BASE + text + prompt.map_or(0, String::len) + sent.marks.len() * size_of::<usize>()
    }

    /// Sends the rest of an item that has ended, as long as the connection is this one. Each event is made when there is
    /// room for it.
    pub async fn send_rest(self: Arc<Self>, id: Arc<str>, out: Outlet, generation: u64) {
        let (has, read) = self.rewind().unwrap_or_default();
        for part in [Part::Accepted, Part::Text, Part::Last] {
            if !self.has_more(part, has, read) {
                continue;
            }
            let (room, shed) = match out.room().await {
                Ok(room) => (room, None),
                // Shed like one that has not ended yet, so that its client does not wait for it.
                Err(error @ Error::SlowReader { .. }) => match out.last_room().await {
                    Some(room) => (room, Some(EventKind::Failed(error))),
                    None => return,
                },
                Err(_) => return,
            };
            if room.generation != generation {
                return;
            }
            let ends = shed.is_some();
            let Some(kind) = shed.or_else(|| self.again(part, has, read)) else {
                return;
            };
            room.send(ItemEvent {
                id: id.clone(),
                kind,
            });
            if ends {
                return;
            }
        }
    }

    /// Whether a client that has this, and has read so many deltas of the log, misses this part.
    fn has_more(&self, part: Part, has: Has, read: usize) -> bool {
        let Some(sent) = self.lock() else {
            return false;
        };
        let answer = sent.last.as_ref().and_then(|last| last.reader.as_ref());
        // What failed before it was accepted has its last event alone.
        let answer = answer.filter(|_| sent.accepted.is_some());
        match part {
            Part::Accepted => answer.is_some() && !has.accepted,
            Part::Text => answer.is_some_and(|reader| reader.look(|log| log.deltas()) > read),
            Part::Last => sent.last.is_some(),
        }
    }

    /// Makes a part of it again.
    fn again(&self, part: Part, has: Has, read: usize) -> Option<EventKind> {
        let mut sent = self.lock()?;
        match part {
            Part::Accepted => sent.accepted.clone().map(EventKind::Accepted),
            Part::Text => {
                let reader = sent.last.as_ref()?.reader.as_ref()?;
                let (text, all) = (reader.rest(read), reader.look(|log| log.deltas()));
                sent.marks.push(all);
                let sequence = has.deltas as u64;
                Some(EventKind::Delta { text, sequence })
            }
            Part::Last => sent.last.as_ref().map(|last| last.kind.clone()),
        }
    }

    /// What was sent, if it is kept.
    fn lock(&self) -> Option<MutexGuard<'_, Sent>> {
        let sent = self.sent.as_ref()?;
        // Each operation leaves it whole.
        Some(sent.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
