//! The KV cache's blocks: who has which, and which hold something that is worth keeping.
//!
//! A block that is full of tokens has a [`BlockHash`]: the hash of all tokens up to its end. A sequence whose prompt begins
//! with the same tokens takes the block instead of computing its own. A named block that nobody uses stays in the pool
//! until its room is needed; the one that was used least recently goes first.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use code_explainer_engine::BlockId;

/// What a full block holds: a hash of the salt and of all tokens from the sequence's first to the block's last.
///
/// With 256 bits of BLAKE3, two that are equal are taken to be of the same tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BlockHash([u8; 32]);

/// The blocks of a KV pool. Clones share them.
#[derive(Debug, Clone)]
pub struct BlockPool {
    state: Arc<Mutex<State>>,
    total: usize,
    block_tokens: usize,
}

/// Blocks of one sequence; dropping them gives them back.
#[derive(Debug)]
pub struct Blocks {
    ids: Vec<BlockId>,
    pool: BlockPool,
}

/// A block is free (no user, no name), in use (users), or idle (no user, but a name).
#[derive(Debug)]
struct State {
    free: Vec<BlockId>,
    slots: Vec<Slot>,
    by_name: HashMap<BlockHash, BlockId>,
    /// Idle blocks by when they were last used.
    idle: BTreeMap<u64, BlockId>,
    clock: u64,
    /// Idle blocks whose room was needed.
    evicted: usize,
}

#[derive(Debug, Clone, Default)]
struct Slot {
    users: u32,
    name: Option<BlockHash>,
    /// Its key in `State::idle`, while it is there.
    idle_since: Option<u64>,
}

impl BlockHash {
    /// Before the first block of sequences with this salt: different salts share nothing.
    pub fn root(salt: &[u8]) -> Self {
        Self(blake3::derive_key("code-explainer 2026 KV prefix", salt))
    }

    /// The name of the block that follows this one and holds `tokens`.
    pub fn then(&self, tokens: &[u32]) -> Self {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        for token in tokens {
            hasher.update(&token.to_le_bytes());
        }
        Self(hasher.finalize().into())
    }
}

impl BlockPool {
    /// A pool of `total` blocks of `block_tokens` tokens each, all free.
    pub fn new(total: usize, block_tokens: usize) -> Self {
        let state = State {
            free: (0..total as BlockId).rev().collect(),
            slots: vec![Slot::default(); total],
            by_name: HashMap::new(),
            idle: BTreeMap::new(),
            clock: 0,
            evicted: 0,
        };
        Self {
            state: Arc::new(Mutex::new(state)),
            total,
            block_tokens,
        }
    }

    /// No blocks yet, of this pool.
    pub fn empty(&self) -> Blocks {
        Blocks {
            ids: Vec::new(),
            pool: self.clone(),
        }
    }

    /// The blocks of the longest run of `names`, from the first on, that are in the pool.
    pub fn reuse(&self, names: &[BlockHash]) -> Blocks {
        let mut state = self.lock();
        let mut ids = Vec::new();
        for name in names {
            let Some(&id) = state.by_name.get(name) else {
                break;
            };
            state.take(id);
            ids.push(id);
        }
        Blocks {
            ids,
            pool: self.clone(),
        }
    }

    /// Tokens in a block.
    pub fn block_tokens(&self) -> usize {
        self.block_tokens
    }

    /// Blocks that `tokens` need.
    pub fn blocks_for(&self, tokens: usize) -> usize {
        tokens.div_ceil(self.block_tokens)
    }

    /// Tokens that the whole pool holds.
    pub fn capacity_tokens(&self) -> usize {
        self.total * self.block_tokens
    }

    /// Blocks that a sequence can get: free and idle ones.
    pub fn available(&self) -> usize {
        let state = self.lock();
        state.free.len() + state.idle.len()
    }

    /// Blocks that belong to sequences.
    pub fn used(&self) -> usize {
        self.total - self.available()
    }

    /// Blocks that belong to nobody and are kept for those to come.
    pub fn idle(&self) -> usize {
        self.lock().idle.len()
    }

    /// Blocks that were kept, and whose room was needed.
    pub fn evicted(&self) -> usize {
        self.lock().evicted
    }

    /// All blocks.
    pub fn total(&self) -> usize {
        self.total
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is whole between any two of its operations, so a panic elsewhere does not spoil it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// A block for new contents.
    fn fresh(&mut self) -> Option<BlockId> {
        let id = self.free.pop().or_else(|| {
            let (_, id) = self.idle.pop_first()?;
            self.evicted += 1;
            let slot = &mut self.slots[id as usize];
            slot.idle_since = None;
            if let Some(name) = slot.name.take() {
                self.by_name.remove(&name);
            }
            Some(id)
        })?;
        self.slots[id as usize].users = 1;
        Some(id)
    }

    /// One more user of a named block.
    fn take(&mut self, id: BlockId) {
        let slot = &mut self.slots[id as usize];
        slot.users += 1;
        if let Some(since) = slot.idle_since.take() {
            self.idle.remove(&since);
        }
    }

    fn give_back(&mut self, id: BlockId) {
        let slot = &mut self.slots[id as usize];
        slot.users -= 1;
        if slot.users > 0 {
            return;
        }
        if slot.name.is_some() {
            self.clock += 1;
            slot.idle_since = Some(self.clock);
            self.idle.insert(self.clock, id);
        } else {
            self.free.push(id);
        }
    }
}

impl Blocks {
    /// Where they belong.
    pub fn pool(&self) -> &BlockPool {
        &self.pool
    }

    /// The blocks in the order in which they hold the sequence.
    pub fn ids(&self) -> &[BlockId] {
        &self.ids
    }

    /// Adds blocks until there are enough for `tokens`. False, and nothing changes, if the pool has too few.
    #[must_use]
    pub fn grow(&mut self, tokens: usize) -> bool {
        let missing = self.pool.blocks_for(tokens).saturating_sub(self.ids.len());
        let mut state = self.pool.lock();
        if state.free.len() + state.idle.len() < missing {
            return false;
        }
        let fresh = (0..missing).filter_map(|_| state.fresh());
        self.ids.extend(fresh);
        true
    }

    /// Block `index` is full, and nobody will write to it any more: others may read it under this name. Where another
    /// block has the name already, that one keeps it.
    pub fn publish(&mut self, index: usize, name: BlockHash) {
        let id = self.ids[index];
        let mut state = self.pool.lock();
        if state.slots[id as usize].name.is_none() && !state.by_name.contains_key(&name) {
            state.by_name.insert(name, id);
            state.slots[id as usize].name = Some(name);
        }
    }
}

impl Drop for Blocks {
    fn drop(&mut self) {
        let mut state = self.pool.lock();
        // The last block first: it is of no use without those before it, so it is the first to go.
        for &id in self.ids.iter().rev() {
            state.give_back(id);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn names(salt: &[u8], blocks: &[[u32; 2]]) -> Vec<BlockHash> {
        let chain = blocks.iter().scan(BlockHash::root(salt), |name, tokens| {
            *name = name.then(tokens);
            Some(*name)
        });
        chain.collect()
    }

    #[test]
    fn blocks_come_back_when_they_are_dropped() {
        let pool = BlockPool::new(4, 16);
        let mut three = pool.empty();
        assert!(three.grow(33));
        assert_eq!(three.ids().len(), 3);
        assert_eq!(pool.used(), 3);
        assert!(!pool.empty().grow(17), "one block is left");
        assert_eq!(pool.used(), 3, "nothing was taken in vain");
        drop(three);
        assert_eq!(pool.used(), 0);
        let mut all = pool.empty();
        assert!(all.grow(64));
        assert_eq!(all.ids().len(), 4);
    }

    #[test]
    fn a_prefix_is_found_again_by_its_tokens_and_its_salt() {
        let pool = BlockPool::new(4, 2);
        let known = names(b"a", &[[1, 2], [3, 4], [5, 6]]);
        let mut blocks = pool.empty();
        assert!(blocks.grow(6));
        let ids = blocks.ids().to_vec();
        for (index, name) in known.iter().enumerate() {
            blocks.publish(index, *name);
        }
        let shared = pool.reuse(&names(b"a", &[[1, 2], [3, 4], [9, 9]]));
        assert_eq!(shared.ids(), &ids[..2], "while its first owner lives");
        drop((shared, blocks));
        assert_eq!((pool.used(), pool.idle()), (0, 3));
        assert_eq!(pool.reuse(&known).ids(), ids, "and after");
        assert!(pool.reuse(&names(b"b", &[[1, 2]])).ids().is_empty());
        assert!(pool.reuse(&names(b"a", &[[3, 4]])).ids().is_empty());
    }

    #[test]
    fn the_end_of_the_prefix_that_was_used_least_recently_goes_first() {
        let pool = BlockPool::new(4, 2);
        let (old, new) = (names(b"", &[[1, 1], [2, 2]]), names(b"", &[[3, 3], [4, 4]]));
        for chain in [&old, &new] {
            let mut blocks = pool.empty();
            assert!(blocks.grow(4));
            for (index, name) in chain.iter().enumerate() {
                blocks.publish(index, *name);
            }
        }
        let mut other = pool.empty();
        assert!(other.grow(1));
        assert_eq!(pool.reuse(&old).ids().len(), 1, "its second block is gone");
        assert_eq!(pool.reuse(&new).ids().len(), 2);
        assert_eq!(pool.evicted(), 1);
        assert!(other.grow(8));
        assert_eq!((pool.idle(), pool.evicted()), (0, 4));
        assert!(pool.reuse(&new).ids().is_empty());
    }

    proptest! {
        /// Growing, publishing, sharing and dropping in any order: a block has one writer, and none is lost.
        #[test]
        fn no_block_is_lost_or_handed_out_twice(
            acts in prop::collection::vec((0..4_u8, 0..6_usize, 0..3_u32), 1..80),
        ) {
            let pool = BlockPool::new(8, 2);
            let mut held: Vec<(Blocks, Vec<BlockHash>, usize)> = Vec::new();
            for (act, which, token) in acts {
                let index = which.min(held.len().saturating_sub(1));
                match (act, held.get_mut(index)) {
                    (0, _) | (_, None) => {
                        let chain = names(&[], &[[token; 2], [token; 2], [which as u32; 2]]);
                        let blocks = pool.reuse(&chain);
                        let shared = blocks.ids().len();
                        held.push((blocks, chain, shared));
                    }
                    (1, Some((blocks, ..))) => {
                        let want = (blocks.ids().len() + 1) * 2;
                        let could = pool.available() > 0;
                        prop_assert_eq!(blocks.grow(want), could);
                    }
                    (2, Some((blocks, chain, _))) => {
                        for (index, name) in chain.iter().enumerate().take(blocks.ids().len()) {
                            blocks.publish(index, *name);
                        }
                    }
                    (_, Some(_)) => drop(held.swap_remove(index)),
                }
                let mut written: Vec<BlockId> = held
                    .iter()
                    .flat_map(|(blocks, _, shared)| &blocks.ids()[*shared..])
                    .copied()
                    .collect();
                let count = written.len();
                written.sort_unstable();
                written.dedup();
                prop_assert_eq!(written.len(), count, "two sequences write to one block");
                let mut all: Vec<BlockId> = held.iter().flat_map(|h| h.0.ids()).copied().collect();
                all.sort_unstable();
                all.dedup();
                prop_assert_eq!(pool.used(), all.len());
            }
            drop(held);
            prop_assert_eq!(pool.used(), 0);
            let mut everything = pool.empty();
            prop_assert!(everything.grow(16));
        }
    }
}
