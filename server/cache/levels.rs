//! What each level holds and did, for those who run the server.

use tokio::time::Instant;

use super::memory::{Cause, Policy, StoreUsage};
use super::watch::{AccessTimes, Rates, Sample, Watch};
use super::{Cache, Level, Memory};

/// What a level holds and did since the server started.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LevelStats {
    /// Look-ups that it answered.
    pub hits: u64,
    /// Look-ups that it was asked and did not answer.
    pub misses: u64,
    /// How long they took; `None` before the first.
    pub times: Option<AccessTimes>,
    /// Over about the last minute.
    pub rates: Rates,
    /// Operations that it failed to do.
    pub errors: u64,
}

/// What the memory holds, and who makes room there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryState {
    /// Entries, bytes and evictions.
    pub usage: StoreUsage,
    /// Entries at most.
    pub max_entries: u64,
    /// Bytes at most.
    pub max_bytes: u64,
    /// As set.
    pub policy: Policy,
    /// Where it is adaptive, the one that was found to be best.
    pub in_force: Policy,
}

/// Watches of the levels.
#[derive(Debug)]
pub(super) struct Watches {
    began: Instant,
    memory: Watch,
    redis: Watch,
}

impl Watches {
    pub(super) fn new() -> Self {
        Self {
            began: Instant::now(),
            memory: Watch::default(),
            redis: Watch::default(),
        }
    }

    pub(super) fn of(&self, level: Level) -> &Watch {
        match level {
            Level::Memory => &self.memory,
            Level::Redis => &self.redis,
        }
    }
}

impl LevelStats {
    /// Hits among all look-ups, 0 to 1; 0 before the first.
    pub fn hit_rate(&self) -> f64 {
        self.hits as f64 / (self.hits + self.misses).max(1) as f64
    }
}

impl Cache {
    /// What a level did; `None`: it is off.
    pub fn level(&self, level: Level) -> Option<LevelStats> {
        let on = match level {
            Level::Memory => self.memory.is_some(),
            Level::Redis => self.remote.is_some(),
        };
        let counted = self.counters.snapshot();
        let (hits, misses, errors) = match level {
            Level::Memory => (counted.memory_hits, counted.redis_hits + counted.misses, 0),
            Level::Redis => (counted.redis_hits, counted.misses, counted.redis_errors),
        };
        let watch = self.watches.of(level);
        on.then(|| LevelStats {
            hits,
            misses,
            times: watch.times(),
            rates: watch.rates(self.watches.began, self.sampled(level)),
            errors,
        })
    }

    /// What the memory holds; `None`: it is off.
    pub fn memory(&self) -> Option<MemoryState> {
        let memory = self.memory.as_ref()?;
        Some(MemoryState {
            usage: memory.usage(),
            max_entries: self.config.size,
            max_bytes: self.config.bytes,
            policy: self.config.policy,
            in_force: memory.in_force(),
        })
    }

    /// To be called every few seconds: frees what has expired in memory, which is never served but lies there, and notes
    /// the counts of now for the rates.
    pub fn upkeep(&self) {
        self.memory.iter().for_each(Memory::sweep);
        for level in [Level::Memory, Level::Redis] {
            self.watches.of(level).sample(self.sampled(level));
        }
    }

    fn sampled(&self, level: Level) -> Sample {
        let counted = self.counters.snapshot();
        let redis = counted.redis_hits + counted.misses;
        let (lookups, evictions) = match level {
            Level::Memory => {
                let evictions = self
                    .memory
                    .as_ref()
                    .map_or([0; Cause::ALL.len()], |memory| memory.evictions());
                (counted.memory_hits + redis, evictions.iter().sum())
            }
            Level::Redis => (redis, 0),
        };
        Sample {
            at: Instant::now(),
            lookups,
            evictions,
        }
    }
}
