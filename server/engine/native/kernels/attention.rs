//! Causal attention with grouped queries, straight over the blocks of the KV pool.
//!
//! For each query: the scores of its keys, each a chain of fused multiply-adds over the head's dimensions; their softmax,
//! summed in 16 lanes; the weighted sum of the values, token after token. All of it in an order that only the query's own
//! position fixes: chunks, tiles and neighbours do not change a bit. Queries of the same KV head (and of neighbouring
//! rows of a prompt) go together, so that keys and values are loaded once for all of them.

use super::Compute;
use super::attend::{HeadKv, Queries, TILE, attend};
use super::isa::dispatch;
use super::kv::KvPool;
use super::lanes::LANES;
use super::matrix::{Matrix, MatrixMut};
use super::rope::Rope;
use crate::engine::BlockId;
use crate::engine::native::buffer::Buffer;
use crate::engine::{EngineError, native::kernels::kv::KvShape};

/// Rows of one sequence at consecutive positions, few enough for one task.
#[derive(Debug, Clone, Copy)]
pub struct RowTile {
    /// First row of the batch.
    pub row: usize,
    /// Number of rows, at least one; see [`Attention::tile_rows`].
    pub rows: usize,
    /// Position of the first row.
    pub position: usize,
    /// Where the sequence's blocks start in the batch's list.
    pub blocks: usize,
}

/// Attention of a model: its shape and each worker's scratch.
#[derive(Debug)]
pub struct Attention {
    heads: usize,
    group: usize,
    scale: f32,
    /// Room for a query's scores.
    padded_keys: usize,
    /// For each worker: queries, scores, outputs.
    scratch: Buffer,
    scratch_len: usize,
}

impl Attention {
    /// Attention of `heads` query heads over a pool of this shape, for sequences of up to `max_tokens`.
    ///
    /// # Errors
    /// When there is not enough memory.
    pub fn new(
        shape: &KvShape,
        heads: usize,
        max_tokens: usize,
        workers: usize,
    ) -> Result<Self, EngineError> {
        let group = heads / shape.kv_heads;
        // The last group of a block may write up to 15 scores past its end.
        let tokens = max_tokens.div_ceil(shape.block_tokens) * shape.block_tokens;
        let padded_keys = tokens.next_multiple_of(LANES) + LANES;
        let queries = group * tile_rows(group);
        let scratch_len = queries * (2 * shape.padded_dim() + padded_keys);
        let scratch = Buffer::zeroed(workers * scratch_len, "attention scores")?;
        let scale = 1.0 / (shape.head_dim as f32).sqrt();
        Ok(Self {
            heads,
            group,
            scale,
            padded_keys,
            scratch,
            scratch_len,
        })
    }

    /// Most rows of a [`RowTile`].
    pub fn tile_rows(&self) -> usize {
        tile_rows(self.group)
    }

    /// `out[row, head] = softmax(q kᵀ / sqrt(d)) v`. `qkv` has queries from column 0 on, not yet rotated; the rows' own keys
    /// and values are in the pool.
    ///
    /// # Panics
    /// If a tile, a block or a shape is out of range.
    #[allow(clippy::too_many_arguments)]
    pub fn forward(
        &mut self,
        compute: &Compute,
        layer: usize,
        tiles: &[RowTile],
        blocks: &[BlockId],
        kv: &KvPool,
        rope: &Rope,
        qkv: Matrix<'_>,
        out: &mut MatrixMut<'_>,
    ) {
        let shape = *kv.shape();
        let (dim, padded_dim) = (shape.head_dim, shape.padded_dim());
        let stride = self.scratch_len;
        let workers = compute.pool.threads();
        let (group, scale, padded_keys) = (self.group, self.scale, self.padded_keys);
        let scratch = self.scratch.as_mut_slice();
        assert!(scratch.len() >= workers * stride && self.heads == self.group * shape.kv_heads);
        let scratch = MatrixMut::new(scratch, workers, stride);
        let (out, isa) = (&*out, compute.isa);
        compute
            .pool
            .run(tiles.len() * shape.kv_heads, &|task, worker| {
                let (tile, head) = (&tiles[task / shape.kv_heads], task % shape.kv_heads);
                assert!(tile.rows <= tile_rows(group));
                let queries = tile.rows * group;
                // SAFETY: a worker runs one task at a time and has a row of its own.
                let scratch = unsafe { scratch.row_part(worker, 0, stride) };
                let (q, rest) = scratch.split_at_mut(queries * dim);
                let (o, scores) = rest.split_at_mut(queries * padded_dim);
                let blocks = &blocks[tile.blocks..];
                let blocks = &blocks[..(tile.position + tile.rows).div_ceil(shape.block_tokens)];
                assert!(blocks.len() * shape.block_tokens + LANES <= padded_keys);
                for (i, q) in q.chunks_exact_mut(dim).enumerate() {
                    let (row, column) = (i / group, (head * group + i % group) * dim);
                    let x = &qkv.row(tile.row + row)[column..][..dim];
                    rope.rotate(tile.position + row, x, |d, x| q[d] = x * scale);
                }
                let head_kv = HeadKv {
                    kv,
                    layer,
                    head,
                    blocks,
                };
                // Chunks as even as can be, at most a register tile each.
                let chunks = queries.div_ceil(TILE);
                let mut first = 0;
                for chunk in 0..chunks {
                    let n = (queries - first).div_ceil(chunks - chunk);
                    let args = Queries {
                        kv: &head_kv,
                        n,
                        visible: std::array::from_fn(|i| tile.position + (first + i) / group + 1),
                        q: &q[first * dim..][..n * dim],
                        scores: &mut scores[..n * padded_keys],
                        scores_stride: padded_keys,
                        out: &mut o[first * padded_dim..][..n * padded_dim],
                    };
                    // SAFETY: the slices have room for n queries, scores for all of the blocks' tokens.
                    unsafe { dispatch!(isa, attend(args: Queries<'_>)) };
                    first += n;
                }
                for (i, o) in o.chunks_exact(padded_dim).enumerate() {
                    let (row, column) = (i / group, (head * group + i % group) * dim);
                    // SAFETY: only this task writes this head of these rows.
                    unsafe { out.row_part(tile.row + row, column, dim) }.copy_from_slice(&o[..dim]);
                }
            });
    }
}

/// Rows whose queries of one group fill a register tile.
fn tile_rows(group: usize) -> usize {
    (TILE / group).max(1)
}
