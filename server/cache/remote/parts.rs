//! The parts of Redis that can fail alone, each with a breaker: a shard that is dead takes nothing from the others.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::breaker::Breaker;
use crate::key::CacheKey;

/// Slots of a cluster.
const SLOTS: usize = 16_384;
/// Parts that a cluster's slots are taken in. Nodes have ranges of slots, and nobody has to be told which: a node that fails
/// opens the breakers of its own ranges. Each costs a few failures; fewer parts would be shared by more nodes.
const CLUSTER_PARTS: usize = 16;

/// The breakers.
pub(super) struct Parts(Box<[Mutex<Breaker>]>);

impl Parts {
    /// All closed.
    pub(super) fn new(cluster: bool, cooldown: Duration) -> Self {
        let parts = if cluster { CLUSTER_PARTS } else { 1 };
        let breaker = |_| Mutex::new(Breaker::new(cooldown));
        Self((0..parts).map(breaker).collect())
    }

    /// That of the part where the answer of a key is.
    pub(super) fn of(&self, key: &CacheKey) -> MutexGuard<'_, Breaker> {
        let slot = match self.0.len() {
            1 => 0,
            _ => slot(key),
        };
        lock(&self.0[slot * self.0.len() / SLOTS])
    }

    /// Nothing is left alone.
    pub(super) fn all_are_asked(&self) -> bool {
        self.0.iter().all(|breaker| lock(breaker).is_closed())
    }

    /// Everything is left alone.
    pub(super) fn none_is_asked(&self) -> bool {
        self.0.iter().all(|breaker| !lock(breaker).is_closed())
    }
}

fn lock(breaker: &Mutex<Breaker>) -> MutexGuard<'_, Breaker> {
    // Its transitions are single assignments: a panic cannot leave half of one.
    breaker.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Where a cluster has what belongs to an answer: it is sharded by what is in braces, which is the key.
fn slot(key: &CacheKey) -> usize {
    let hash = crc16::State::<crc16::XMODEM>::calculate(key.to_string().as_bytes());
    usize::from(hash) % SLOTS
}

#[cfg(test)]
mod tests {
    use redis::cluster_routing::Slot;

    use super::*;
    use crate::key::KeyParts;
    use crate::remote::names;

    fn key(n: u64) -> CacheKey {
        CacheKey::new(&KeyParts {
            code: &n.to_le_bytes(),
            ..KeyParts::default()
        })
    }

    #[test]
    fn slots_are_those_of_the_names() {
        for key in (0..100).map(key) {
            let wanted = Slot::for_key(names::answer(&key));
            assert_eq!(Slot::new(slot(&key) as u16), Some(wanted));
        }
    }

    #[test]
    fn every_part_has_keys_and_a_single_server_is_one() {
        let cooldown = Duration::from_secs(1);
        let (cluster, single) = (Parts::new(true, cooldown), Parts::new(false, cooldown));
        let now = std::time::Instant::now();
        for key in (0..1000).map(key) {
            for _ in 0..5 {
                cluster.of(&key).record(false, now);
            }
        }
        assert!(cluster.none_is_asked());
        assert!(single.all_are_asked());
        for key in (0..5).map(key) {
            single.of(&key).record(false, now);
        }
        assert!(single.none_is_asked());
    }
}
