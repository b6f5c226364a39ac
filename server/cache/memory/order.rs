//! Who makes room: each order is one number for each entry, and the entry with the smallest goes first.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::shares::Owner;

/// Which entry makes room for a new one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, clap::ValueEnum)]
pub enum Policy {
    /// The least recently used
    #[default]
    Lru,
    /// The least often used; the counts are halved now and then, so that old fame fades
    Lfu,
    /// The oldest
    Fifo,
    /// The largest
    Size,
    /// The soonest to expire
    Ttl,
    /// Whichever of the others has the most hits of late
    Adaptive,
}

impl Policy {
    /// All policies, as they are named to people.
    pub const ALL: [Self; 6] = [
        Self::Lru,
        Self::Lfu,
        Self::Fifo,
        Self::Size,
        Self::Ttl,
        Self::Adaptive,
    ];

    /// The name in settings and statistics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Lru => "lru",
            Self::Lfu => "lfu",
            Self::Fifo => "fifo",
            Self::Size => "size",
            Self::Ttl => "ttl",
            Self::Adaptive => "adaptive",
        }
    }
}

/// A policy that stays as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    Lru,
    Lfu,
    Fifo,
    Size,
    Ttl,
}

/// What the use of an entry changes, behind a shared reference; only upwards but for [`fade`](Self::fade), which lets the
/// queue keep old ranks.
#[derive(Debug)]
pub(super) struct Used {
    /// Tick of the shard's clock.
    last: AtomicU64,
    times: AtomicU32,
}

/// What stays as it is while the entry is there.
#[derive(Debug, Clone, Copy)]
pub(super) struct Facts {
    /// The tick of the shard's clock at its insertion, which no other entry has.
    pub(super) born: u64,
    pub(super) bytes: u64,
    /// The tenant whose it is.
    pub(super) owner: Owner,
}

/// Compared as a whole: what the order is about, then the last use.
pub(super) type Rank = (u64, u64);

impl Order {
    pub(super) const ALL: [Self; 5] = [Self::Lru, Self::Lfu, Self::Fifo, Self::Size, Self::Ttl];

    pub(super) fn policy(self) -> Policy {
        match self {
            Self::Lru => Policy::Lru,
            Self::Lfu => Policy::Lfu,
            Self::Fifo => Policy::Fifo,
            Self::Size => Policy::Size,
            Self::Ttl => Policy::Ttl,
        }
    }

    /// The smallest goes first. `expires` in nanoseconds of the cache's clock.
    pub(super) fn rank(self, used: &Used, expires: u64, facts: &Facts) -> Rank {
        let last = used.last.load(Ordering::Relaxed);
        match self {
            Self::Lru => (last, 0),
            Self::Lfu => (u64::from(used.times()), last),
            Self::Fifo => (facts.born, 0),
            Self::Size => (u64::MAX - facts.bytes, last),
            Self::Ttl => (expires, last),
        }
    }
}

impl Used {
    /// An entry that was used so many times before.
    pub(super) fn new(tick: u64, before: u32) -> Self {
        Self {
            last: AtomicU64::new(tick),
            times: AtomicU32::new(before.saturating_add(1)),
        }
    }

    pub(super) fn times(&self) -> u32 {
        self.times.load(Ordering::Relaxed)
    }

    /// Two uses at the same time may count as one, which no order minds.
    pub(super) fn touch(&self, tick: u64) {
        self.last.store(tick, Ordering::Relaxed);
        self.times
            .store(self.times().saturating_add(1), Ordering::Relaxed);
    }

    /// Halves what is known of the uses.
    pub(super) fn fade(&mut self) {
        *self.times.get_mut() /= 2;
    }
}
