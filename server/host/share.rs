//! What tenants share of something bounded, by dynamic thresholds: a tenant may take more as long as more is free than it
//! has. Alone it can have half of all, and there is always room for one who comes later. (A. Choudhury, E. Hahne, "Dynamic
//! Queue Length Thresholds for Shared-Memory Packet Switches", IEEE/ACM ToN 1998, with a factor of 1.)

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// Something of which there is so much, for tenants that are told apart by `T`.
#[derive(Debug)]
pub struct Shares<T = Arc<str>> {
    limit: usize,
    all: Arc<AtomicUsize>,
    /// Those who have a share in hand, and some who had.
    tenants: Mutex<HashMap<T, Weak<AtomicUsize>>>,
}

/// A tenant's share. Clones are the same one.
#[derive(Debug, Clone)]
pub struct Share {
    limit: usize,
    all: Arc<AtomicUsize>,
    own: Arc<AtomicUsize>,
}

/// What was taken; given back when it is dropped.
#[derive(Debug)]
pub struct Taken {
    share: Share,
    amount: usize,
}

impl<T: Eq + Hash + Clone> Shares<T> {
    /// Of so much, of which a tenant may have its share.
    pub fn new(limit: usize) -> Self {
        Self {
            limit,
            all: Arc::default(),
            tenants: Mutex::default(),
        }
    }

    /// A tenant's, to take of it without a look-up, whether there is room or not.
    pub fn of(&self, tenant: &T) -> Share {
        self.find(&mut self.lock(), tenant)
    }

    /// Takes an amount, if the tenant has room: then all of it, however much that is. `None`: it has none.
    pub fn take(&self, tenant: &T, amount: usize) -> Option<Taken> {
        // To the end, so that two that come at once do not both have the last.
        let mut tenants = self.lock();
        let share = self.find(&mut tenants, tenant);
        share.has_room().then(|| share.take(amount))
    }

    /// What all have together, for tests.
    pub fn taken(&self) -> usize {
        self.all.load(Ordering::Relaxed)
    }

    fn find(&self, tenants: &mut HashMap<T, Weak<AtomicUsize>>, tenant: &T) -> Share {
        let own = tenants.get(tenant).and_then(Weak::upgrade);
        let own = own.unwrap_or_else(|| {
            // As many are looked at as are kept, and after that at most twice as many are there.
            if tenants.len() == tenants.capacity() {
                tenants.retain(|_, own| own.strong_count() > 0);
            }
            let own = Arc::default();
            tenants.insert(tenant.clone(), Arc::downgrade(&own));
            own
        });
        Share {
            limit: self.limit,
            all: self.all.clone(),
            own,
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<T, Weak<AtomicUsize>>> {
        // Each operation leaves them whole.
        self.tenants.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Share {
    /// Whether more is free than it has.
    pub fn has_room(&self) -> bool {
        let free = self.limit.saturating_sub(self.all.load(Ordering::Relaxed));
        self.own.load(Ordering::Relaxed) < free
    }

    /// Takes an amount, also where there is no room.
    pub fn take(&self, amount: usize) -> Taken {
        self.all.fetch_add(amount, Ordering::Relaxed);
        self.own.fetch_add(amount, Ordering::Relaxed);
        Taken {
            share: self.clone(),
            amount,
        }
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.share.all.fetch_sub(self.amount, Ordering::Relaxed);
        self.share.own.fetch_sub(self.amount, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn as_many_as_may(shares: &Shares, tenant: &str) -> Vec<Taken> {
        let tenant: Arc<str> = tenant.into();
        std::iter::from_fn(|| shares.take(&tenant, 1)).collect()
    }

    #[test]
    fn there_is_always_room_for_one_who_comes_later() {
        let shares: Shares = Shares::new(100);
        let mut held = Vec::new();
        for (tenant, wanted) in [("a", 50), ("b", 25), ("c", 13), ("d", 6), ("e", 3)] {
            let got = as_many_as_may(&shares, tenant);
            assert_eq!(got.len(), wanted, "{tenant}");
            held.push(got);
        }
        // Who had most has to give back before it may have more.
        assert!(as_many_as_may(&shares, "a").is_empty());
        held.remove(0);
        assert_eq!(as_many_as_may(&shares, "a").len(), 27);
        held.clear();
        // A large one may go over its share by what it has more than one.
        let large = shares.take(&"a".into(), 17).expect("nobody else is there");
        assert_eq!(as_many_as_may(&shares, "b").len(), 42);
        drop(large);
        assert_eq!(shares.taken(), 0);
    }

    #[test]
    fn tenants_that_have_nothing_are_forgotten() {
        let shares: Shares = Shares::new(10);
        let stays = shares.of(&"stays".into());
        for i in 0..1000 {
            drop(shares.take(&i.to_string().into(), 1));
        }
        assert!(shares.lock().len() < 16);
        let taken = shares.take(&"stays".into(), 3);
        assert_eq!(stays.own.load(Ordering::Relaxed), 3);
        drop(taken);
    }
}
