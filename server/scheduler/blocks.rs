//! The KV cache's blocks: who has which.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::engine::BlockId;

/// The free blocks of a KV pool. Clones share them.
#[derive(Debug, Clone)]
pub struct BlockPool {
    free: Arc<Mutex<Vec<BlockId>>>,
    total: usize,
    block_tokens: usize,
}

/// Blocks that belong to one sequence; dropping them gives them back.
#[derive(Debug)]
pub struct Blocks {
    ids: Vec<BlockId>,
    pool: BlockPool,
}

impl BlockPool {
    /// A pool of `total` blocks of `block_tokens` tokens each, all free.
    pub fn new(total: usize, block_tokens: usize) -> Self {
        let last_first = (0..total as BlockId).rev().collect();
        Self {
            free: Arc::new(Mutex::new(last_first)),
            total,
            block_tokens,
        }
    }

    /// Takes as many blocks as `tokens` need, or nothing if there are too few.
    pub fn allocate(&self, tokens: usize) -> Option<Blocks> {
        let needed = self.blocks_for(tokens);
        let mut free = self.lock();
        let rest = free.len().checked_sub(needed)?;
        let mut ids = free.split_off(rest);
        ids.reverse();
        Some(Blocks {
            ids,
            pool: self.clone(),
        })
    }

    /// Blocks that `tokens` need.
    pub fn blocks_for(&self, tokens: usize) -> usize {
        tokens.div_ceil(self.block_tokens)
    }

    /// Tokens that the whole pool holds.
    pub fn capacity_tokens(&self) -> usize {
        self.total * self.block_tokens
    }

    /// Blocks that belong to sequences.
    pub fn used(&self) -> usize {
        self.total - self.lock().len()
    }

    /// All blocks.
    pub fn total(&self) -> usize {
        self.total
    }

    fn lock(&self) -> MutexGuard<'_, Vec<BlockId>> {
        // The list is whole between any two of its operations, so a panic elsewhere does not spoil it.
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Blocks {
    /// The blocks in the order in which they hold the sequence.
    pub fn ids(&self) -> &[BlockId] {
        &self.ids
    }
}

impl Drop for Blocks {
    fn drop(&mut self) {
        self.pool.lock().append(&mut self.ids);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_come_back_when_they_are_dropped() {
        let pool = BlockPool::new(4, 16);
        let three = pool.allocate(33).expect("three blocks");
        assert_eq!(three.ids().len(), 3);
        assert_eq!(pool.used(), 3);
        assert!(pool.allocate(17).is_none(), "one block is left");
        drop(three);
        assert_eq!(pool.used(), 0);
        assert_eq!(pool.allocate(64).expect("all").ids().len(), 4);
    }

    #[test]
    fn a_block_has_one_owner() {
        let pool = BlockPool::new(8, 1);
        let (a, b) = (
            pool.allocate(5).expect("five"),
            pool.allocate(3).expect("three"),
        );
        let mut all: Vec<_> = a.ids().iter().chain(b.ids()).copied().collect();
        all.sort_unstable();
        assert_eq!(all, (0..8).collect::<Vec<_>>());
    }
}
