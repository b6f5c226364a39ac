//! What entries are called in memory.

/// A keyed hash of 256 bits: the bytes of a [`CacheKey`](crate::CacheKey). It needs no second hash, since nobody
/// without the salt can choose it, and is compared as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Name(pub [u8; 32]);

impl Name {
    /// For the table of a shard.
    pub(super) fn table_hash(&self) -> u64 {
        self.part(0)
    }

    /// Picks the shard.
    pub(super) fn shard_hash(&self) -> u64 {
        self.part(1)
    }

    /// Picks a sample of the names.
    pub(super) fn sample_hash(&self) -> u64 {
        self.part(2)
    }

    fn part(&self, at: usize) -> u64 {
        u64::from_le_bytes(self.0.as_chunks().0[at])
    }
}
