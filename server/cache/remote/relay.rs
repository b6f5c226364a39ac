//! An answer that one replica generates and others stream as it grows.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use redis::Pipeline;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use super::Remote;
use super::lease::{Begun, Token, add_piece, add_release};
use super::values::Found;
use crate::cache::answer::{CachedAnswer, CachedDelta};
use crate::cache::key::CacheKey;

/// Pauses between two looks at what another replica tells: the first while it does, the second when it has nothing to
/// tell. `XREAD BLOCK` would take a connection for each answer, since it stops all other commands on its own.
const POLL: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(50));
/// Pauses grow with the number of answers that are followed, so that all together look at most 5,000 times a second.
const POLL_SHARE: Duration = Duration::from_micros(200);
/// Of a checksum over a piece, its key and its teller.
const CHECKSUM_BYTES: usize = 16;

/// What is to be done about an answer that this replica does not have.
pub(in crate::cache) enum Turn {
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

/// A piece of what is told.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Piece {
    /// Deltas told before.
    from: usize,
    deltas: Vec<CachedDelta>,
    /// The answer without its deltas, once it is complete.
    end: Option<CachedAnswer>,
}

/// Reads an answer as another replica makes it.
pub struct Follower {
    remote: Arc<Remote>,
    key: CacheKey,
    token: Token,
    /// The last piece that was read.
    after: Vec<u8>,
    deltas: Vec<CachedDelta>,
    bytes: usize,
    /// The answer without its deltas, which were told.
    end: Option<CachedAnswer>,
    pause: Duration,
    _counted: Counted,
}

/// More of an answer that another replica makes.
#[derive(Debug, PartialEq, Eq)]
pub enum Told {
    /// Further deltas; one at least.
    Deltas(Vec<CachedDelta>),
    /// It is complete; all its deltas were told before.
    Done(Box<CachedAnswer>),
    /// Nothing more will come: the other replica is gone, or told what cannot be. It is time to begin anew: the answer's
    /// beginning will be the same.
    Lost,
    /// The same, and Redis is at fault: to ask it again would cost its time once more.
    Failed,
}

impl Remote {
    /// The answer of a key, or what to do about it. Takes the configured timeout at most, and nothing while Redis is left
    /// alone.
    pub(in crate::cache) async fn turn(self: &Arc<Self>, key: &CacheKey) -> Turn {
        let Some(lease) = self.limits.lease else {
            return match self.get(key).await {
                Some(found) => Turn::Found(found),
                None => Turn::Alone,
            };
        };
        if !self.admitted(key) {
            return Turn::Alone;
        }
        match self.begin(key, lease).await {
            Ok(begun) => {
                self.record(key, true);
                match begun {
                    Begun::Found(found) => Turn::Found(found),
                    Begun::Mine(token) => Turn::Lead(Leader::new(self, key, token, lease)),
                    Begun::Theirs(token) => Turn::Follow(Box::new(Follower::new(self, key, token))),
                }
            }
            Err(err) => {
                self.could_not_read(key, err);
                Turn::Alone
            }
        }
    }
}

impl Leader {
    fn new(remote: &Arc<Remote>, key: &CacheKey, token: Token, lease: Duration) -> Self {
        remote.counters.leases_led.add_one();
        let desk = Arc::new(Desk::default());
        let teller = Teller {
            remote: Arc::clone(remote),
            key: *key,
            token,
            lease,
            desk: Arc::clone(&desk),
            told: 0,
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
    pub(in crate::cache) fn finish(self, answer: Arc<CachedAnswer>) {
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
    token: Token,
    lease: Duration,
    desk: Arc<Desk>,
    told: usize,
}

impl Teller {
    async fn run(mut self) {
        loop {
            // Also without news the lease is renewed, well before it ends.
            let _ = timeout(self.lease / 3, self.desk.changed.notified()).await;
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
                return self.remote.release(&self.key, self.token).await;
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
        let told = self.remote.tell(&self.key, self.token, self.lease, &piece);
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
        add_piece(&mut commands, &self.key, self.token, self.lease, &piece);
        // The lease ends with the answer in its place.
        match self.remote.set(&self.key, answer) {
            Some(set) => {
                commands.add_command(set);
            }
            None => {
                self.remote.counters.dropped_puts.add_one();
                add_release(&mut commands, &self.key, self.token);
            }
        }
        self.remote.write(&self.key, &commands).await;
    }

    fn piece(&mut self, deltas: Vec<CachedDelta>, end: Option<CachedAnswer>) -> Vec<u8> {
        let count = deltas.len();
        let piece = Piece {
            from: self.told,
            deltas,
            end,
        };
        self.told += count;
        let text =
            serde_json::to_vec(&piece).expect("strings, integers and durations have a JSON form");
        let mut bytes = checksum(&self.key, self.token, &text).to_vec();
        bytes.extend_from_slice(&text);
        bytes
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

impl Follower {
    fn new(remote: &Arc<Remote>, key: &CacheKey, token: Token) -> Self {
        remote.counters.leases_followed.add_one();
        Self {
            remote: Arc::clone(remote),
            key: *key,
            token,
            after: b"0".to_vec(),
            deltas: Vec::new(),
            bytes: 0,
            end: None,
            pause: POLL.0,
            _counted: Counted::new(&remote.followed),
        }
    }

    /// Waits for more of the answer. Redis may take the configured timeout each time it is asked; the other replica may
    /// take its time, as long as it keeps its lease. Dropping the future is safe.
    pub async fn next(&mut self) -> Told {
        if let Some(done) = self.done() {
            return done;
        }
        loop {
            let left = self.remote.limits.value_bytes.saturating_sub(self.bytes);
            // A piece has its deltas as JSON, which can be longer than they are.
            let read = self
                .remote
                .read(&self.key, self.token, &self.after, 8 * left + 4096);
            match read.await {
                Ok(read) if !read.pieces.is_empty() => {
                    self.remote.record(&self.key, true);
                    self.pause = POLL.0;
                    return self.take(read.pieces).unwrap_or_else(|| {
                        self.remote.counters.broken_values.add_one();
                        self.lost()
                    });
                }
                Ok(read) if read.held && !read.too_large => self.remote.record(&self.key, true),
                Ok(_) => return self.lost(),
                Err(err) => {
                    self.remote.could_not_read(&self.key, err);
                    self.lost();
                    return Told::Failed;
                }
            }
            let others = self.remote.followed.load(Ordering::Relaxed) as u32;
            sleep(self.pause.max(POLL_SHARE * others)).await;
            self.pause = (self.pause * 3 / 2).min(POLL.1);
        }
    }

    fn lost(&self) -> Told {
        self.remote.counters.leases_taken_over.add_one();
        Told::Lost
    }

    /// `None`: what is there is not what a replica tells.
    fn take(&mut self, pieces: Vec<(Vec<u8>, Vec<u8>)>) -> Option<Told> {
        let first = self.deltas.len();
        for (name, bytes) in pieces {
            let piece = self.piece(&bytes).filter(|p| p.from == self.deltas.len())?;
            for delta in piece.deltas {
                self.bytes += delta.text.len() + size_of::<CachedDelta>();
                self.deltas.push(delta);
            }
            if self.bytes > self.remote.limits.value_bytes {
                return None;
            }
            self.after = name;
            self.end = piece.end;
            if self.end.is_some() {
                break;
            }
        }
        if first < self.deltas.len() {
            return Some(Told::Deltas(self.deltas[first..].to_vec()));
        }
        self.done()
    }

    fn done(&mut self) -> Option<Told> {
        let end = self.end.take()?;
        Some(Told::Done(Box::new(CachedAnswer {
            deltas: std::mem::take(&mut self.deltas),
            ..end
        })))
    }

    fn piece(&self, bytes: &[u8]) -> Option<Piece> {
        let (stated, text) = bytes.split_first_chunk::<CHECKSUM_BYTES>()?;
        if *stated != checksum(&self.key, self.token, text) {
            return None;
        }
        serde_json::from_slice(text).ok()
    }
}

/// Finds what storage breaks, and what belongs to another answer or to another teller.
fn checksum(key: &CacheKey, token: Token, text: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(key.as_bytes());
    hasher.update(token.to_string().as_bytes());
    hasher.update(text);
    let mut sum = [0; CHECKSUM_BYTES];
    hasher.finalize_xof().fill(&mut sum);
    sum
}

/// One more, until it is dropped.
struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn new(counter: &Arc<AtomicUsize>) -> Self {
        counter.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(counter))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
