//! What each tenant has of a shard, and whose entry makes room: that of who has most.
//!
//! So a tenant that has no more than an equal share of the shard loses nothing to the others, however much these put; and
//! who is alone has all of it. Within a tenant the policy decides.

use std::collections::BTreeMap;

use super::order::Rank;
use super::queue::Queue;
use super::shard::Cause;

/// A tenant: a keyed hash of its name. Two of the same hash share a share.
pub type Owner = u64;

/// Those who have entries, with the queues of these. As many as there are entries at most.
#[derive(Debug, Default)]
pub(super) struct Shares(BTreeMap<Owner, Share>);

#[derive(Debug, Default)]
struct Share {
    entries: u64,
    bytes: u64,
    queue: Queue,
}

/// An entry, by what its queue knows it by.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    pub(super) rank: Rank,
    pub(super) born: u64,
    pub(super) place: u32,
}

impl Shares {
    /// One more. False: too many wait in its queue that are gone, and it is time to start it again.
    pub(super) fn add(&mut self, owner: Owner, bytes: u64, entry: Entry) -> bool {
        let share = self.0.entry(owner).or_default();
        share.entries += 1;
        share.bytes += bytes;
        share.queue.push(entry.rank, entry.born, entry.place);
        share.queue.len() <= 2 * share.entries as usize + 64
    }

    /// One less, of so many bytes.
    pub(super) fn take(&mut self, owner: Owner, bytes: u64) {
        if let Some(share) = self.0.get_mut(&owner) {
            share.entries -= 1;
            share.bytes -= bytes;
            if share.entries == 0 {
                self.0.remove(&owner);
            }
        }
    }

    /// The place of the entry that makes room for a new one of `owner`, of so many `bytes`: the first of who has most,
    /// the new one included. It leaves its queue. `None`: that is the owner, who has no other entry. `rank_of` as in
    /// [`Queue::pop`].
    pub(super) fn make_room(
        &mut self,
        cause: Cause,
        owner: Owner,
        bytes: u64,
        rank_of: impl Fn(u32, u64) -> Option<Rank>,
    ) -> Option<u32> {
        let has = |share: &Share| match cause {
            Cause::Bytes => share.bytes,
            _ => share.entries,
        };
        let more = if cause == Cause::Bytes { bytes } else { 1 };
        let own = self.0.get(&owner).map_or(0, has) + more;
        let most = self.0.iter().filter(|(of, _)| **of != owner);
        let most = most.map(|(_, share)| has(share)).max().unwrap_or(0);
        if let Some(share) = self.0.get_mut(&owner)
            && own >= most
        {
            return share.queue.pop(rank_of);
        }
        if own > most {
            return None;
        }
        // Of several who have most, it is as if they were one.
        let mut first: Option<(Rank, Owner)> = None;
        for (of, share) in &mut self.0 {
            if *of != owner
                && has(share) == most
                && let Some(rank) = share.queue.first(&rank_of)
                && first.is_none_or(|(least, _)| rank < least)
            {
                first = Some((rank, *of));
            }
        }
        let (_, of) = first?;
        self.0.get_mut(&of)?.queue.pop(rank_of)
    }

    /// Starts all queues again with these entries.
    pub(super) fn rebuild(&mut self, entries: impl Iterator<Item = (Owner, Entry)>) {
        for share in self.0.values_mut() {
            share.queue.clear();
        }
        for (owner, entry) in entries {
            if let Some(share) = self.0.get_mut(&owner) {
                share.queue.push(entry.rank, entry.born, entry.place);
            }
        }
    }
}
