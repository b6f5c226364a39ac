//! The pool of keys and values, in blocks, allocated once.

use tch::{Device, Kind, Tensor};

use super::batch::{Batch, Group};
use crate::error::Result;

/// Keys and values of all layers.
#[derive(Debug)]
pub(super) struct KvCache {
    /// `[layers, 2, blocks, block_tokens, kv_heads, head_dim]`: a token's heads lie together, so that a step writes each
    /// token as one row, and a block is one row to gather.
    pub(super) pool: Tensor,
    layers: Vec<LayerCache>,
}

/// One layer's share of the pool: views of `[blocks, block_tokens, kv_heads, head_dim]`.
#[derive(Debug)]
pub(super) struct LayerCache {
    keys: Tensor,
    values: Tensor,
}

/// Sizes of the pool.
#[derive(Debug, Clone, Copy)]
pub(super) struct KvShape {
    pub(super) layers: usize,
    pub(super) blocks: usize,
    pub(super) block_tokens: usize,
    pub(super) kv_heads: usize,
    pub(super) head_dim: usize,
}

impl KvShape {
    fn dims(self) -> [i64; 6] {
        let Self {
            layers,
            blocks,
            block_tokens,
            kv_heads,
            head_dim,
        } = self;
        [layers, 2, blocks, block_tokens, kv_heads, head_dim].map(|n| n as i64)
    }

    /// Bytes of the whole pool; `None` if they cannot be counted in 64 bits, let alone allocated.
    pub(super) fn bytes(self, kind: Kind) -> Option<u64> {
        self.dims()
            .into_iter()
            .try_fold(kind.elt_size_in_bytes() as u64, |bytes, n| {
                bytes.checked_mul(n as u64)
            })
            .filter(|&bytes| i64::try_from(bytes).is_ok())
    }
}

impl KvCache {
    /// A pool of zeros: every page of it is there before the first request.
    pub(super) fn new(shape: KvShape, kind: Kind, device: Device) -> Result<Self> {
        Self::of(Tensor::f_zeros(shape.dims(), (kind, device))?, shape.layers)
    }

    /// The cache in a pool.
    pub(super) fn of(pool: Tensor, layers: usize) -> Result<Self> {
        let layer = |layer: usize| -> Result<LayerCache> {
            let both = pool.f_select(0, layer as i64)?;
            Ok(LayerCache {
                keys: both.f_select(0, 0)?,
                values: both.f_select(0, 1)?,
            })
        };
        let layers = (0..layers).map(layer).collect::<Result<_>>()?;
        Ok(Self { pool, layers })
    }

    pub(super) fn layer(&self, layer: usize) -> &LayerCache {
        &self.layers[layer]
    }
}

impl LayerCache {
    /// Stores the keys and values of the batch's rows, each `[rows, kv_heads, head_dim]`.
    ///
    /// Blocks that are entered are cleared first. Masked positions have a weight of exactly 0, but 0 times what an earlier
    /// owner of the block may have left there, such as an infinity in fp16, would be NaN.
    pub(super) fn write(&self, batch: &Batch, keys: &Tensor, values: &Tensor) -> Result<()> {
        for (pool, new) in [(&self.keys, keys), (&self.values, values)] {
            // Another handle on the pool's memory, because writing needs one of its own.
            let _ = pool.shallow_clone().f_index_fill_(0, &batch.entered, 0.0)?;
            let mut slots = pool.f_flatten(0, 1)?;
            let _ = slots.f_index_copy_(0, &batch.slots, new)?;
        }
        Ok(())
    }

    /// The keys and values of a group's sequences: two tensors `[sequences, kv_heads, context, head_dim]`, where the
    /// context is that of whole blocks.
    pub(super) fn read(&self, group: &Group, kv_heads: i64, head_dim: i64) -> Result<[Tensor; 2]> {
        let gather = |pool: &Tensor| -> Result<Tensor> {
            let blocks = pool.f_flatten(1, -1)?;
            Ok(
                gather_rows(&blocks, &group.blocks)? // [sequences, blocks, block_tokens * kv_heads * head_dim]
                    .f_flatten(1, 2)?
                    .f_unflatten(1, [-1, kv_heads, head_dim])?
                    .f_transpose(1, 2)?,
            )
        };
        Ok([gather(&self.keys)?, gather(&self.values)?])
    }
}

/// Rows of a matrix by an index of any shape, `[..index, columns]`. The operator for embeddings is the one that takes
/// whole rows and keeps the shape of its index.
pub(super) fn gather_rows(matrix: &Tensor, index: &Tensor) -> Result<Tensor> {
    Ok(Tensor::f_embedding(matrix, index, -1, false, false)?)
}
