//! Whose the vectors are, and which of them makes room: the least recently used of the tenant that has most. So a tenant
//! alone may have the whole cache, and none can drive out what others have. In memory, some 20 bytes a vector; read from the
//! disk's order when the cache is opened.

use std::collections::{BTreeSet, HashMap};

/// Vectors by whose they are and when they were used last.
#[derive(Debug, Default)]
pub(super) struct Shares {
    uses: HashMap<u64, BTreeSet<u64>>,
    /// How many each has, and whose they are.
    sizes: BTreeSet<(usize, u64)>,
}

impl Shares {
    pub(super) fn insert(&mut self, owner: u64, used: u64) {
        self.change(owner, |uses| uses.insert(used));
    }

    pub(super) fn remove(&mut self, owner: u64, used: u64) {
        self.change(owner, |uses| uses.remove(&used));
    }

    /// Takes out the vector that makes room: when it was used last.
    pub(super) fn make_room(&mut self) -> Option<u64> {
        let &(_, owner) = self.sizes.last()?;
        self.change(owner, BTreeSet::pop_first)
    }

    fn change<T>(&mut self, owner: u64, change: impl FnOnce(&mut BTreeSet<u64>) -> T) -> T {
        let uses = self.uses.entry(owner).or_default();
        let before = uses.len();
        let changed = change(uses);
        let after = uses.len();
        if before != after {
            self.sizes.remove(&(before, owner));
            if after > 0 {
                self.sizes.insert((after, owner));
            }
        }
        if after == 0 {
            self.uses.remove(&owner);
        }
        changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_most_makes_room_by_its_oldest() {
        let mut shares = Shares::default();
        for (owner, used) in [(1, 5), (2, 1), (1, 3), (1, 4), (2, 2)] {
            shares.insert(owner, used);
        }
        assert_eq!(shares.make_room(), Some(3));
        shares.remove(1, 5);
        shares.remove(1, 5);
        assert_eq!(shares.make_room(), Some(1), "the other has more now");
        shares.insert(2, 2);
        let mut rest = [shares.make_room(), shares.make_room()];
        rest.sort();
        assert_eq!(rest, [Some(2), Some(4)]);
        assert_eq!(shares.make_room(), None);
        assert!(shares.uses.is_empty() && shares.sizes.is_empty());
    }
}
