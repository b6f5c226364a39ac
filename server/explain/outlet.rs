//! The bounded way from the items of a stream to its client, over one connection after another.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

use crate::access::Grant;
use crate::error::Error;
use crate::explain::channel::{EventSender, Place};
use crate::explain::turns::{Turn, Turns};
use crate::explain::{CancelReason, ItemEvent, Presence};

/// Where the events of a stream's items go. Clones lead to the same client.
///
/// It holds a fixed number of events, and of their bytes. At the bound an item waits for room while its answer grows in its log, and then
/// sends all that came meanwhile as one delta: nothing queues here for a slow reader, and nobody else waits.
///
/// ## Attached => (Attached | Detached | Closed), Detached => (Attached | Closed)
/// Who finds no room for as long as the outlet is patient is shed; when not even that can be told for as long again, the
/// client is given up, which closes the outlet and ends everything on the stream. A stream that can be resumed is
/// detached when its connection is lost, and its items wait for the next one.
#[derive(Debug, Clone)]
pub struct Outlet {
    line: Arc<Line>,
    /// In whose turn events go out; `None`: as they come.
    turn: Option<Arc<Turn>>,
}

#[derive(Debug)]
struct Line {
    patience: Duration,
    link: watch::Sender<Link>,
    /// A connection that is lost may be followed by another one.
    resumable: AtomicBool,
    turns: std::sync::OnceLock<Arc<Turns>>,
}

#[derive(Debug, Clone)]
struct Link {
    /// Counts connections.
    generation: u64,
    state: State,
}

#[derive(Debug, Clone)]
enum State {
    Attached(Client),
    Detached(Left),
    Closed(CancelReason),
}

/// The last client of a stream that waits for the next one.
#[derive(Debug, Clone)]
struct Left {
    reason: CancelReason,
    /// What had let it in.
    grant: Option<Grant>,
    /// All had been said.
    over: bool,
}

/// Who reads events: its end of their channel, and what is known of it.
#[derive(Debug, Clone)]
pub struct Client {
    /// To the client.
    pub events: EventSender,
    /// How it left, once it has.
    pub presence: Arc<Presence>,
    /// What let it in, where that can be withdrawn.
    pub grant: Option<Grant>,
}

/// Room for one event; given back when it is dropped.
#[derive(Debug)]
pub struct Room {
    place: Place,
    /// There was none at first: the client reads more slowly than its items speak.
    pub waited: bool,
    /// The connection that it is on.
    pub generation: u64,
}

impl Outlet {
    /// An outlet to this client. Whoever has no room for `patience` is shed.
    pub fn on(client: Client, patience: Duration) -> Self {
        let link = Link {
            generation: 0,
            state: State::Attached(client),
        };
        let line = Line {
            patience,
            link: watch::channel(link).0,
            resumable: AtomicBool::new(false),
            turns: std::sync::OnceLock::new(),
        };
        Self {
            line: Arc::new(line),
            turn: None,
        }
    }

    /// Room for an event, if there is some now.
    pub fn try_room(&self) -> Option<Room> {
        if self.turn.as_ref().is_some_and(|turn| !turn.has_come()) {
            return None;
        }
        let link = self.line.link.borrow().clone();
        let State::Attached(client) = link.state else {
            return None;
        };
        let place = client.events.try_reserve()?;
        Some(Room {
            place,
            waited: false,
            generation: link.generation,
        })
    }

    /// Waits for room, first for the item's turn. Safe to drop.
    ///
    /// # Errors
    /// [`Error::SlowReader`] when there is none for too long, [`Error::Cancelled`] when the client is gone.
    pub async fn room(&self) -> Result<Room, Error> {
        if let Some(room) = self.try_room() {
            return Ok(room);
        }
        let mut links = self.line.link.subscribe();
        loop {
            if let Some(turn) = &self.turn {
                turn.come().await;
            }
            let Link { generation, state } = links.borrow_and_update().clone();
            let events = match state {
                State::Closed(reason) => return Err(Error::Cancelled(reason)),
                State::Attached(client) if !client.events.is_closed() => client.events,
                State::Attached(client) if !self.is_resumable() => {
                    return Err(Error::Cancelled(client.left()));
                }
                State::Attached(_) | State::Detached(..) => {
                    // The line has the sender: there is always a next link to wait for.
                    let _ = links.changed().await;
                    continue;
                }
            };
            tokio::select! {
                biased;
                _ = links.changed() => {}
                place = timeout(self.line.patience, events.reserve()) => match place {
                    // On a new connection, those that were before it may have more to say.
                    Ok(Some(_)) if self.turn.as_ref().is_some_and(|turn| !turn.has_come()) => {}
                    Ok(Some(place)) => return Ok(Room { place, waited: true, generation }),
                    // Its receiver is gone; the next turn of the loop sees that.
                    Ok(None) => {}
                    Err(_) => return Err(Error::SlowReader { waited: self.line.patience }),
                },
            }
        }
    }

    /// Room for an item's last event; where there is none for too long, the client is given up. `None`: nobody is left
    /// to tell.
    pub async fn last_room(&self) -> Option<Room> {
        let room = self.room().await;
        if let Err(Error::SlowReader { .. }) = room {
            self.close(CancelReason::SlowReader);
        }
        room.ok()
    }

    /// Waits until nobody reads any more and nobody will, or the client that does, or did last, may do so no more. Tells
    /// why.
    pub async fn closed(&self) -> CancelReason {
        let mut links = self.line.link.subscribe();
        loop {
            let Link { state, .. } = links.borrow_and_update().clone();
            let (grant, client) = match state {
                State::Closed(reason) => return reason,
                State::Detached(left) => (left.grant, None),
                State::Attached(client) => (client.grant.clone(), Some(client)),
            };
            tokio::select! {
                biased;
                _ = links.changed() => continue,
                () = withdrawn(grant.as_ref()) => return CancelReason::Withdrawn,
                () = gone(client.as_ref()) => {}
            }
            if let Some(client) = client.filter(|_| !self.is_resumable()) {
                return client.left();
            }
            tokio::select! {
                biased;
                _ = links.changed() => {}
                () = withdrawn(grant.as_ref()) => return CancelReason::Withdrawn,
            }
        }
    }

    /// Waits until a connection is lost: its client reads no more, or has come back on another one.
    pub async fn lost(&self, generation: u64) {
        let mut links = self.line.link.subscribe();
        let link = links.borrow_and_update().clone();
        match link.state {
            State::Attached(client) if link.generation == generation => {
                tokio::select! {
                    _ = links.changed() => {}
                    () = client.events.closed() => {}
                }
            }
            _ => {}
        }
    }

    /// Waits for the connection after this one, or the end.
    pub async fn followed(&self, generation: u64) {
        let mut links = self.line.link.subscribe();
        let followed =
            |link: &Link| link.generation != generation || matches!(link.state, State::Closed(_));
        // The line has the sender.
        let _ = links.wait_for(followed).await;
    }

    /// The connection that it is on, or was.
    pub fn generation(&self) -> u64 {
        self.line.link.borrow().generation
    }

    /// The next connection, in place of any other, and what is told there before anything else. Gives its number; `None`
    /// where the outlet is closed.
    pub fn attach(&self, client: Client, first: ItemEvent) -> Option<u64> {
        let mut attached = None;
        self.line.link.send_modify(|link| {
            if !matches!(link.state, State::Closed(_)) {
                link.generation += 1;
                // The connection is new: there is room.
                if let Some(place) = client.events.try_reserve() {
                    place.send(first);
                }
                link.state = State::Attached(client);
                attached = Some(link.generation);
            }
        });
        attached
    }

    /// Items wait for the next connection, unless there is one already, or none can come. Where all is said and the stream is
    /// `over`, what its client may not have read waits.
    pub fn detach(&self, generation: u64, over: bool) {
        self.line.link.send_if_modified(|link| {
            if let State::Attached(client) = &link.state
                && link.generation == generation
            {
                if !self.is_resumable() {
                    return link.close(None);
                }
                link.state = State::Detached(Left {
                    reason: client.left(),
                    grant: client.grant.clone(),
                    over,
                });
                return true;
            }
            false
        });
    }

    /// Nobody will read any more, unless there is a later connection already.
    pub fn close_after(&self, generation: u64) {
        self.line
            .link
            .send_if_modified(|link| link.generation == generation && link.close(None));
    }

    /// Nobody will read any more, for this reason.
    pub fn close(&self, reason: CancelReason) {
        self.line
            .link
            .send_if_modified(|link| link.close(Some(reason)));
    }

    /// Its items outlive a lost connection, until it is closed.
    pub fn make_resumable(&self) {
        self.line.resumable.store(true, Ordering::Release);
    }

    /// A lost connection is followed by no other from now on. If it is lost already, nobody will read any more, for this
    /// reason.
    pub fn make_unresumable(&self, reason: CancelReason) {
        self.line.resumable.store(false, Ordering::Release);
        self.line
            .link
            .send_if_modified(|link| link.is_detached() && link.close(Some(reason)));
    }

    /// Whether its connection is lost, and it waits for the next one.
    pub fn is_detached(&self) -> bool {
        self.line.link.borrow().is_detached()
    }

    /// Whether it waits for the next connection with all said.
    pub fn is_over(&self) -> bool {
        matches!(&self.line.link.borrow().state, State::Detached(left) if left.over)
    }

    /// Items speak one after the other, in the order of their [`lane`](Self::lane)s.
    pub fn make_in_order(&self) {
        self.line.turns.get_or_init(Arc::default);
    }

    /// The way of the next item.
    pub fn lane(&self) -> Self {
        Self {
            line: self.line.clone(),
            turn: self.line.turns.get().map(|turns| Arc::new(turns.next())),
        }
    }

    /// The way of an item that has had its turn, and has to say again what was lost: before all that are there.
    pub fn lane_before_all(&self) -> Self {
        let turns = self.line.turns.get();
        Self {
            line: self.line.clone(),
            turn: turns.map(|turns| Arc::new(turns.before_all())),
        }
    }

    /// Whether the client did not read for so long that its stream ends.
    pub fn given_up(&self) -> bool {
        let link = self.line.link.borrow();
        matches!(link.state, State::Closed(CancelReason::SlowReader))
    }

    fn is_resumable(&self) -> bool {
        self.line.resumable.load(Ordering::Acquire)
    }
}

impl Client {
    /// Why it reads no more.
    fn left(&self) -> CancelReason {
        match &self.grant {
            Some(grant) if grant.is_withdrawn() => CancelReason::Withdrawn,
            _ => self.presence.left(),
        }
    }
}

impl Link {
    fn is_detached(&self) -> bool {
        matches!(self.state, State::Detached(..))
    }

    /// Nobody comes after its client. Without a reason, for how that left. Gives whether it was not closed before.
    fn close(&mut self, reason: Option<CancelReason>) -> bool {
        let left = match &self.state {
            State::Closed(_) => return false,
            State::Detached(left) => left.reason,
            State::Attached(client) => client.left(),
        };
        self.state = State::Closed(reason.unwrap_or(left));
        true
    }
}

/// Waits until the client reads no more; for ever, where there is none. Safe to drop.
async fn gone(client: Option<&Client>) {
    match client {
        Some(client) => client.events.closed().await,
        None => std::future::pending().await,
    }
}

/// Waits for that; for ever, where nothing can be withdrawn. Safe to drop.
async fn withdrawn(grant: Option<&Grant>) {
    match grant {
        Some(grant) => grant.withdrawn().await,
        None => std::future::pending().await,
    }
}

impl Room {
    /// Sends an event.
    pub fn send(self, event: ItemEvent) {
        self.place.send(event);
    }
}
