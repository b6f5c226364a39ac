//! An answer that another replica makes, read as it grows.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::Remote;
use super::lease::Read;
use super::piece::{Piece, Place};
use super::token::{Lease, Token};
use crate::answer::{CachedAnswer, CachedDelta};
use crate::codec::BrokenValue;
use crate::key::CacheKey;

/// Pauses between two looks at what another replica tells: the first while it does, the second when it has nothing to
/// tell. `XREAD BLOCK` would take a connection for each answer, since it stops all other commands on its own.
const POLL: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(50));
/// Pauses grow with the number of answers that are followed, so that all together look at most 5,000 times a second.
const POLL_SHARE: Duration = Duration::from_micros(200);
/// Leases without a sign of life after which it is not waited for any longer. Redis ends a lease in the time of one; one
/// that is there still was put back by somebody else.
const LEASES_OF_SILENCE: u32 = 2;

/// Reads an answer as another replica makes it.
pub struct Follower {
    remote: Arc<Remote>,
    key: CacheKey,
    token: Token,
    /// How far its lease was renewed, and when that, or a piece, was seen.
    beat: u64,
    alive: Instant,
    /// For how long it is trusted to be alive.
    patience: Duration,
    /// The last piece that was read, and how many were.
    after: Vec<u8>,
    pieces: u64,
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
    /// Nothing more will come: the other replica is gone. It is time to begin anew: the answer's beginning will be the same.
    Lost,
    /// The same, and Redis is at fault: it failed, or it holds what no replica told, and to ask it again would bring the
    /// same once more.
    Failed,
}

impl Follower {
    pub(super) fn new(remote: &Arc<Remote>, key: &CacheKey, holder: Lease) -> Self {
        remote.counters.leases_followed.add_one();
        Self {
            remote: Arc::clone(remote),
            key: *key,
            token: holder.token,
            beat: holder.beat,
            alive: Instant::now(),
            patience: LEASES_OF_SILENCE * holder.period,
            after: b"0".to_vec(),
            pieces: 0,
            deltas: Vec::new(),
            bytes: 0,
            end: None,
            pause: POLL.0,
            _counted: Counted::new(&remote.followed),
        }
    }

    /// Waits for more of the answer. Redis may take the configured timeout each time it is asked; the other replica may
    /// take its time, as long as it renews its lease. Dropping the future is safe.
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
                Ok(read) => {
                    self.remote.record(&self.key, true);
                    if let Some(told) = self.judge(read) {
                        return told;
                    }
                }
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

    /// What a look gave; `None`: nothing yet.
    fn judge(&mut self, read: Read) -> Option<Told> {
        let before = self.pieces;
        match self.take(read.pieces) {
            Ok(None) if read.too_large => return Some(self.refused(&self.too_large())),
            Ok(told) => {
                let beat = self.beat.max(read.beat.unwrap_or_default());
                if self.pieces > before || beat > self.beat {
                    (self.beat, self.alive) = (beat, Instant::now());
                }
                if told.is_some() {
                    return told;
                }
            }
            Err(err) => return Some(self.refused(&err)),
        }
        if read.beat.is_none() {
            return Some(self.lost());
        }
        if self.alive.elapsed() <= self.patience {
            return None;
        }
        // Who asks next need not wait for it, too.
        self.remote.release_soon(self.key, self.token);
        Some(self.refused(&BrokenValue::Mac))
    }

    /// What is there is not what a replica tells.
    fn refused(&self, err: &BrokenValue) -> Told {
        self.remote.broken(err);
        self.lost();
        Told::Failed
    }

    fn too_large(&self) -> BrokenValue {
        BrokenValue::TooLarge {
            limit: self.remote.limits.value_bytes,
        }
    }

    /// Takes what comes next of the answer; `None`: nothing did.
    fn take(&mut self, pieces: Vec<(Vec<u8>, Vec<u8>)>) -> Result<Option<Told>, BrokenValue> {
        let first = self.deltas.len();
        for (name, bytes) in pieces {
            let place = Place {
                mac: &self.remote.mac,
                key: &self.key,
                token: self.token,
                index: self.pieces,
            };
            let piece = Piece::decode(place, &bytes)?;
            for delta in piece.deltas {
                self.bytes += delta.text.len() + size_of::<CachedDelta>();
                self.deltas.push(delta);
            }
            if self.bytes > self.remote.limits.value_bytes {
                return Err(self.too_large());
            }
            self.pieces += 1;
            self.after = name;
            self.pause = POLL.0;
            self.end = piece.end;
            if self.end.is_some() {
                break;
            }
        }
        if first < self.deltas.len() {
            return Ok(Some(Told::Deltas(self.deltas[first..].to_vec())));
        }
        Ok(self.done())
    }

    fn done(&mut self) -> Option<Told> {
        let end = self.end.take()?;
        Some(Told::Done(Box::new(CachedAnswer {
            deltas: std::mem::take(&mut self.deltas),
            ..end
        })))
    }
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
