//! Level 2: answers in a Redis that all replicas share. Whatever Redis does, nothing here fails: an answer is there or
//! it is not.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use redis::{Pipeline, RedisError, Value};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::answer::CachedAnswer;
use super::breaker::{Admission, Breaker, Change};
use super::codec::BrokenValue;
use super::key::CacheKey;
use super::link::Link;
use super::stats::Counters;
use super::warnings::Warnings;

/// Written before every key; the version is that of the values' format.
const KEY_PREFIX: &str = "code-explainer:v1:";
/// Writes under way at most; more are dropped. With the bound on an answer's size it bounds the memory that a slow
/// Redis can tie up.
const WRITES: usize = 64;

/// How to use Redis.
#[derive(Debug, Clone, Copy)]
pub(super) struct RemoteLimits {
    pub(super) timeout: Duration,
    pub(super) cooldown: Duration,
    pub(super) time_to_live: Duration,
    pub(super) value_bytes: usize,
}

/// Answers in Redis.
pub(super) struct Remote {
    link: Link,
    limits: RemoteLimits,
    breaker: Mutex<Breaker>,
    writes: Arc<Semaphore>,
    warnings: Warnings,
    counters: Arc<Counters>,
}

/// An answer that Redis had.
pub(super) struct Found {
    pub(super) answer: Arc<CachedAnswer>,
    /// For how long it may be kept still; `None`: it has just expired.
    pub(super) time_to_live: Option<Duration>,
}

/// Why Redis gave nothing that can be used.
#[derive(Debug, thiserror::Error)]
enum Failure {
    /// The connection failed, or the server replied with an error.
    #[error(transparent)]
    Redis(#[from] RedisError),
    /// The server did not reply in time.
    #[error("no reply within {0:?}")]
    Timeout(Duration),
    /// The reply is not of the form that the command has.
    #[error("unexpected reply")]
    Protocol,
    /// The server works, but what it holds cannot be used.
    #[error(transparent)]
    Broken(#[from] BrokenValue),
}

impl Remote {
    /// Connects to nothing yet.
    ///
    /// # Errors
    /// The URL is not one of Redis.
    pub(super) fn new(
        url: &str,
        limits: RemoteLimits,
        counters: Arc<Counters>,
    ) -> Result<Self, RedisError> {
        Ok(Self {
            link: Link::new(url)?,
            limits,
            breaker: Mutex::new(Breaker::new(limits.cooldown)),
            writes: Arc::new(Semaphore::new(WRITES)),
            warnings: Warnings::default(),
            counters,
        })
    }

    /// The answer of a key. Takes the configured timeout at most, and nothing while Redis is left alone.
    pub(super) async fn get(self: &Arc<Self>, key: &CacheKey) -> Option<Found> {
        if !self.admitted() {
            return None;
        }
        match self.fetch(key).await {
            Ok(found) => {
                self.record(true);
                found
            }
            Err(Failure::Broken(err)) => {
                self.record(true);
                self.counters.broken_values.add_one();
                self.warnings
                    .warn(Instant::now(), &self.link, "dropped a broken value", &err);
                None
            }
            Err(err) => {
                self.counters.redis_errors.add_one();
                self.warnings
                    .warn(Instant::now(), &self.link, "could not read", &err);
                self.record(false);
                None
            }
        }
    }

    /// Stores an answer in the background, or drops it: see [`WRITES`].
    pub(super) fn put(self: &Arc<Self>, key: CacheKey, answer: Arc<CachedAnswer>) {
        // Without a runtime there is nothing that could do the writing.
        let Ok(runtime) = Handle::try_current() else {
            return self.counters.dropped_puts.add_one();
        };
        let _guard = runtime.enter();
        let permit = match Arc::clone(&self.writes).try_acquire_owned() {
            Ok(permit) if self.admitted() => permit,
            _ => return self.counters.dropped_puts.add_one(),
        };
        let this = Arc::clone(self);
        runtime.spawn(async move {
            this.store(&key, &answer).await;
            drop(permit);
        });
    }

    /// Whether Redis is asked, rather than left alone after failures.
    pub(super) fn is_available(&self) -> bool {
        self.breaker().is_closed()
    }

    async fn fetch(&self, key: &CacheKey) -> Result<Option<Found>, Failure> {
        let name = redis_key(key);
        let limit = self.limits.value_bytes;
        let mut commands = Pipeline::new();
        // GETRANGE instead of GET: one byte more than the limit tells that a value is too large, and nobody can make
        // this server read a value of 512 MB. A missing key reads as empty.
        commands
            .cmd("GETRANGE")
            .arg(&name)
            .arg(0)
            .arg(limit)
            .cmd("PTTL")
            .arg(&name);
        let (value, remaining) = match <[Value; 2]>::try_from(self.send(&commands).await?) {
            Ok([Value::BulkString(value), Value::Int(remaining)]) => (value, remaining),
            Ok([Value::ServerError(err), _]) if err.code() == "WRONGTYPE" => {
                return Err(BrokenValue::Type.into());
            }
            Ok([Value::ServerError(err), _] | [_, Value::ServerError(err)]) => {
                return Err(RedisError::from(err).into());
            }
            _ => return Err(Failure::Protocol),
        };
        if value.is_empty() {
            return Ok(None);
        }
        if value.len() > limit {
            return Err(BrokenValue::TooLarge { limit }.into());
        }
        let answer = Arc::new(CachedAnswer::decode(key, &value)?);
        // Redis says -1 for a value that never expires, -2 for one that did so since it was read.
        let time_to_live = match u64::try_from(remaining) {
            Ok(0) => None,
            Ok(ms) => Some(Duration::from_millis(ms).min(self.limits.time_to_live)),
            Err(_) if remaining == -1 => Some(self.limits.time_to_live),
            Err(_) => None,
        };
        Ok(Some(Found {
            answer,
            time_to_live,
        }))
    }

    async fn store(self: &Arc<Self>, key: &CacheKey, answer: &CachedAnswer) {
        let value = answer.encode(key);
        if value.len() > self.limits.value_bytes {
            return self.counters.dropped_puts.add_one();
        }
        let ttl = u64::try_from(self.limits.time_to_live.as_millis()).unwrap_or(u64::MAX);
        let mut commands = Pipeline::new();
        commands
            .cmd("SET")
            .arg(redis_key(key))
            .arg(value)
            .arg("PX")
            .arg(ttl.max(1));
        let refused = match self.send(&commands).await {
            Ok(replies) => replies.into_iter().find_map(|reply| match reply {
                Value::ServerError(err) => Some(Failure::Redis(err.into())),
                _ => None,
            }),
            Err(err) => {
                self.record(false);
                Some(err)
            }
        };
        // A reply in time, even "out of memory" or "read only", says nothing against reading: it is counted and
        // logged, but the breaker hears only of servers that cannot be reached.
        if let Some(err) = refused {
            self.counters.redis_errors.add_one();
            self.warnings
                .warn(Instant::now(), &self.link, "could not write", &err);
        }
    }

    async fn send(&self, commands: &Pipeline) -> Result<Vec<Value>, Failure> {
        let limit = self.limits.timeout;
        let replies = timeout(limit, self.link.send(commands)).await;
        Ok(replies.map_err(|_| Failure::Timeout(limit))??)
    }

    /// Asks the breaker, and starts the probe that it may want. Nobody waits for a probe.
    fn admitted(self: &Arc<Self>) -> bool {
        let admission = self.breaker().admit(Instant::now());
        if admission == Admission::Probe {
            let this = Arc::clone(self);
            tokio::spawn(async move { this.probe().await });
        }
        admission == Admission::Go
    }

    /// Makes a new connection and sees whether the server answers on it as fast as a look-up needs.
    async fn probe(&self) {
        let mut ping = Pipeline::new();
        ping.cmd("PING");
        let alive = async {
            self.link.connect().await?;
            match self.send(&ping).await?.pop() {
                Some(Value::ServerError(err)) => Err(RedisError::from(err).into()),
                Some(_) => Ok(()),
                None => Err(Failure::Protocol),
            }
        };
        let outcome: Result<(), Failure> = alive.await;
        let change = self.breaker().record_probe(outcome.is_ok(), Instant::now());
        match outcome {
            Ok(()) if change == Change::Closed => {
                tracing::info!(redis = %self.link, "redis is back: asking it again");
            }
            Ok(()) => {}
            Err(err) => {
                self.link.reset();
                tracing::debug!(redis = %self.link, error = %err, "redis is still failing");
            }
        }
    }

    fn record(&self, succeeded: bool) {
        if self.breaker().record(succeeded, Instant::now()) == Change::Opened {
            // The peer may have vanished without closing: the probe must not trust this connection.
            self.link.reset();
            tracing::warn!(
                redis = %self.link,
                cooldown = ?self.limits.cooldown,
                "redis keeps failing: doing without it, probing after the cool-down"
            );
        }
    }

    fn breaker(&self) -> MutexGuard<'_, Breaker> {
        // Its transitions are single assignments: a panic cannot leave half of one.
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn redis_key(key: &CacheKey) -> String {
    format!("{KEY_PREFIX}{key}")
}
