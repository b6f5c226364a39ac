//! Entries in the order in which they make room.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;

use super::order::Rank;

/// A heap whose ranks are set right late: the use of an entry writes nothing here. A rank that is kept is never larger
/// than the entry's own, so the top is the smallest as soon as it is up to date. Every use costs one sift at most, and
/// that when something makes room.
#[derive(Debug, Default)]
pub(super) struct Queue(BinaryHeap<Reverse<Waiting>>);

/// An entry by its place, and by its born: a place is used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Waiting {
    rank: Rank,
    born: u64,
    place: u32,
}

impl Queue {
    pub(super) fn push(&mut self, rank: Rank, born: u64, place: u32) {
        self.0.push(Reverse(Waiting { rank, born, place }));
    }

    /// The smallest rank. `rank_of` gives the rank that the entry of a place and born has now; `None`: it is gone.
    pub(super) fn first(&mut self, rank_of: impl Fn(u32, u64) -> Option<Rank>) -> Option<Rank> {
        loop {
            let mut top = self.0.peek_mut()?;
            let Waiting { rank, born, place } = top.0;
            match rank_of(place, born) {
                None => {
                    PeekMut::pop(top);
                }
                Some(now) if now > rank => top.0.rank = now,
                Some(_) => return Some(rank),
            }
        }
    }

    /// The place of the entry with the smallest rank, which leaves.
    pub(super) fn pop(&mut self, rank_of: impl Fn(u32, u64) -> Option<Rank>) -> Option<u32> {
        self.first(rank_of)?;
        self.0.pop().map(|Reverse(waiting)| waiting.place)
    }

    /// With those that are gone.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Starts again with none.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}
