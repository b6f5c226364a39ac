//! One part of the memory, behind one lock: a table of entries, and the queues in which they make room.

use std::sync::atomic::{AtomicU64, Ordering};

use hashbrown::HashTable;

use super::ghosts::Ghosts;
use super::name::Name;
use super::order::{Facts, Order, Rank, Used};
use super::shares::{Entry, Owner, Shares};

/// Counts of uses are halved after this many uses and insertions for each entry that there is room for. The ten is that
/// of W-TinyLFU (G. Einziger, R. Friedman, B. Manes, "TinyLFU: A Highly Efficient Cache Admission Policy", ACM TOS
/// 2017).
const FADE_AFTER: u64 = 10;

/// What a shard may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Bounds {
    pub(super) entries: u64,
    pub(super) bytes: u64,
}

/// Why an entry left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cause {
    /// There were as many entries as there may be.
    Entries,
    /// There were as many bytes as there may be.
    Bytes,
    /// Its time was up.
    Expired,
    /// Another took its name.
    Replaced,
    /// Somebody cleared it.
    Cleared,
}

impl Cause {
    /// All causes.
    pub const ALL: [Self; 5] = [
        Self::Entries,
        Self::Bytes,
        Self::Expired,
        Self::Replaced,
        Self::Cleared,
    ];

    /// The name in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Entries => "entries",
            Self::Bytes => "bytes",
            Self::Expired => "expired",
            Self::Replaced => "replaced",
            Self::Cleared => "cleared",
        }
    }
}

/// What a shard holds, and how many left by each cause.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Usage {
    pub(super) entries: u64,
    pub(super) bytes: u64,
    pub(super) evictions: [u64; Cause::ALL.len()],
}

/// Entries by name.
#[derive(Debug)]
pub(super) struct Shard<V> {
    places: HashTable<u32>,
    /// What a look-up reads.
    slots: Vec<Option<Slot<V>>>,
    /// What it need not read, by the same place.
    facts: Vec<Facts>,
    free: Vec<u32>,
    shares: Shares,
    ghosts: Ghosts,
    order: Order,
    bounds: Bounds,
    usage: Usage,
    /// Goes up with each use and insertion.
    tick: AtomicU64,
    faded: u64,
}

/// With a value the size of a pointer, one line of a processor's cache.
#[derive(Debug)]
#[repr(align(64))]
struct Slot<V> {
    name: Name,
    expires: u64,
    used: Used,
    value: V,
}

/// On what terms a value is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// The tenant whose it is.
    pub owner: Owner,
    /// What it takes.
    pub bytes: u64,
    /// When it expires, in nanoseconds of the cache's clock.
    pub expires: u64,
}

/// What a look-up found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found<V> {
    /// It is there.
    Live(V),
    /// It is to be [swept](Shard::sweep_name) out.
    Expired,
    Nothing,
}

impl<V: Clone> Shard<V> {
    pub(super) fn new(order: Order, bounds: Bounds) -> Self {
        Self {
            places: HashTable::new(),
            slots: Vec::new(),
            facts: Vec::new(),
            free: Vec::new(),
            shares: Shares::default(),
            ghosts: Ghosts::default(),
            order,
            bounds,
            usage: Usage::default(),
            tick: AtomicU64::new(0),
            faded: 0,
        }
    }

    /// The value of a name, which counts as used. `now` in nanoseconds of the cache's clock.
    pub(super) fn get(&self, name: &Name, now: u64) -> Found<V> {
        let Some((_, slot)) = self.find(name) else {
            return Found::Nothing;
        };
        if slot.expires <= now {
            return Found::Expired;
        }
        slot.used.touch(self.tick.fetch_add(1, Ordering::Relaxed));
        Found::Live(slot.value.clone())
    }

    /// On what terms a key's value is kept, unless it has expired. It does not count as used.
    pub(super) fn peek(&self, name: &Name, now: u64) -> Option<Terms> {
        let (place, slot) = self.find(name)?;
        let Facts { bytes, owner, .. } = self.facts[place as usize];
        let expires = slot.expires;
        (expires > now).then_some(Terms {
            owner,
            bytes,
            expires,
        })
    }

    /// Keeps a value, after making room for it; not if it alone is larger than the bound, or than what its owner may take
    /// from others. Says whether it did.
    pub(super) fn insert(&mut self, name: Name, value: V, terms: Terms) -> bool {
        let Terms {
            owner,
            bytes,
            expires,
        } = terms;
        self.remove(&name, Cause::Replaced);
        if bytes > self.bounds.bytes || self.bounds.entries == 0 {
            return false;
        }
        self.fade();
        while self.usage.entries >= self.bounds.entries {
            if !self.evict(Cause::Entries, owner, bytes) {
                return false;
            }
        }
        while self.usage.bytes + bytes > self.bounds.bytes {
            if !self.evict(Cause::Bytes, owner, bytes) {
                return false;
            }
        }
        let tick = self.tick.get_mut();
        let facts = Facts {
            born: *tick,
            bytes,
            owner,
        };
        let used = Used::new(*tick, self.ghosts.recall(name.table_hash()));
        *tick += 1;
        let rank = self.order.rank(&used, expires, &facts);
        let slot = Some(Slot {
            name,
            expires,
            used,
            value,
        });
        let place = if let Some(place) = self.free.pop() {
            self.slots[place as usize] = slot;
            self.facts[place as usize] = facts;
            place
        } else {
            self.slots.push(slot);
            self.facts.push(facts);
            (self.slots.len() - 1) as u32
        };
        let slots = &self.slots;
        self.places
            .insert_unique(name.table_hash(), place, |place| {
                slots[*place as usize]
                    .as_ref()
                    .map_or(0, |slot| slot.name.table_hash())
            });
        self.usage.entries += 1;
        self.usage.bytes += bytes;
        let born = facts.born;
        // Those that left otherwise than by making room wait in the queue for their turn: not too many of them.
        if !(self.shares).add(owner, bytes, Entry { rank, born, place }) {
            self.requeue();
        }
        true
    }

    /// Entries make room in another order from now on.
    pub(super) fn set_order(&mut self, order: Order) {
        if self.order != order {
            self.order = order;
            self.requeue();
        }
    }

    /// Takes the entry of a key out if its time is up.
    pub(super) fn sweep_name(&mut self, name: &Name, now: u64) {
        if self.find(name).is_some_and(|(_, slot)| slot.expires <= now) {
            self.remove(name, Cause::Expired);
        }
    }

    /// Takes out all entries whose time is up.
    pub(super) fn sweep(&mut self, now: u64) {
        self.remove_where(Cause::Expired, |slot| slot.expires <= now);
    }

    /// Takes out what a predicate picks, and says how many.
    pub(super) fn clear(&mut self, picks: impl Fn(&V) -> bool) -> u64 {
        self.remove_where(Cause::Cleared, |slot| picks(&slot.value))
    }

    pub(super) fn usage(&self) -> Usage {
        self.usage
    }

    fn find(&self, name: &Name) -> Option<(u32, &Slot<V>)> {
        let slot = |place: u32| self.slots[place as usize].as_ref();
        // The whole key is compared: the hash alone proves nothing.
        let same = |place: &u32| slot(*place).is_some_and(|slot| slot.name == *name);
        let place = *self.places.find(name.table_hash(), same)?;
        Some((place, slot(place)?))
    }

    fn remove_where(&mut self, cause: Cause, picks: impl Fn(&Slot<V>) -> bool) -> u64 {
        let picked: Vec<Name> = (self.slots.iter().flatten())
            .filter(|slot| picks(slot))
            .map(|slot| slot.name)
            .collect();
        for name in &picked {
            self.remove(name, cause);
        }
        picked.len() as u64
    }

    fn remove(&mut self, name: &Name, cause: Cause) {
        let slots = &self.slots;
        let same = |place: &u32| {
            slots[*place as usize]
                .as_ref()
                .is_some_and(|slot| slot.name == *name)
        };
        if let Ok(found) = self.places.find_entry(name.table_hash(), same) {
            let (place, _) = found.remove();
            self.vacate(place, cause);
        }
    }

    /// Makes room for an entry of `owner` with so many `bytes`. False: nobody has to for that.
    fn evict(&mut self, cause: Cause, owner: Owner, bytes: u64) -> bool {
        let (slots, facts, order) = (&self.slots, &self.facts, self.order);
        let rank_of = |place: u32, born: u64| {
            let (slot, facts) = (slots[place as usize].as_ref()?, &facts[place as usize]);
            (facts.born == born).then(|| rank(order, slot, facts))
        };
        let Some(place) = (self.shares).make_room(cause, owner, bytes, rank_of) else {
            return false;
        };
        let slot = self.slots[place as usize].as_ref().expect("it is alive");
        let (name, times) = (slot.name, slot.used.times());
        (self.ghosts).remember(name.table_hash(), times, self.slots.len());
        let found = self.places.find_entry(name.table_hash(), |p| *p == place);
        found.expect("every entry has a key").remove();
        self.vacate(place, cause);
        true
    }

    fn vacate(&mut self, place: u32, cause: Cause) {
        self.slots[place as usize] = None;
        self.free.push(place);
        let Facts { bytes, owner, .. } = self.facts[place as usize];
        self.shares.take(owner, bytes);
        self.usage.entries -= 1;
        self.usage.bytes -= bytes;
        self.usage.evictions[cause as usize] += 1;
    }

    fn fade(&mut self) {
        let tick = *self.tick.get_mut();
        if tick - self.faded < FADE_AFTER.saturating_mul(self.bounds.entries) {
            return;
        }
        self.faded = tick;
        for slot in self.slots.iter_mut().flatten() {
            slot.used.fade();
        }
        self.ghosts.fade();
        if self.order == Order::Lfu {
            self.requeue();
        }
    }

    fn requeue(&mut self) {
        let order = self.order;
        let entries =
            (self.slots.iter().zip(&self.facts).zip(0..)).filter_map(|((slot, facts), place)| {
                let rank = rank(order, slot.as_ref()?, facts);
                let born = facts.born;
                Some((facts.owner, Entry { rank, born, place }))
            });
        self.shares.rebuild(entries);
    }
}

fn rank<V>(order: Order, slot: &Slot<V>, facts: &Facts) -> Rank {
    order.rank(&slot.used, slot.expires, facts)
}
