//! How the cache is set up.

use std::time::Duration;

use super::memory::{Policy, StoreLimits};
use super::remote::{RedisConfig, Topology};

/// Longer times to live are mistakes of unit.
const MAX_TTL: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// A look-up that takes longer than this helps nobody.
const MAX_TIMEOUT: Duration = Duration::from_secs(60);
/// More connections than this help no server that the commands are pipelined to.
const MAX_CONNECTIONS: usize = 64;
/// A lease has to be renewed by others than the fastest machines.
const MIN_LEASE: Duration = Duration::from_millis(100);
/// Nobody waits longer for an answer that a dead replica was making.
const MAX_LEASE: Duration = Duration::from_secs(3600);
/// A Redis that is not probed within this is forgotten.
const MAX_COOLDOWN: Duration = Duration::from_secs(24 * 3600);

/// How the cache is set up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheConfig {
    /// `cache_size`: answers kept in memory. At the bound the policy says which one makes room. 0: none are kept in
    /// memory.
    pub size: u64,
    /// `cache_bytes`: their bytes. At least `max_answer_bytes`.
    pub bytes: u64,
    /// `cache_policy`: who makes room in memory.
    pub policy: Policy,
    /// `cache_ttl`: how long an answer is replayed after it was generated, in memory and in Redis. 1 ms to 10 years.
    pub ttl: Duration,
    /// `cache_max_answer_bytes`: larger answers are not kept, and larger values in Redis are not read.
    pub max_answer_bytes: usize,
    /// `redis_url` and what belongs to it. `None`: answers are kept in memory alone.
    pub redis: Option<RedisConfig>,
}

impl Default for CacheConfig {
    /// 1024 answers of at most 1 MiB each and 256 MiB together for an hour, in memory alone.
    fn default() -> Self {
        Self {
            size: 1024,
            bytes: 256 << 20,
            policy: Policy::default(),
            ttl: Duration::from_secs(3600),
            max_answer_bytes: 1 << 20,
            redis: None,
        }
    }
}

impl CacheConfig {
    pub(super) fn validate(&self) -> Result<(), CacheError> {
        in_range("cache_ttl", self.ttl, MAX_TTL)?;
        if self.max_answer_bytes == 0 {
            return Err(CacheError::NoRoom);
        }
        if self.size > 0 && self.bytes < self.max_answer_bytes as u64 {
            return Err(CacheError::Bytes {
                bytes: self.bytes,
                answer: self.max_answer_bytes,
            });
        }
        if let Some(redis) = &self.redis {
            in_range("redis_timeout", redis.timeout, MAX_TIMEOUT)?;
            in_range("redis_cooldown", redis.cooldown, MAX_COOLDOWN)?;
            if let Some(lease) = redis.lease {
                between("redis_lease", lease, MIN_LEASE, MAX_LEASE)?;
            }
            if !(1..=MAX_CONNECTIONS).contains(&redis.connections) {
                return Err(CacheError::Redis {
                    option: "redis_connections",
                    reason: format!("is {}, expected 1 to {MAX_CONNECTIONS}", redis.connections),
                });
            }
            if matches!(&redis.topology, Topology::Sentinel { master } if master.is_empty()) {
                return Err(CacheError::Redis {
                    option: "redis_sentinel_master",
                    reason: "is empty, expected the name that Sentinels watch".to_owned(),
                });
            }
        }
        Ok(())
    }

    pub(super) fn memory(&self) -> StoreLimits {
        StoreLimits {
            entries: self.size,
            bytes: self.bytes,
            value_bytes: self.max_answer_bytes as u64,
            policy: self.policy,
        }
    }
}

fn in_range(option: &'static str, value: Duration, most: Duration) -> Result<(), CacheError> {
    between(option, value, Duration::from_millis(1), most)
}

fn between(
    option: &'static str,
    value: Duration,
    least: Duration,
    most: Duration,
) -> Result<(), CacheError> {
    if value < least || value > most {
        return Err(CacheError::Range {
            option,
            value,
            least,
            most,
        });
    }
    Ok(())
}

/// A configuration that cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CacheError {
    /// The URL is not one of Redis. The message does not repeat it: it may hold a password.
    #[error(
        "redis_url: {reason}; expected redis://[user:password@]host[:port][/database], the same with \
         rediss:// for TLS, or unix:///path"
    )]
    RedisUrl {
        /// What is wrong with it.
        reason: String,
    },
    /// Another setting of Redis cannot be.
    #[error("{option}: {reason}")]
    Redis {
        /// Name of the option.
        option: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// A duration is out of its range.
    #[error("{option} is {value:?}, expected {least:?} to {most:?}")]
    Range {
        /// Name of the option.
        option: &'static str,
        /// As configured.
        value: Duration,
        /// The smallest value.
        least: Duration,
        /// The largest value.
        most: Duration,
    },
    /// No answer would fit.
    #[error(
        "cache_max_answer_bytes is 0, expected at least 1; to keep nothing in memory set \
         cache_size to 0"
    )]
    NoRoom,
    /// The largest answer would not fit.
    #[error("cache_bytes is {bytes}, expected at least the {answer} of cache_max_answer_bytes")]
    Bytes {
        /// As configured.
        bytes: u64,
        /// Bytes of the largest answer.
        answer: usize,
    },
}
