//! Which order has the most hits: small caches that keep no values try all of them on a sample of the keys.
//!
//! The method is that of miniature simulations: C. Waldspurger, T. Saemundsson, I. Ahmad, N. Park, "Cache Modeling and
//! Optimization using Miniature Simulations", USENIX ATC 2017. A cache that is a part as large and sees the same part of
//! the keys, picked by their hash, has about the hit rate of the whole.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::name::Name;
use super::order::Order;
use super::shard::{Bounds, Found, Shard, Terms};

/// Entries of a small cache; fewer tell too little.
const SMALL_ENTRIES: u64 = 1024;
/// What an answer is taken to have where bytes are the tighter bound.
const TYPICAL_BYTES: u64 = 4096;
/// The orders are compared after this many look-ups of the sample for each entry of a small cache.
const LOOKUPS_PER_ENTRY: u64 = 2;
/// An order must have this many times the hits of the one in force to take its place: a change costs a sort.
const BETTER: f64 = 1.01;

/// Watches look-ups and says which order is best.
#[derive(Debug)]
pub(super) struct Adaptive {
    trials: Mutex<Trials>,
    /// A key is of the sample if the low bits of its hash are 0 here.
    mask: u64,
    /// Place of the best order in [`Order::ALL`].
    best: AtomicU8,
}

#[derive(Debug)]
struct Trials {
    shards: [Shard<()>; Order::ALL.len()],
    /// Hits of each; older ones count half in each later comparison.
    hits: [f64; Order::ALL.len()],
    looked_up: u64,
    compare_after: u64,
}

impl Adaptive {
    /// For a cache of these bounds.
    pub(super) fn new(bounds: Bounds) -> Self {
        let expected = bounds.entries.min(bounds.bytes / TYPICAL_BYTES);
        let parts = (expected / SMALL_ENTRIES).max(1);
        // The largest power of two that leaves the small caches large enough.
        let parts = 1 << parts.ilog2();
        let small = Bounds {
            entries: bounds.entries / parts,
            bytes: bounds.bytes / parts,
        };
        Self {
            trials: Mutex::new(Trials {
                shards: Order::ALL.map(|order| Shard::new(order, small)),
                hits: [0.0; Order::ALL.len()],
                looked_up: 0,
                compare_after: LOOKUPS_PER_ENTRY * SMALL_ENTRIES.min(small.entries.max(64)),
            }),
            mask: parts - 1,
            best: AtomicU8::new(0),
        }
    }

    /// The order with the most hits of late.
    pub(super) fn best(&self) -> Order {
        Order::ALL[usize::from(self.best.load(Ordering::Relaxed))]
    }

    /// A look-up of a key; `found` tells on what terms what was found is kept.
    pub(super) fn looked_up(&self, name: &Name, found: impl FnOnce() -> Option<Terms>, now: u64) {
        if self.samples(name) {
            let found = found();
            let mut trials = self.trials();
            trials.look_up(name, found, now);
            if let Some(best) = trials.compare(self.best.load(Ordering::Relaxed)) {
                self.best.store(best, Ordering::Relaxed);
            }
        }
    }

    /// A value was put under a name.
    pub(super) fn kept(&self, name: &Name, terms: Terms, now: u64) {
        if self.samples(name) {
            for shard in &mut self.trials().shards {
                // Where it is still there, the look-up before this has counted its use.
                if shard.peek(name, now).is_none() {
                    shard.insert(*name, (), terms);
                }
            }
        }
    }

    fn samples(&self, name: &Name) -> bool {
        name.sample_hash() & self.mask == 0
    }

    fn trials(&self) -> MutexGuard<'_, Trials> {
        // A panic leaves shards that are whole, or at worst a score that is off.
        self.trials.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Trials {
    fn look_up(&mut self, name: &Name, found: Option<Terms>, now: u64) {
        self.looked_up += 1;
        for (shard, hits) in self.shards.iter_mut().zip(&mut self.hits) {
            match (shard.get(name, now), found) {
                (Found::Live(()), _) => *hits += 1.0,
                // The cache has it, so nobody will put it: this order would have had it computed again.
                (_, Some(terms)) => {
                    shard.insert(*name, (), terms);
                }
                (_, None) => {}
            }
        }
    }

    /// Now and then: the place of an order that is better than the one in force.
    fn compare(&mut self, in_force: u8) -> Option<u8> {
        if self.looked_up < self.compare_after {
            return None;
        }
        self.looked_up = 0;
        let mut best = usize::from(in_force);
        for (place, hits) in self.hits.iter().enumerate() {
            if *hits
                > self.hits[best]
                    * if best == usize::from(in_force) {
                        BETTER
                    } else {
                        1.0
                    }
            {
                best = place;
            }
        }
        self.hits = self.hits.map(|hits| hits / 2.0);
        (best != usize::from(in_force)).then_some(best as u8)
    }
}
