//! Level 1: answers in this process's memory, bounded by entries and by bytes, each with a time to live of its own.
//!
//! - [`order`]: the policies, as one number for each entry;
//! - [`ghosts`]: how often entries were used that have left;
//! - [`queue`]: the entries by that number, set right when something makes room and not when something is used;
//! - [`shares`]: what each tenant has, with a queue of its own; who has most makes room;
//! - [`shard`]: a table and its shares, behind one lock;
//! - [`adaptive`]: which policy has the most hits of late;
//! - [`store`]: the shards.
//!
//! A look-up takes its shard's lock shared and writes two numbers of the entry, whatever the policy. moka, quick_cache
//! and foyer have some of the policies; none has both bounds, all of the policies and the causes of evictions.

mod adaptive;
mod ghosts;
mod name;
mod order;
#[cfg(test)]
mod properties;
mod queue;
mod shard;
mod shares;
mod store;

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

pub use name::Name;
pub use order::Policy;
pub use shard::{Cause, Terms};
pub use shares::Owner;
pub use store::{Store, StoreLimits, StoreUsage};

use super::answer::CachedAnswer;
use super::key::CacheKey;
use super::selection::Selection;

/// Answers in memory.
#[derive(Debug)]
pub(super) struct Memory {
    answers: Store<Kept>,
    /// The store's clock begins here.
    epoch: Instant,
}

#[derive(Debug, Clone)]
struct Kept {
    /// Its tags say what selections it is in.
    key: CacheKey,
    answer: Arc<CachedAnswer>,
}

impl Memory {
    pub(super) fn new(limits: &StoreLimits) -> Self {
        Self {
            answers: Store::new(limits),
            epoch: Instant::now(),
        }
    }

    /// The answer of a key, which counts as used.
    pub(super) fn get(&self, key: &CacheKey) -> Option<Arc<CachedAnswer>> {
        let kept = self.answers.get(&name(key), self.now())?;
        Some(kept.answer)
    }

    /// Keeps an answer for `time_to_live`, in place of the one that the key had. Says whether there was room for it.
    pub(super) fn put(
        &self,
        key: CacheKey,
        answer: Arc<CachedAnswer>,
        time_to_live: Duration,
    ) -> bool {
        let (now, bytes) = (self.now(), answer.size_bytes() as u64);
        let terms = Terms {
            owner: key.tags().owner(),
            bytes,
            expires: now.saturating_add(nanoseconds(time_to_live)),
        };
        let kept = Kept { key, answer };
        self.answers.put(name(&key), kept, terms, now)
    }

    /// Removes a selection and says how many answers.
    pub(super) fn clear(&self, selection: &Selection) -> u64 {
        self.answers.clear(|kept| selection.contains(&kept.key))
    }

    /// Frees what has expired.
    pub(super) fn sweep(&self) {
        self.answers.sweep(self.now());
    }

    /// What there is, after freeing what has expired.
    pub(super) fn usage(&self) -> StoreUsage {
        self.sweep();
        self.answers.usage()
    }

    /// Entries that left, by cause in the order of [`Cause::ALL`].
    pub(super) fn evictions(&self) -> [u64; Cause::ALL.len()] {
        self.answers.usage().evictions
    }

    /// The policy in force.
    pub(super) fn in_force(&self) -> Policy {
        self.answers.in_force()
    }

    fn now(&self) -> u64 {
        nanoseconds(self.epoch.elapsed())
    }
}

fn name(key: &CacheKey) -> Name {
    Name(*key.as_bytes())
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
