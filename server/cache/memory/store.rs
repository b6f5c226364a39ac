//! Values by name, in as many shards as there are entries for.

use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::adaptive::Adaptive;
use super::name::Name;
use super::order::{Order, Policy};
use super::shard::{Bounds, Cause, Found, Shard, Terms, Usage};

/// Entries of a shard, where there are so many: few enough that setting a whole queue right takes less than a
/// millisecond.
const SHARD_ENTRIES: u64 = 1024;
/// Of the largest values, a shard has room for this many at least, so that splitting the bytes loses little room.
const SHARD_VALUES: u64 = 8;
/// More do not help.
const MAX_SHARDS: u64 = 64;

/// How large a store may grow, and who makes room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreLimits {
    /// Entries at most.
    pub entries: u64,
    /// Bytes of their values at most.
    pub bytes: u64,
    /// Bytes of the largest value that is put.
    pub value_bytes: u64,
    /// Who makes room.
    pub policy: Policy,
}

/// What a store holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StoreUsage {
    /// Entries.
    pub entries: u64,
    /// Bytes of their values.
    pub bytes: u64,
    /// Entries that left, by [`Cause`] in the order of [`Cause::ALL`].
    pub evictions: [u64; Cause::ALL.len()],
}

/// Values by name. Time is an argument: nanoseconds of a clock of the caller's.
#[derive(Debug)]
pub struct Store<V> {
    shards: Box<[Padded<V>]>,
    policy: Policy,
    adaptive: Option<Adaptive>,
}

/// Two lines of a processor's cache, which are fetched in pairs: shards do not slow one another down.
#[derive(Debug)]
#[repr(align(128))]
struct Padded<V>(RwLock<Shard<V>>);

impl<V: Clone> Store<V> {
    /// An empty store.
    pub fn new(limits: &StoreLimits) -> Self {
        let StoreLimits {
            entries,
            bytes,
            value_bytes,
            policy,
        } = *limits;
        let by_bytes = bytes / value_bytes.max(1).saturating_mul(SHARD_VALUES);
        let most = (entries / SHARD_ENTRIES).min(by_bytes);
        let count = 1 << most.clamp(1, MAX_SHARDS).ilog2();
        let adaptive =
            (policy == Policy::Adaptive).then(|| Adaptive::new(Bounds { entries, bytes }));
        let order = fixed(policy).unwrap_or(Order::Lru);
        // What does not divide evenly goes to the first ones, so that the bounds add up to the whole.
        let part = |whole: u64, at: u64| whole / count + u64::from(at < whole % count);
        let shards = (0..count).map(|at| {
            let bounds = Bounds {
                entries: part(entries, at),
                bytes: part(bytes, at),
            };
            Padded(RwLock::new(Shard::new(order, bounds)))
        });
        Self {
            shards: shards.collect(),
            policy,
            adaptive,
        }
    }

    /// The value of a name, which counts as used.
    pub fn get(&self, name: &Name, now: u64) -> Option<V> {
        let shard = self.shard(name);
        let found = read(shard).get(name, now);
        if let Some(adaptive) = &self.adaptive {
            adaptive.looked_up(name, || read(shard).peek(name, now), now);
        }
        match found {
            Found::Live(value) => Some(value),
            Found::Expired => {
                write(shard).sweep_name(name, now);
                None
            }
            Found::Nothing => None,
        }
    }

    /// Keeps a value in place of the one that the name had. Says whether there was room.
    pub fn put(&self, name: Name, value: V, terms: Terms, now: u64) -> bool {
        let mut shard = write(self.shard(&name));
        if let Some(adaptive) = &self.adaptive {
            adaptive.kept(&name, terms, now);
            shard.set_order(adaptive.best());
        }
        shard.insert(name, value, terms)
    }

    /// Frees what has expired, one shard after the other.
    pub fn sweep(&self, now: u64) {
        self.shards.iter().for_each(|shard| write(shard).sweep(now));
    }

    /// Takes out what a predicate picks, and says how many.
    pub fn clear(&self, picks: impl Fn(&V) -> bool) -> u64 {
        let cleared = self.shards.iter().map(|shard| write(shard).clear(&picks));
        cleared.sum()
    }

    /// What it holds, those included that have expired since the last sweep.
    pub fn usage(&self) -> StoreUsage {
        let mut sum = StoreUsage::default();
        for shard in &self.shards {
            let Usage {
                entries,
                bytes,
                evictions,
            } = read(shard).usage();
            sum.entries += entries;
            sum.bytes += bytes;
            for (sum, count) in sum.evictions.iter_mut().zip(evictions) {
                *sum += count;
            }
        }
        sum
    }

    /// The policy in force: where it is adaptive, the one that was found to be best.
    pub fn in_force(&self) -> Policy {
        let best = self.adaptive.as_ref().map(Adaptive::best);
        best.map_or(self.policy, Order::policy)
    }

    fn shard(&self, name: &Name) -> &Padded<V> {
        &self.shards[name.shard_hash() as usize & (self.shards.len() - 1)]
    }
}

/// `None` where it changes.
fn fixed(policy: Policy) -> Option<Order> {
    Order::ALL
        .into_iter()
        .find(|order| order.policy() == policy)
}

// Nothing in a shard panics half-way through a change, short of a bug that its tests would show.
fn read<V>(shard: &Padded<V>) -> RwLockReadGuard<'_, Shard<V>> {
    shard.0.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<V>(shard: &Padded<V>) -> RwLockWriteGuard<'_, Shard<V>> {
    shard.0.write().unwrap_or_else(PoisonError::into_inner)
}
