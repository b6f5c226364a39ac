//! The pool of keys and values, in blocks, allocated once.

use tch::{Device, Kind, Tensor};

use super::batch::Batch;
use crate::engine::EngineError;

/// Keys and values of all layers.
#[derive(Debug)]
pub(super) struct KvCache {
    layers: Vec<LayerCache>,
}

/// One layer's share of the pool.
///
/// Both tensors are `[blocks, block_tokens, kv_heads, head_dim]`: a token's heads lie together, so that a step writes each
/// token as one row, and a block is one row of an `index_select`.
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
    fn of_layer(self) -> [i64; 4] {
        [self.blocks, self.block_tokens, self.kv_heads, self.head_dim].map(|n| n as i64)
    }

    /// Bytes of the whole pool; `None` if they cannot be counted in 64 bits, let alone allocated.
    pub(super) fn bytes(self, kind: Kind) -> Option<u64> {
        let Self {
            layers,
            blocks,
            block_tokens,
            kv_heads,
            head_dim,
        } = self;
        [
            2,
            layers,
            blocks,
            block_tokens,
            kv_heads,
            head_dim,
            kind.elt_size_in_bytes(),
        ]
        .into_iter()
        .try_fold(1, |bytes: u64, n| bytes.checked_mul(n as u64))
        .filter(|&bytes| i64::try_from(bytes).is_ok())
    }
}

impl KvCache {
    /// A pool of zeros: every page of it is there before the first request.
    pub(super) fn new(shape: KvShape, kind: Kind, device: Device) -> Result<Self, EngineError> {
        let zeros = || Tensor::f_zeros(shape.of_layer(), (kind, device));
        let layers = (0..shape.layers)
            .map(|_| {
                Ok(LayerCache {
                    keys: zeros()?,
                    values: zeros()?,
                })
            })
            .collect::<Result<_, EngineError>>()?;
        Ok(Self { layers })
    }

    pub(super) fn layer(&mut self, layer: usize) -> &mut LayerCache {
        &mut self.layers[layer]
    }
}

impl LayerCache {
    /// Stores the keys and values of the batch's rows, each `[rows, kv_heads, head_dim]`.
    ///
    /// Blocks that are entered are cleared first. Masked positions have a weight of exactly 0, but 0 times what an earlier
    /// owner of the block may have left there, such as an infinity in fp16, would be NaN.
    pub(super) fn write(
        &mut self,
        batch: &Batch,
        keys: &Tensor,
        values: &Tensor,
    ) -> Result<(), EngineError> {
        for (pool, new) in [(&mut self.keys, keys), (&mut self.values, values)] {
            if let Some(entered) = &batch.entered_blocks {
                let _ = pool.f_index_fill_(0, entered, 0.0)?;
            }
            let [blocks, block_tokens, kv_heads, head_dim] = dims(pool)?;
            let mut slots = pool.f_view([blocks * block_tokens, kv_heads, head_dim])?;
            let _ = slots.f_index_copy_(0, &batch.slots, new)?;
        }
        Ok(())
    }

    /// The keys and values of `sequences` sequences, each from `blocks` (`[sequences * blocks of each]`), cut to `context`
    /// tokens: two tensors `[sequences, kv_heads, context, head_dim]`.
    pub(super) fn read(
        &self,
        blocks: &Tensor,
        sequences: i64,
        context: i64,
    ) -> Result<(Tensor, Tensor), EngineError> {
        let gather = |pool: &Tensor| -> Result<Tensor, EngineError> {
            let [_, _, kv_heads, head_dim] = dims(pool)?;
            let gathered = pool.f_index_select(0, blocks)?; // [sequences * blocks, block_tokens, kv_heads, head_dim]
            let whole = gathered.f_view([sequences, -1, kv_heads, head_dim])?;
            Ok(whole.f_narrow(1, 0, context)?.f_transpose(1, 2)?)
        };
        Ok((gather(&self.keys)?, gather(&self.values)?))
    }
}

fn dims(pool: &Tensor) -> Result<[i64; 4], EngineError> {
    let (blocks, block_tokens, kv_heads, head_dim) = pool.size4()?;
    Ok([blocks, block_tokens, kv_heads, head_dim])
}
