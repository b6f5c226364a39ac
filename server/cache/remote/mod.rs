//! Level 2: answers in a Redis that all replicas share. Whatever Redis does, nothing here fails: an answer is there or
//! it is not.
//!
//! - `config`, `target`, `link`: which Redis, how to connect to it, and the connections;
//! - `breaker`, `parts`: when to do without it, or without a shard of it;
//! - `names`: what things are called there;
//! - `values`: the answers; `token`, `lease`, `piece`, `relay`, `follow`: answers that one replica makes while others
//!   stream them; `admin`: looking over Redis and clearing it.
//!
//! Others can write to Redis. So everything that is read there has a message authentication code, which is checked before
//! anything else is done with it, and what is not authentic is a miss.

mod admin;
mod breaker;
mod config;
mod follow;
mod lease;
mod link;
mod names;
mod parts;
mod piece;
mod relay;
mod target;
mod token;
mod values;

use std::fmt::Display;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use code_explainer_host::log_limit::LogLimit;
use redis::{Pipeline, RedisError, Value};
use tokio::sync::Semaphore;
use tokio::time::timeout;

pub use admin::{RemoteError, RemoteUsage};
pub use config::{RedisConfig, RedisTls, Topology};
pub use follow::{Follower, Told};
pub use relay::Leader;
pub(super) use relay::Turn;
pub(super) use values::Found;

use super::codec::BrokenValue;
use super::config::CacheError;
use super::key::CacheKey;
use super::mac::MacKey;
use super::stats::Counters;
use breaker::{Admission, Change};
use link::Link;
use parts::Parts;
use target::Target;

/// Writes under way at most; more are dropped. With the bound on an answer's size it bounds the memory that a slow
/// Redis can tie up.
const WRITES: usize = 64;
/// At most one line about failures in this time.
const WARNINGS: Duration = Duration::from_secs(10);
/// At most one line about broken values in this time: who can write to Redis decides how many there are.
const BROKEN_VALUES: Duration = Duration::from_secs(60);

/// How to use Redis.
#[derive(Debug, Clone, Copy)]
pub(super) struct RemoteLimits {
    pub(super) timeout: Duration,
    pub(super) cooldown: Duration,
    pub(super) time_to_live: Duration,
    pub(super) value_bytes: usize,
    /// `None`: replicas do not wait for one another.
    pub(super) lease: Option<Duration>,
}

/// Answers in Redis.
pub(super) struct Remote {
    link: Link,
    mac: MacKey,
    limits: RemoteLimits,
    parts: Parts,
    writes: Arc<Semaphore>,
    /// Redis runs no scripts for this server, so that there are no leases.
    without_scripts: AtomicBool,
    /// Answers of other replicas that are being read as they grow.
    followed: Arc<AtomicUsize>,
    warnings: LogLimit,
    broken_values: LogLimit,
    counters: Arc<Counters>,
}

/// Why Redis gave nothing that can be used.
#[derive(Debug, thiserror::Error)]
enum Failure {
    /// The connection failed, or the server replied with an error.
    #[error(transparent)]
    Redis(RedisError),
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

impl From<RedisError> for Failure {
    fn from(err: RedisError) -> Self {
        match err.code() {
            Some("WRONGTYPE") => Self::Broken(BrokenValue::Type),
            _ => Self::Redis(err),
        }
    }
}

impl From<redis::ServerError> for Failure {
    fn from(err: redis::ServerError) -> Self {
        RedisError::from(err).into()
    }
}

impl Failure {
    /// The server replied, even if it was not what was wished for.
    fn is_reply(&self, codes: &[&str]) -> bool {
        matches!(self, Self::Redis(err) if err.code().is_some_and(|code| codes.contains(&code)))
    }

    /// The server runs no scripts: the command was renamed, its user may not use it, or a proxy does not know it.
    fn refuses_scripts(&self) -> bool {
        let Self::Redis(err) = self else {
            return false;
        };
        let detail = err.detail().unwrap_or_default().to_ascii_lowercase();
        let refused = [
            "unknown command",
            "unsupported command",
            "no permissions to run",
        ]
        .iter()
        .any(|why| detail.contains(why));
        refused && detail.contains("eval")
    }
}

impl Remote {
    /// Connects to nothing yet.
    ///
    /// # Errors
    /// A setting that cannot be.
    pub(super) fn new(
        config: &RedisConfig,
        limits: RemoteLimits,
        counters: Arc<Counters>,
    ) -> Result<Self, CacheError> {
        Ok(Self {
            link: Link::new(Target::new(config)?, config.connections),
            mac: MacKey::new(config.secret.as_bytes()),
            limits,
            parts: Parts::new(config.topology == Topology::Cluster, limits.cooldown),
            writes: Arc::new(Semaphore::new(WRITES)),
            without_scripts: AtomicBool::new(false),
            followed: Arc::default(),
            warnings: LogLimit::every(WARNINGS),
            broken_values: LogLimit::every(BROKEN_VALUES),
            counters,
        })
    }

    /// Whether all of Redis is asked, rather than left alone after failures.
    pub(super) fn is_available(&self) -> bool {
        self.parts.all_are_asked()
    }

    /// Sends commands and waits for as many replies, [`RemoteLimits::timeout`] at most.
    async fn send(&self, commands: &Pipeline) -> Result<Vec<Value>, Failure> {
        let limit = self.limits.timeout;
        let replies = timeout(limit, self.link.send(commands)).await;
        Ok(replies.map_err(|_| Failure::Timeout(limit))??)
    }

    /// Asks the breaker of the answer's part, and starts the probe that it may want. Nobody waits for a probe.
    fn admitted(self: &Arc<Self>, key: &CacheKey) -> bool {
        let admission = self.parts.of(key).admit(now());
        if admission == Admission::Probe {
            let (this, key) = (Arc::clone(self), *key);
            tokio::spawn(async move { this.probe(&key).await });
        }
        admission == Admission::Go
    }

    /// Makes a new connection, where there is none, and sees whether the server that has the answer's part replies on it as
    /// fast as a look-up needs.
    async fn probe(&self, key: &CacheKey) {
        let mut look = Pipeline::new();
        look.cmd("PTTL").arg(names::answer(key));
        let alive = async {
            self.link.connection().await?;
            match self.send(&look).await?.pop() {
                Some(Value::ServerError(err)) => Err(err.into()),
                Some(Value::Int(_)) => Ok(()),
                _ => Err(Failure::Protocol),
            }
        };
        let outcome: Result<(), Failure> = alive.await;
        let change = self.parts.of(key).record_probe(outcome.is_ok(), now());
        match outcome {
            Ok(()) if change == Change::Closed => {
                tracing::info!(redis = %self.link, "redis is back: asking it again");
            }
            Ok(()) => {}
            Err(err) => {
                self.reset_if_lost();
                tracing::debug!(redis = %self.link, error = %err, "redis is still failing");
            }
        }
    }

    /// The peer may have vanished without closing: the probe must not trust its connection. That of a cluster serves all
    /// nodes, and takes care of each: while others are asked it stays.
    fn reset_if_lost(&self) {
        if self.parts.none_is_asked() {
            self.link.reset();
        }
    }

    /// How long a lease lasts, where there are leases.
    fn lease(&self) -> Option<Duration> {
        let scripts = !self.without_scripts.load(Ordering::Relaxed);
        self.limits.lease.filter(|_| scripts)
    }

    /// From here on there are no leases. Said once.
    fn do_without_scripts(&self, err: &Failure) {
        if !self.without_scripts.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                redis = %self.link,
                error = %err,
                "redis runs no scripts (EVAL): replicas share their answers, but do not wait for one another's. \
                 Allow EVAL and start anew, or set --redis-lease 0s"
            );
        }
    }

    fn record(&self, key: &CacheKey, succeeded: bool) {
        // The guard is gone when the others are looked at.
        let change = self.parts.of(key).record(succeeded, now());
        if change == Change::Opened {
            self.reset_if_lost();
            tracing::warn!(
                redis = %self.link,
                cooldown = ?self.limits.cooldown,
                "redis keeps failing: doing without it, probing after the cool-down"
            );
        }
    }

    /// What a failed read means: that Redis is failing, or that a value is broken, which is then taken away.
    fn could_not_read(self: &Arc<Self>, key: &CacheKey, err: Failure) {
        if let Failure::Broken(err) = err {
            self.record(key, true);
            self.broken(&err);
            return self.remove(*key);
        }
        self.failed("could not read", &err);
        match &err {
            // It answers in time: it is full, or it is no master any more.
            err if err.is_reply(&["OOM"]) => self.record(key, true),
            err if err.is_reply(&["READONLY"]) => self.link.reset(),
            _ => self.record(key, false),
        }
    }

    /// What a failed write means. A reply in time, even "out of memory", says nothing against reading: it is counted and
    /// logged, but the breaker hears only of servers that cannot be reached.
    fn could_not_write(&self, key: &CacheKey, err: Failure) {
        self.failed("could not write", &err);
        match err {
            // Another server has become the master; Sentinels know which.
            Failure::Redis(err) if err.code() == Some("READONLY") => self.link.reset(),
            Failure::Redis(err) if err.code().is_some() => {}
            _ => self.record(key, false),
        }
    }

    /// Counts and logs a value that cannot be used.
    fn broken(&self, err: &BrokenValue) {
        self.counters.broken_values[err.kind()].add_one();
        self.warn(&self.broken_values, "dropped a broken value", err);
    }

    /// Counts and logs a failure.
    fn failed(&self, what: &'static str, err: &impl Display) {
        self.counters.redis_errors.add_one();
        self.warn(&self.warnings, what, err);
    }

    fn warn(&self, limit: &LogLimit, what: &'static str, err: &impl Display) {
        if let Some(held_back) = limit.due(now()) {
            tracing::warn!(redis = %self.link, error = %err, held_back, "redis cache: {what}");
        }
    }
}

/// The time, which a test may have stopped.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
