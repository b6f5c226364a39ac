//! An answer that one replica generates and others stream as it grows: whose turn it is, and the one who generates it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use redis::Pipeline;
use tokio::sync::Notify;
use tokio::time::timeout;

use super::Remote;
use super::follow::Follower;
use super::lease::{Begun, add_piece, add_release};
use super::piece::{Piece, Place};
use super::token::Lease;
use super::values::Found;
use crate::answer::{CachedAnswer, CachedDelta};
use crate::key::CacheKey;

/// What is to be done about an answer that this replica does not have.
pub(crate) enum Turn {
    /// Nothing: it is in Redis.
    Found(Found),
    /// Make it, and tell the others.
    Lead(Leader),
    /// Read it as another replica makes it.
    Follow(Box<Follower>),
    /// Make it: Redis is of no help.
    Alone,
}

/// Makes an answer that other replicas may be waiting for. Dropped before [`finish`](Self::finish), it leaves the work to
/// one of them.
pub struct Leader {
    remote: Arc<Remote>,
    key: CacheKey,
    desk: Arc<Desk>,
}

/// Between the one who makes an answer and the task that tells Redis of it. Neither waits for the other.
#[derive(Default)]
struct Desk {
    state: Mutex<DeskState>,
    changed: Notify,
}

/// Holds at most as many bytes as an answer may have; an answer that grows beyond is not told.
#[derive(Default)]
struct DeskState {
    deltas: Vec<CachedDelta>,
    bytes: usize,
    end: Option<End>,
    /// Nobody tells any more: Redis failed, or somebody else has the lease.
    closed: bool,
}

enum End {
    Answer(Arc<CachedAnswer>),
    Abandoned,
}

impl Remote {
    /// The answer of a key, or what to do about it. Takes the configured timeout at most, and nothing while Redis is left
    /// alone.
    pub(crate) async fn turn(self: &Arc<Self>, key: &CacheKey) -> Turn {
        let Some(lease) = self.lease() else {
            return self.turn_without_lease(key).await;
        };
        if !self.admitted(key) {
            return Turn::Alone;
        }
        match self.begin(key, lease).await {
            Ok(begun) => {
                self.record(key, true);
                match begun {
                    Begun::Found(found) => Turn::Found(found),
                    Begun::Mine(lease) => Turn::Lead(Leader::new(self, key, lease)),
                    Begun::Theirs(holder) => {
                        Turn::Follow(Box::new(Follower::new(self, key, holder)))
                    }
                }
            }
            Err(err) if err.refuses_scripts() => {
                self.record(key, true);
                self.do_without_scripts(&err);
                self.turn_without_lease(key).await
            }
            Err(err) => {
                self.could_not_read(key, err);
                Turn::Alone
            }
        }
    }

    async fn turn_without_lease(self: &Arc<Self>, key: &CacheKey) -> Turn {
        match self.get(key).await {
            Some(found) => Turn::Found(found),
            None => Turn::Alone,
        }
    }
}

impl Leader {
    fn new(remote: &Arc<Remote>, key: &CacheKey, held: Lease) -> Self {
        remote.counters.leases_led.add_one();
        let desk = Arc::new(Desk::default());
        let teller = Teller {
            remote: Arc::clone(remote),
            key: *key,
            held,
            desk: Arc::clone(&desk),
            pieces: 0,
        };
        tokio::spawn(teller.run());
        Self {
            remote: Arc::clone(remote),
            key: *key,
            desk,
        }
    }

    /// Tells the others of more of the answer. Never waits.
    pub fn tell(&self, delta: &CachedDelta) {
        let mut desk = self.desk.lock();
        if desk.closed || desk.end.is_some() {
            return;
        }
        desk.bytes += delta.text.len() + size_of::<CachedDelta>();
        if desk.bytes > self.remote.limits.value_bytes {
            desk.end = Some(End::Abandoned);
        } else {
            desk.deltas.push(delta.clone());
        }
        self.desk.changed.notify_one();
    }

    /// Stores the complete answer in Redis, and gives the lease up. Never waits.
    pub(crate) fn finish(self, answer: Arc<CachedAnswer>) {
        let mut desk = self.desk.lock();
        if desk.closed || desk.end.is_some() {
            drop(desk);
            self.remote.put(self.key, answer);
        } else {
            desk.end = Some(End::Answer(answer));
        }
        // Dropping it wakes the teller.
    }
}

impl Drop for Leader {
    fn drop(&mut self) {
        self.desk.lock().end.get_or_insert(End::Abandoned);
        self.desk.changed.notify_one();
    }
}

impl Desk {
    fn lock(&self) -> MutexGuard<'_, DeskState> {
        // Every change under the lock is whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The task that tells.
struct Teller {
    remote: Arc<Remote>,
    key: CacheKey,
    held: Lease,
    desk: Arc<Desk>,
    /// Told so far.
    pieces: u64,
}

impl Teller {
    async fn run(mut self) {
        loop {
            // Also without news the lease is renewed, well before it ends.
            let _ = timeout(self.held.period / 3, self.desk.changed.notified()).await;
            let (deltas, end) = {
                let mut desk = self.desk.lock();
                (std::mem::take(&mut desk.deltas), desk.end.take())
            };
            let goes_on = match end {
                None => self.tell(deltas).await,
                Some(End::Answer(answer)) => {
                    self.close();
                    return self.finish(deltas, &answer).await;
                }
                Some(End::Abandoned) => false,
            };
            if !goes_on {
                self.close();
                // Those who wait need not wait for its time to run out.
                return self.remote.release(&self.key, self.held.token).await;
            }
        }
    }

    /// False: nobody listens, or can.
    async fn tell(&mut self, deltas: Vec<CachedDelta>) -> bool {
        let piece = if deltas.is_empty() {
            Vec::new()
        } else {
            self.piece(deltas, None)
        };
        self.held.beat += 1;
        let told = self.remote.tell(&self.key, self.held, &piece);
        match told.await {
            Ok(held) => {
                if !held {
                    self.remote.counters.leases_lost.add_one();
                }
                held
            }
            Err(err) => {
                self.remote.counters.leases_lost.add_one();
                self.remote.could_not_write(&self.key, err);
                false
            }
        }
    }

    async fn finish(mut self, deltas: Vec<CachedDelta>, answer: &CachedAnswer) {
        let end = CachedAnswer {
            deltas: Vec::new(),
            ..answer.clone()
        };
        let piece = self.piece(deltas, Some(end));
        let mut commands = Pipeline::new();
        add_piece(&mut commands, &self.key, self.held, &piece);
        // The lease ends with the answer in its place.
        match self.remote.set(&self.key, answer) {
            Some(set) => {
                commands.add_command(set);
            }
            None => {
                self.remote.counters.dropped_puts.add_one();
                add_release(&mut commands, &self.key, self.held.token);
            }
        }
        self.remote.write(&self.key, &commands).await;
    }

    fn piece(&mut self, deltas: Vec<CachedDelta>, end: Option<CachedAnswer>) -> Vec<u8> {
        let place = Place {
            mac: &self.remote.mac,
            key: &self.key,
            token: self.held.token,
            index: self.pieces,
        };
        self.pieces += 1;
        Piece { deltas, end }.encode(place)
    }

    fn close(&self) {
        let mut desk = self.desk.lock();
        desk.closed = true;
        desk.deltas = Vec::new();
        // What came in the meantime is not told, but it must be stored.
        if let Some(End::Answer(answer)) = desk.end.take() {
            self.remote.put(self.key, answer);
        }
    }
}
