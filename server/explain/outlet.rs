//! The bounded way from the items of a stream to its client.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::error::Error;
use crate::explain::{CancelReason, ItemEvent};

/// Where the events of a stream's items go. Clones lead to the same client.
///
/// It holds a fixed number of events. At the bound an item waits for room while its answer grows in its log, and then
/// sends all that came meanwhile as one delta: nothing queues here for a slow reader, and nobody else waits.
///
/// ## Open => (Open | GivenUp | closed), GivenUp => closed
/// Who finds no room for as long as the outlet is patient is shed; when not even that can be told for as long again, the
/// client is given up, which ends everything on the stream.
#[derive(Debug, Clone)]
pub struct Outlet {
    events: mpsc::Sender<ItemEvent>,
    patience: Duration,
    given_up: CancellationToken,
}

/// Room for one event; given back when it is dropped.
#[derive(Debug)]
pub struct Room<'a> {
    permit: mpsc::Permit<'a, ItemEvent>,
    /// There was none at first: the client reads more slowly than its items speak.
    pub waited: bool,
}

impl Outlet {
    /// An outlet for this many events, and its client's end. Whoever has no room for `patience` is shed.
    pub fn new(events: usize, patience: Duration) -> (Self, mpsc::Receiver<ItemEvent>) {
        let (events, receiver) = mpsc::channel(events);
        let outlet = Self {
            events,
            patience,
            given_up: CancellationToken::new(),
        };
        (outlet, receiver)
    }

    /// Room for an event, if there is some now.
    pub fn try_room(&self) -> Option<Room<'_>> {
        let permit = self.events.try_reserve().ok()?;
        Some(Room {
            permit,
            waited: false,
        })
    }

    /// Waits for room. Safe to drop.
    ///
    /// # Errors
    /// [`Error::SlowReader`] when there is none for too long, [`Error::Cancelled`] when the client is gone.
    pub async fn room(&self) -> Result<Room<'_>, Error> {
        if let Some(room) = self.try_room() {
            return Ok(room);
        }
        let gone = Error::Cancelled(CancelReason::ClientGone);
        tokio::select! {
            biased;
            () = self.given_up.cancelled() => Err(gone),
            permit = timeout(self.patience, self.events.reserve()) => match permit {
                Ok(Ok(permit)) => Ok(Room { permit, waited: true }),
                Ok(Err(_)) => Err(gone),
                Err(_) => Err(Error::SlowReader { waited: self.patience }),
            },
        }
    }

    /// Room for an item's last event; where there is none for too long, the client is given up. `None`: nobody is left
    /// to tell.
    pub async fn last_room(&self) -> Option<Room<'_>> {
        let room = self.room().await;
        if let Err(Error::SlowReader { .. }) = room {
            self.given_up.cancel();
        }
        room.ok()
    }

    /// Waits until nobody reads any more, or the client has been given up.
    pub async fn closed(&self) {
        tokio::select! {
            () = self.events.closed() => {}
            () = self.given_up.cancelled() => {}
        }
    }

    /// Whether the client did not read for so long that its stream ends.
    pub fn given_up(&self) -> bool {
        self.given_up.is_cancelled()
    }
}

impl Room<'_> {
    /// Sends an event.
    pub fn send(self, event: ItemEvent) {
        self.permit.send(event);
    }
}
