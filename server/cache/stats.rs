//! What the cache did.

#[cfg(doc)]
use super::codec::BrokenValue;
use super::memory::Policy;
use std::sync::atomic::{AtomicU64, Ordering};

/// What the cache did since it was made, and what it holds.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct CacheStats {
    /// Answers in memory.
    pub memory_entries: u64,
    /// Their size in bytes.
    pub memory_bytes: u64,
    /// Answers that left memory, by cause in the order of [`Cause::ALL`](super::Cause::ALL).
    pub memory_evictions: [u64; 5],
    /// The policy in force in memory; `None`: nothing is kept there.
    pub memory_policy: Option<Policy>,
    /// Look-ups answered from memory.
    pub memory_hits: u64,
    /// Look-ups answered from Redis.
    pub redis_hits: u64,
    /// Look-ups not answered.
    pub misses: u64,
    /// Hits among all look-ups, 0 to 1; 0 before the first.
    pub hit_ratio: f64,
    /// Reads and writes that Redis refused, failed, or did not answer in time.
    pub redis_errors: u64,
    /// Values found in Redis that were no valid answer to the key, by [`BrokenValue::KINDS`]. They are removed.
    pub broken_values: [u64; 4],
    /// Answers that were not stored, or not in Redis: too large, too many writes under way, or Redis left alone.
    pub dropped_puts: u64,
    /// Answers that this replica made while others may have waited for them.
    pub leases_led: u64,
    /// Answers of other replicas that were streamed as they grew.
    pub leases_followed: u64,
    /// Of those, answers that had to be made here after all: the other replica died, or Redis failed.
    pub leases_taken_over: u64,
    /// Leases that this replica lost before its answer was complete: Redis failed, or it was too slow to renew them.
    pub leases_lost: u64,
    /// Whether a Redis is configured.
    pub redis_configured: bool,
    /// Whether it is asked: false while it, or a shard of it, is left alone after failures.
    pub redis_available: bool,
}

/// The counters behind [`CacheStats`]. They count events and order nothing, so relaxed accesses do.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) memory_hits: Counter,
    pub(super) redis_hits: Counter,
    pub(super) misses: Counter,
    pub(super) redis_errors: Counter,
    pub(super) broken_values: [Counter; 4],
    pub(super) dropped_puts: Counter,
    pub(super) leases_led: Counter,
    pub(super) leases_followed: Counter,
    pub(super) leases_taken_over: Counter,
    pub(super) leases_lost: Counter,
}

impl Counters {
    /// The counted part of the statistics.
    pub(super) fn snapshot(&self) -> CacheStats {
        let (memory_hits, redis_hits) = (self.memory_hits.get(), self.redis_hits.get());
        let misses = self.misses.get();
        let hits = memory_hits + redis_hits;
        CacheStats {
            memory_hits,
            redis_hits,
            misses,
            hit_ratio: if hits == 0 {
                0.0
            } else {
                hits as f64 / (hits + misses) as f64
            },
            redis_errors: self.redis_errors.get(),
            broken_values: self.broken_values.each_ref().map(Counter::get),
            dropped_puts: self.dropped_puts.get(),
            leases_led: self.leases_led.get(),
            leases_followed: self.leases_followed.get(),
            leases_taken_over: self.leases_taken_over.get(),
            leases_lost: self.leases_lost.get(),
            ..CacheStats::default()
        }
    }
}

/// A number that only grows.
#[derive(Debug, Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    pub(super) fn add_one(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
