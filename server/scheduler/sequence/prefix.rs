//! A sequence's blocks: those that it takes over, those that it grows by, and those that it lets others have.

use super::Sequence;
use crate::blocks::{BlockHash, BlockPool};

impl Sequence {
    /// Whether no token of it was run since it has its blocks.
    fn is_fresh(&self) -> bool {
        let held = self.blocks.as_ref().map_or(0, |b| b.ids().len());
        self.computed == self.published * self.block_tokens() && held == self.published
    }

    fn block_tokens(&self) -> usize {
        (self.blocks.as_ref()).map_or(1, |blocks| blocks.pool().block_tokens())
    }

    /// Takes the blocks of the pool that hold the beginning of its tokens; again, as others compute more of them, until
    /// its own first step. The last token is always left, to be run for its logits.
    pub(crate) fn reuse_prefix(&mut self, pool: &BlockPool, share: bool) {
        if self.blocks.is_none() {
            self.blocks = Some(pool.empty());
        }
        if !share || !self.is_fresh() {
            return;
        }
        let held = self.published;
        let full = (self.known() - 1) / pool.block_tokens();
        if held == full {
            return;
        }
        self.name_blocks(full, pool.block_tokens());
        let found = pool.reuse(&self.names[..full]);
        if found.ids().len() > held {
            self.published = found.ids().len();
            self.computed = self.published * pool.block_tokens();
            self.blocks = Some(found);
        }
    }

    fn name_blocks(&mut self, count: usize, block_tokens: usize) {
        while self.names.len() < count {
            let at = self.names.len() * block_tokens;
            let root = || BlockHash::root(&self.job.salt);
            let before = self.names.last().copied().unwrap_or_else(root);
            let name = before.then(&self.tokens[at..at + block_tokens]);
            self.names.push(name);
        }
    }

    /// Names of the full blocks of its known tokens that it has not computed yet.
    pub(crate) fn coming(&self) -> &[BlockHash] {
        let computed = self.computed / self.block_tokens();
        self.names.get(computed..).unwrap_or(&[])
    }

    /// Blocks that it needs and does not have, to run all its known tokens and one more.
    pub(crate) fn missing_blocks(&self, pool: &BlockPool) -> usize {
        let held = self.blocks.as_ref().map_or(0, |b| b.ids().len());
        pool.blocks_for(self.known() + 1).saturating_sub(held)
    }

    /// Gets the blocks for `count` more tokens. False, and nothing changes, if there are too few.
    pub(crate) fn grow(&mut self, count: usize) -> bool {
        let tokens = self.computed + count;
        self.blocks.as_mut().is_some_and(|b| b.grow(tokens))
    }

    /// Lets others have the blocks that are full now.
    pub(super) fn publish(&mut self, share: bool) {
        let block_tokens = self.block_tokens();
        let full = self.computed / block_tokens;
        if !share || full <= self.published {
            return;
        }
        self.name_blocks(full, block_tokens);
        if let Some(blocks) = &mut self.blocks {
            for index in self.published..full {
                blocks.publish(index, self.names[index]);
            }
        }
        self.published = full;
    }
}
