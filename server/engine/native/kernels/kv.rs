//! Where keys and values lie, and how a step's new ones get there.
//!
//! Per layer, block and KV head, keys are stored transposed, `[head_dim][tokens]`, so that the scores of 16 tokens are one
//! register and need no sum across lanes, and values as `[tokens][head_dim]`. Tokens (of keys) and head_dim (of values)
//! are padded to 16.

use super::Compute;
use super::lanes::LANES;
use super::matrix::Matrix;
use super::rope::Rope;
use crate::engine::native::buffer::Buffer;
use crate::engine::{BlockId, EngineError};

/// Rows from which on the threads share the writing.
const PARALLEL_ROWS: usize = 16;

/// Sizes of the pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KvShape {
    /// Layers of the model.
    pub layers: usize,
    /// Blocks in the pool.
    pub blocks: usize,
    /// Tokens in a block.
    pub block_tokens: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
}

impl KvShape {
    /// Tokens in a block of keys, with padding.
    pub(super) fn padded_tokens(&self) -> usize {
        self.block_tokens.next_multiple_of(LANES)
    }

    /// Width of a head of values, with padding.
    pub(super) fn padded_dim(&self) -> usize {
        self.head_dim.next_multiple_of(LANES)
    }

    fn key_len(&self) -> usize {
        self.head_dim * self.padded_tokens()
    }

    fn value_len(&self) -> usize {
        self.block_tokens * self.padded_dim()
    }

    /// Bytes of a pool of this shape; `None`: more than there are numbers for.
    pub fn pool_bytes(&self) -> Option<u64> {
        let heads = self
            .layers
            .checked_mul(self.blocks)?
            .checked_mul(self.kv_heads)?;
        let floats = heads.checked_mul(self.key_len() + self.value_len())?;
        floats.checked_mul(size_of::<f32>())?.try_into().ok()
    }

    fn index(&self, layer: usize, block: BlockId, head: usize) -> usize {
        assert!(layer < self.layers && (block as usize) < self.blocks && head < self.kv_heads);
        (layer * self.blocks + block as usize) * self.kv_heads + head
    }
}

/// The pool of keys and values of all sequences. Allocated, and resident, from the start.
#[derive(Debug)]
pub struct KvPool {
    shape: KvShape,
    keys: Buffer,
    values: Buffer,
}

/// Where a row's key and value go.
#[derive(Debug, Clone, Copy)]
pub struct RowSlot {
    /// Position in its sequence.
    pub position: usize,
    /// Block of the pool.
    pub block: BlockId,
    /// Token within the block.
    pub slot: usize,
}

impl KvPool {
    /// A pool of zeros.
    ///
    /// # Errors
    /// When there is not enough memory.
    pub fn new(shape: KvShape) -> Result<Self, EngineError> {
        // The system promises more than it has, and ends who takes it at its word; so it is asked for what it has.
        let available = crate::memory::available_bytes().unwrap_or(u64::MAX);
        let needed = shape.pool_bytes().filter(|needed| *needed <= available);
        if needed.is_none() {
            return Err(EngineError::OutOfMemory(format!(
                "a KV cache of {} tokens takes {} MB, and {} MB are available; lower --kv-cache-tokens",
                shape.blocks * shape.block_tokens,
                shape.pool_bytes().unwrap_or(u64::MAX) >> 20,
                available >> 20
            )));
        }
        let heads = shape.layers * shape.blocks * shape.kv_heads;
        let mut pool = Self {
            keys: Buffer::zeroed(heads * shape.key_len(), "the cache of keys")?,
            values: Buffer::zeroed(heads * shape.value_len(), "the cache of values")?,
            shape,
        };
        // Touched now: memory that is not there must show at the start, not under load.
        pool.keys.as_mut_slice().fill(0.0);
        pool.values.as_mut_slice().fill(0.0);
        Ok(pool)
    }

    /// Its sizes.
    pub fn shape(&self) -> &KvShape {
        &self.shape
    }

    /// Size in bytes.
    pub fn bytes(&self) -> u64 {
        self.keys.bytes() + self.values.bytes()
    }

    /// Keys of a block, `[head_dim][padded tokens]`.
    pub(super) fn keys(&self, layer: usize, block: BlockId, head: usize) -> &[f32] {
        let len = self.shape.key_len();
        &self.keys.as_slice()[self.shape.index(layer, block, head) * len..][..len]
    }

    /// Values of a block, `[tokens][padded dim]`.
    pub(super) fn values(&self, layer: usize, block: BlockId, head: usize) -> &[f32] {
        let len = self.shape.value_len();
        &self.values.as_slice()[self.shape.index(layer, block, head) * len..][..len]
    }

    /// Writes the rows' keys, rotated to their positions, and values into their slots.
    ///
    /// `qkv` has keys from column `key` on and values from column `value` on, head after head.
    ///
    /// # Panics
    /// If a slot or a column is out of range.
    pub fn write(
        &mut self,
        compute: &Compute,
        layer: usize,
        slots: &[RowSlot],
        qkv: Matrix<'_>,
        (key, value): (usize, usize),
        rope: &Rope,
    ) {
        let shape = self.shape;
        let (dim, tokens, padded) = (shape.head_dim, shape.padded_tokens(), shape.padded_dim());
        let keys = Heads(self.keys.as_mut_slice().as_mut_ptr());
        let values = Heads(self.values.as_mut_slice().as_mut_ptr());
        let head = |head: usize| {
            for (row, at) in slots.iter().enumerate() {
                assert!(at.slot < shape.block_tokens);
                let index = shape.index(layer, at.block, head);
                let row = qkv.row(row);
                // SAFETY: `index` is checked, so both slices lie in the pool. They belong to one head, and only one
                // task writes to a head, whatever blocks the slots name.
                let (keys, values) = unsafe {
                    (
                        keys.part(index, shape.key_len()),
                        values.part(index, shape.value_len()),
                    )
                };
                rope.rotate(at.position, &row[key + head * dim..][..dim], |d, x| {
                    keys[d * tokens + at.slot] = x;
                });
                values[at.slot * padded..][..dim]
                    .copy_from_slice(&row[value + head * dim..][..dim]);
            }
        };
        if slots.len() < PARALLEL_ROWS {
            (0..shape.kv_heads).for_each(head);
        } else {
            compute.pool.run(shape.kv_heads, &|task, _| head(task));
        }
    }
}

/// The start of a pool that tasks write to, each to its own heads.
struct Heads(*mut f32);

// SAFETY: see `part`, the only way to the floats.
unsafe impl Sync for Heads {}

impl Heads {
    /// # Safety
    /// Floats `index * len..(index + 1) * len` are in the pool and not otherwise in use.
    #[allow(clippy::mut_from_ref)]
    unsafe fn part(&self, index: usize, len: usize) -> &mut [f32] {
        // SAFETY: the caller's word.
        unsafe { std::slice::from_raw_parts_mut(self.0.add(index * len), len) }
    }
}
