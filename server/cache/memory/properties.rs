//! The store against a plain list that does the same by looking at everything, under random operations.

use std::collections::HashMap;

use proptest::prelude::*;

use super::name::Name;
use super::order::{Order, Policy};
use super::shard::{Bounds, Cause, Found, Shard, Terms};
use super::store::{Store, StoreLimits};

/// One entry, with all that any order looks at.
#[derive(Debug, Clone)]
struct Entry {
    name: u64,
    owner: u64,
    value: u32,
    bytes: u64,
    expires: u64,
    born: u64,
    last: u64,
    times: u64,
}

/// What a shard should be.
struct Model {
    order: Order,
    bounds: Bounds,
    entries: Vec<Entry>,
    ghosts: HashMap<u64, u64>,
    tick: u64,
    faded: u64,
    evictions: [u64; 5],
}

impl Model {
    fn new(order: Order, bounds: Bounds) -> Self {
        Self {
            order,
            bounds,
            entries: Vec::new(),
            ghosts: HashMap::new(),
            tick: 0,
            faded: 0,
            evictions: [0; 5],
        }
    }

    fn take(&mut self, cause: Cause, picks: impl Fn(&Entry) -> bool) -> u64 {
        let before = self.entries.len();
        self.entries.retain(|entry| !picks(entry));
        let gone = (before - self.entries.len()) as u64;
        self.evictions[cause as usize] += gone;
        gone
    }

    fn get(&mut self, name: u64, now: u64) -> Option<u32> {
        self.take(Cause::Expired, |e| e.name == name && e.expires <= now);
        let entry = self.entries.iter_mut().find(|e| e.name == name)?;
        (entry.last, entry.times) = (self.tick, entry.times + 1);
        self.tick += 1;
        Some(entry.value)
    }

    fn bytes(&self) -> u64 {
        self.entries.iter().map(|e| e.bytes).sum()
    }

    /// What an owner has of what is scarce.
    fn has(&self, owner: u64, cause: Cause) -> u64 {
        let own = self.entries.iter().filter(|e| e.owner == owner);
        match cause {
            Cause::Bytes => own.map(|e| e.bytes).sum(),
            _ => own.count() as u64,
        }
    }

    /// Who has most makes room, the new entry included; of several others the one whose entry goes first.
    fn evict(&mut self, cause: Cause, owner: u64, bytes: u64) -> bool {
        let more = if cause == Cause::Bytes { bytes } else { 1 };
        let own = self.has(owner, cause) + more;
        let others = self.entries.iter().filter(|e| e.owner != owner);
        let most = others.map(|e| self.has(e.owner, cause)).max().unwrap_or(0);
        let pays = |e: &Entry| match own >= most {
            true => e.owner == owner,
            false => e.owner != owner && self.has(e.owner, cause) == most,
        };
        let (active, whole) = (
            self.active(owner),
            match cause {
                Cause::Bytes => self.bounds.bytes,
                _ => self.bounds.entries,
            },
        );
        let order = self.order;
        let rank = |e: &Entry| match order {
            Order::Lru => (e.last, 0),
            Order::Lfu => (e.times, e.last),
            Order::Fifo => (e.born, 0),
            Order::Size => (u64::MAX - e.bytes, e.last),
            Order::Ttl => (e.expires, e.last),
        };
        let paying: Vec<&Entry> = self.entries.iter().filter(|e| pays(e)).collect();
        let victim = if paying.is_empty() && own == most {
            // The owner has nothing yet: as many as others have, it may have, too.
            let others = self
                .entries
                .iter()
                .filter(|e| self.has(e.owner, cause) == most);
            others.min_by_key(|e| rank(e))
        } else {
            paying.into_iter().min_by_key(|e| rank(e))
        };
        let Some(victim) = victim else {
            return false;
        };
        assert!(
            victim.owner == owner || self.has(victim.owner, cause) * active > whole,
            "nobody loses an equal share to another"
        );
        let (name, times) = (victim.name, victim.times);
        self.ghosts.insert(name, times);
        self.take(cause, |e| e.name == name);
        true
    }

    /// Tenants with entries, with the one that is to have one.
    fn active(&self, owner: u64) -> u64 {
        let owners = self.entries.iter().map(|e| e.owner).chain([owner]);
        owners.collect::<std::collections::HashSet<_>>().len() as u64
    }

    fn put(&mut self, name: u64, value: u32, terms: Terms) -> bool {
        let Terms {
            owner,
            bytes,
            expires,
        } = terms;
        self.take(Cause::Replaced, |e| e.name == name);
        if bytes > self.bounds.bytes {
            return false;
        }
        if self.tick - self.faded >= 10 * self.bounds.entries {
            self.faded = self.tick;
            self.entries.iter_mut().for_each(|e| e.times /= 2);
            self.ghosts.values_mut().for_each(|times| *times /= 2);
        }
        while self.entries.len() as u64 >= self.bounds.entries {
            if !self.evict(Cause::Entries, owner, bytes) {
                return false;
            }
        }
        while self.bytes() + bytes > self.bounds.bytes {
            if !self.evict(Cause::Bytes, owner, bytes) {
                return false;
            }
        }
        self.entries.push(Entry {
            name,
            owner,
            value,
            bytes,
            expires,
            born: self.tick,
            last: self.tick,
            times: 1 + self.ghosts.remove(&name).unwrap_or(0),
        });
        self.tick += 1;
        true
    }
}

#[derive(Debug, Clone)]
enum Step {
    Get(u64),
    Put { name: u64, bytes: u64, lives: u64 },
    Pass(u64),
    Sweep,
    ClearOdd,
    Order(Order),
}

fn step() -> impl Strategy<Value = Step> {
    let name = || 0..12u64;
    prop_oneof![
        8 => name().prop_map(Step::Get),
        6 => (name(), 0..40u64, 1..60u64)
            .prop_map(|(name, bytes, lives)| Step::Put { name, bytes, lives }),
        2 => (0..20u64).prop_map(Step::Pass),
        1 => Just(Step::Sweep),
        1 => Just(Step::ClearOdd),
        1 => prop::sample::select(Order::ALL.to_vec()).prop_map(Step::Order),
    ]
}

/// All in the same place of a table, so that only the whole name tells them apart; but not in the ghosts', which may
/// mistake one for the other.
fn named(n: u64) -> Name {
    let mut bytes = [7; 32];
    bytes[..8].copy_from_slice(&(n | n << 32).to_le_bytes());
    Name(bytes)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3_000))]

    #[test]
    fn a_shard_does_what_a_plain_list_does(
        order in prop::sample::select(Order::ALL.to_vec()),
        entries in 1..7u64,
        bytes in 1..120u64,
        owners in 1..4u64,
        steps in prop::collection::vec(step(), 1..150),
    ) {
        let bounds = Bounds { entries, bytes };
        let mut shard = Shard::new(order, bounds);
        let mut model = Model::new(order, bounds);
        let (mut now, mut value) = (0, 0);
        for step in steps {
            match step {
                Step::Get(name) => {
                    let found = match shard.get(&named(name), now) {
                        Found::Live(value) => Some(value),
                        Found::Expired => {
                            shard.sweep_name(&named(name), now);
                            None
                        }
                        Found::Nothing => None,
                    };
                    prop_assert_eq!(found, model.get(name, now));
                }
                Step::Put { name, bytes, lives } => {
                    value += 1;
                    let terms = Terms { owner: name % owners, bytes, expires: now + lives };
                    let kept = shard.insert(named(name), value, terms);
                    prop_assert_eq!(kept, model.put(name, value, terms));
                }
                Step::Pass(time) => now += time,
                Step::Sweep => {
                    shard.sweep(now);
                    model.take(Cause::Expired, |e| e.expires <= now);
                }
                Step::ClearOdd => {
                    let cleared = shard.clear(|value| value % 2 == 1);
                    prop_assert_eq!(cleared, model.take(Cause::Cleared, |e| e.value % 2 == 1));
                }
                Step::Order(order) => {
                    shard.set_order(order);
                    model.order = order;
                }
            }
            let usage = shard.usage();
            prop_assert!(usage.entries <= entries && usage.bytes <= bytes);
            prop_assert_eq!(usage.entries, model.entries.len() as u64);
            prop_assert_eq!(usage.bytes, model.bytes());
            prop_assert_eq!(usage.evictions, model.evictions);
            for entry in &model.entries {
                let Entry { owner, bytes, expires, .. } = *entry;
                let there = (expires > now).then_some(Terms { owner, bytes, expires });
                prop_assert_eq!(shard.peek(&named(entry.name), now), there);
            }
        }
    }

    #[test]
    fn a_store_keeps_its_bounds_whatever_its_policy_and_number_of_shards(
        policy in prop::sample::select(Policy::ALL.to_vec()),
        entries in prop_oneof![1..9u64, 2_000..9_000u64],
        bytes in 200..400_000u64,
        seed in any::<u64>(),
    ) {
        let limits = StoreLimits { entries, bytes, value_bytes: 200, policy };
        let store = Store::new(&limits);
        let mut held = HashMap::new();
        for n in 0..6_000u64 {
            let name = blake3::hash(&(seed ^ (n * n % 4_001)).to_le_bytes());
            let (name, size) = (Name(*name.as_bytes()), n % 201);
            match store.get(&name, n) {
                Some((value, expires)) => {
                    prop_assert_eq!(held[&name.0], value);
                    prop_assert!(expires > n);
                }
                None => {
                    let expires = n + 1 + n % 3_000;
                    held.insert(name.0, n);
                    let terms = Terms { owner: 0, bytes: size, expires };
                    prop_assert!(store.put(name, (n, expires), terms, n));
                }
            }
            let usage = store.usage();
            prop_assert!(usage.entries <= entries && usage.bytes <= bytes);
        }
        store.clear(|_| true);
        let usage = store.usage();
        prop_assert_eq!((usage.entries, usage.bytes), (0, 0));
    }
}

fn adaptive(entries: u64) -> Store<()> {
    Store::new(&StoreLimits {
        entries,
        bytes: u64::MAX,
        value_bytes: 1,
        policy: Policy::Adaptive,
    })
}

fn ask(store: &Store<()>, n: u64) {
    let name = Name(*blake3::hash(&n.to_le_bytes()).as_bytes());
    if store.get(&name, 0).is_none() {
        let terms = Terms {
            owner: 0,
            bytes: 1,
            expires: u64::MAX,
        };
        store.put(name, (), terms, 0);
    }
}

#[test]
fn adaptive_takes_what_has_the_most_hits_and_changes_with_the_times() {
    let store = adaptive(1_000);
    assert_eq!(store.in_force(), Policy::Lru);
    // Some are asked for again and again, among a stream of others that never return: uses tell them, recency does not.
    for n in 0..60_000 {
        ask(&store, n % 900);
        ask(&store, 1_000_000 + 2 * n);
        ask(&store, 1_000_001 + 2 * n);
    }
    assert_eq!(store.in_force(), Policy::Lfu);
    // Some are asked for a few times soon after they came, and then no more: those used often are of the past.
    for n in 5_000_000..5_200_000 {
        ask(&store, n);
        if n % 10 == 0 {
            for ago in [600, 1_200, 1_800] {
                ask(&store, n - ago);
            }
        }
    }
    assert_eq!(store.in_force(), Policy::Lru);
}
