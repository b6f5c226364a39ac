//! The explanation cache: answers that were generated once, replayed as a stream.
//!
//! - [`key`](CacheKey): what an answer depends on, hashed under a secret;
//! - [`answer`](CachedAnswer): what is kept, and `codec`: its bytes;
//! - `memory`: level 1, in this process;
//! - `remote`: level 2, a Redis that replicas share. `link` is its connection, `breaker` decides when to do without
//!   it, `warnings` keeps the log readable.
//!
//! The cache fails open. Redis slow, lying or gone costs a look-up [`RedisConfig::timeout`] at most, and nothing once
//! the breaker has opened; it is never an error.

mod answer;
mod breaker;
mod codec;
mod config;
mod key;
mod link;
mod memory;
mod remote;
mod stats;
mod warnings;

use std::fmt;
use std::sync::Arc;

pub use answer::{CachedAnswer, FinishReason, Timings};
pub use codec::BrokenValue;
pub use config::{CacheConfig, CacheError, RedisConfig};
pub use key::{CacheKey, KeyParts};
pub use memory::{Cause, Name, Policy, Store, StoreLimits, StoreUsage};
pub use stats::CacheStats;

use memory::Memory;
use remote::{Remote, RemoteLimits};
use stats::Counters;

/// Answers by key, in memory and in Redis. Shared by `Arc`.
pub struct Cache {
    memory: Option<Memory>,
    remote: Option<Arc<Remote>>,
    config: CacheConfig,
    counters: Arc<Counters>,
}

/// What a look-up gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lookup {
    /// The answer, and where it was.
    Hit(Level, Arc<CachedAnswer>),
    /// No answer, or none that could be had in time.
    Miss,
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
                };
                let remote =
                    Remote::new(&redis.url, limits, Arc::clone(&counters)).map_err(|err| {
                        CacheError::RedisUrl {
                            reason: err.to_string(),
                        }
                    })?;
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
        if let Some(answer) = self.memory.as_ref().and_then(|memory| memory.get(key)) {
            self.counters.memory_hits.add_one();
            return Lookup::Hit(Level::Memory, answer);
        }
        let found = match &self.remote {
            Some(remote) => remote.get(key).await,
            None => None,
        };
        let Some(found) = found else {
            self.counters.misses.add_one();
            return Lookup::Miss;
        };
        self.counters.redis_hits.add_one();
        if let (Some(memory), Some(time_to_live)) = (&self.memory, found.time_to_live)
            && found.answer.size_bytes() <= self.config.max_answer_bytes
        {
            memory.put(*key, Arc::clone(&found.answer), time_to_live);
        }
        Lookup::Hit(Level::Redis, found.answer)
    }

    /// Keeps an answer, in place of the one that the key had. Never waits: Redis is written to in the background, and
    /// not at all when the answer is too large, too many writes are under way, Redis is being left alone, or the caller
    /// is not within a Tokio runtime. What is not stored is counted.
    pub fn put(&self, key: CacheKey, answer: Arc<CachedAnswer>) {
        if !self.enabled() {
            return;
        }
        if answer.size_bytes() > self.config.max_answer_bytes {
            return self.counters.dropped_puts.add_one();
        }
        if let Some(memory) = &self.memory
            && !memory.put(key, Arc::clone(&answer), self.config.ttl)
        {
            self.counters.dropped_puts.add_one();
        }
        if let Some(remote) = &self.remote {
            remote.put(key, answer);
        }
    }

    /// Frees what has expired in memory. Nothing expired is ever served; this is to run now and then so that it does not
    /// lie there either.
    pub fn sweep(&self) {
        self.memory.iter().for_each(Memory::sweep);
    }

    /// What the cache did so far and what it holds now.
    pub fn stats(&self) -> CacheStats {
        let memory = (self.memory.as_ref()).map_or_else(StoreUsage::default, Memory::usage);
        CacheStats {
            memory_entries: memory.entries,
            memory_bytes: memory.bytes,
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
