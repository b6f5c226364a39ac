//! The explanation cache: answers that were generated once, replayed as a stream.
//!
//! - [`key`](CacheKey): what an answer depends on, hashed under a secret;
//! - [`answer`](CachedAnswer): what is kept, and `codec`: its bytes, with a [message authentication code](MacKey);
//! - `memory`: level 1, in this process;
//! - `remote`: level 2, a Redis that replicas share;
//! - [`selection`](Selection): some of the answers, by tenant, language and strategy;
//! - [`levels`](LevelStats): what each level did, and `watch`: how fast and how often.
//!
//! The cache fails open. Redis slow, lying or gone costs a look-up [`RedisConfig::timeout`] at most, and nothing once
//! the breaker has opened; it is never an error.

mod answer;
mod codec;
mod config;
mod key;
mod levels;
mod mac;
mod memory;
mod remote;
mod selection;
mod stats;
mod watch;

use std::fmt;
use std::sync::Arc;

use tokio::time::Instant;

pub use answer::{CachedAnswer, CachedDelta, FinishReason, Timings};
pub use codec::BrokenValue;
pub use config::{CacheConfig, CacheError};
pub use key::{CacheKey, KeyParts};
pub use levels::{LevelStats, MemoryState};
pub use mac::MacKey;
pub use memory::{Cause, Name, Owner, Policy, Store, StoreLimits, StoreUsage, Terms};
pub use remote::{
    Follower, Leader, RedisConfig, RedisTls, RemoteError, RemoteUsage, Told, Topology,
};
pub use selection::Selection;
pub use stats::CacheStats;
pub use watch::{AccessTimes, Rates, Sample, Watch};

use levels::Watches;
use memory::Memory;
use remote::{Found, Remote, RemoteLimits, Turn};
use stats::Counters;

/// Answers by key, in memory and in Redis. Shared by `Arc`.
pub struct Cache {
    memory: Option<Memory>,
    remote: Option<Arc<Remote>>,
    config: CacheConfig,
    counters: Arc<Counters>,
    watches: Watches,
}

/// What a look-up gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lookup {
    /// The answer, and where it was.
    Hit(Level, Arc<CachedAnswer>),
    /// No answer, or none that could be had in time.
    Miss,
}

/// What is to be done about an item.
pub enum Plan {
    /// Replay the answer, which was at this level.
    Replay(Level, Arc<CachedAnswer>),
    /// Make the answer, tell the [`Leader`] of it as it grows, and [`finish`](Cache::finish).
    Lead(Leader),
    /// Another replica makes it: read it as it grows, and then [`keep`](Cache::keep) it.
    Follow(Box<Follower>),
    /// Make the answer, and [`put`](Cache::put) it.
    Make,
}

/// Where an answer was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Level {
    /// In this process's memory.
    Memory,
    /// In Redis.
    Redis,
}

impl Cache {
    /// Makes the cache; it connects to nothing yet, so that a Redis which is down does not matter here.
    ///
    /// # Errors
    /// A value of the configuration that cannot be: the error names its option.
    pub fn new(config: CacheConfig) -> Result<Self, CacheError> {
        config.validate()?;
        let counters = Arc::new(Counters::default());
        let remote = match &config.redis {
            Some(redis) => {
                let limits = RemoteLimits {
                    timeout: redis.timeout,
                    cooldown: redis.cooldown,
                    time_to_live: config.ttl,
                    value_bytes: config.max_answer_bytes,
                    lease: redis.lease,
                };
                let remote = Remote::new(redis, limits, Arc::clone(&counters))?;
                Some(Arc::new(remote))
            }
            None => None,
        };
        let memory = (config.size > 0).then(|| Memory::new(&config.memory()));
        Ok(Self {
            memory,
            remote,
            config,
            counters,
            watches: Watches::new(),
        })
    }

    /// Whether there is any level. If not, look-ups miss without being counted.
    pub fn enabled(&self) -> bool {
        self.memory.is_some() || self.remote.is_some()
    }

    /// The answer of a key. One found in Redis is kept in memory for the rest of its time to live.
    ///
    /// Within a Tokio runtime with time and I/O. Waits [`RedisConfig::timeout`] at most. Dropping the future is safe.
    pub async fn lookup(&self, key: &CacheKey) -> Lookup {
        if !self.enabled() {
            return Lookup::Miss;
        }
        if let Some(answer) = self.peek(key) {
            return Lookup::Hit(Level::Memory, answer);
        }
        let found = match &self.remote {
            Some(remote) => self.timed(remote.get(key)).await,
            None => None,
        };
        match found {
            Some(found) => Lookup::Hit(Level::Redis, self.promote(key, found)),
            None => {
                self.counters.misses.add_one();
                Lookup::Miss
            }
        }
    }

    /// As [`lookup`](Self::lookup), and on a miss also whose turn it is to make the answer: with a Redis, one replica's
    /// at a time.
    pub async fn plan(&self, key: &CacheKey) -> Plan {
        if !self.enabled() {
            return Plan::Make;
        }
        if let Some(answer) = self.peek(key) {
            return Plan::Replay(Level::Memory, answer);
        }
        let turn = match &self.remote {
            Some(remote) => self.timed(remote.turn(key)).await,
            None => Turn::Alone,
        };
        if !matches!(turn, Turn::Found(_)) {
            self.counters.misses.add_one();
        }
        match turn {
            Turn::Found(found) => Plan::Replay(Level::Redis, self.promote(key, found)),
            Turn::Lead(leader) => Plan::Lead(leader),
            Turn::Follow(follower) => Plan::Follow(follower),
            Turn::Alone => Plan::Make,
        }
    }

    async fn timed<T>(&self, asking: impl Future<Output = T>) -> T {
        let asked = Instant::now();
        let reply = asking.await;
        self.watches.of(Level::Redis).took(asked.elapsed());
        reply
    }

    fn promote(&self, key: &CacheKey, found: Found) -> Arc<CachedAnswer> {
        self.counters.redis_hits.add_one();
        if let (Some(memory), Some(time_to_live)) = (&self.memory, found.time_to_live)
            && found.answer.size_bytes() <= self.config.max_answer_bytes
        {
            memory.put(*key, Arc::clone(&found.answer), time_to_live);
        }
        found.answer
    }

    /// The answer of a key, if it is in memory: as [`lookup`](Self::lookup), but a miss is not counted, so that who then
    /// looks further is counted once.
    pub fn peek(&self, key: &CacheKey) -> Option<Arc<CachedAnswer>> {
        let memory = self.memory.as_ref()?;
        let asked = Instant::now();
        let answer = memory.get(key);
        self.watches.of(Level::Memory).took(asked.elapsed());
        if answer.is_some() {
            self.counters.memory_hits.add_one();
        }
        answer
    }

    /// Keeps an answer, in place of the one that the key had. Never waits: Redis is written to in the background, and
    /// not at all when the answer is too large, too many writes are under way, Redis is being left alone, or the caller
    /// is not within a Tokio runtime. What is not stored is counted.
    pub fn put(&self, key: CacheKey, answer: Arc<CachedAnswer>) {
        if self.enabled()
            && self.keep(key, &answer)
            && let Some(remote) = &self.remote
        {
            remote.put(key, answer);
        }
    }

    /// Keeps an answer that this replica made for all of them. Never waits, as [`put`](Self::put).
    pub fn finish(&self, leader: Leader, key: CacheKey, answer: Arc<CachedAnswer>) {
        // What is too large here is so in Redis.
        if self.keep(key, &answer) {
            leader.finish(answer);
        }
    }

    /// Keeps an answer in memory alone, which another replica made. False: it is too large, for Redis, too.
    pub fn keep(&self, key: CacheKey, answer: &Arc<CachedAnswer>) -> bool {
        if answer.size_bytes() > self.config.max_answer_bytes {
            self.counters.dropped_puts.add_one();
            return false;
        }
        if let Some(memory) = &self.memory
            && !memory.put(key, Arc::clone(answer), self.config.ttl)
        {
            self.counters.dropped_puts.add_one();
        }
        true
    }

    /// Removes a selection of the answers from memory and says how many; `None`: none are kept there.
    pub fn clear_memory(&self, selection: &Selection) -> Option<u64> {
        Some(self.memory.as_ref()?.clear(selection))
    }

    /// Removes a selection of the answers from Redis and says how many; `None`: there is no Redis.
    ///
    /// # Errors
    /// Redis refused, or did not answer; some may have been removed.
    pub async fn clear_remote(&self, selection: &Selection) -> Option<Result<u64, RemoteError>> {
        Some(self.remote.as_ref()?.clear(selection).await)
    }

    /// What Redis holds; `None`: there is no Redis.
    ///
    /// # Errors
    /// Redis refused, or did not answer.
    pub async fn remote_usage(&self) -> Option<Result<RemoteUsage, RemoteError>> {
        Some(self.remote.as_ref()?.usage().await)
    }

    /// What the cache did so far and what it holds now.
    pub fn stats(&self) -> CacheStats {
        let memory = (self.memory.as_ref()).map_or_else(StoreUsage::default, Memory::usage);
        CacheStats {
            memory_entries: memory.entries,
            memory_bytes: memory.bytes,
            memory_evictions: memory.evictions,
            memory_policy: self.memory.as_ref().map(Memory::in_force),
            redis_configured: self.remote.is_some(),
            redis_available: self
                .remote
                .as_ref()
                .is_some_and(|remote| remote.is_available()),
            ..self.counters.snapshot()
        }
    }
}

impl fmt::Debug for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}
