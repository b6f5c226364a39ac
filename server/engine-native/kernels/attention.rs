//! Causal attention with grouped queries, straight over the blocks of the KV pool.
//!
//! For each query and span of 64 tokens: the scores of its keys, each a chain of fused multiply-adds over the head's
//! dimensions; their exponentials, summed in 16 lanes; the weighted sum of the values, token after token; and at the end
//! the spans together. All of it in an order that only the query's own position fixes: chunks, tiles, blocks and
//! neighbours do not change a bit. Queries of the same KV head (and of neighbouring rows of a prompt) go together, so that
//! keys and values are loaded once for all of them.

use code_explainer_engine::{BlockId, EngineError};

use super::Compute;
use super::attend::{Partials, TILE, Tile, attend, merge, room};
use super::isa::dispatch;
use super::kv::{KvPool, KvShape};
use super::matrix::{Matrix, MatrixMut};
use super::rope::Rope;
use super::span::{Following, SPAN};
use crate::buffer::Buffer;

/// With fewer tasks than this for each thread, sequences are split.
const TASKS: usize = 4;

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

impl RowTile {
    /// Tokens that its last row sees.
    pub fn visible(&self) -> usize {
        self.position + self.rows
    }
}

/// Attention of a model: its shape and its scratch.
#[derive(Debug)]
pub struct Attention {
    heads: usize,
    group: usize,
    scale: f32,
    max_tokens: usize,
    /// For each worker: queries and scores.
    room: Buffer,
    room_len: usize,
    /// For each worker, or where sequences are split for each tile and head: partial results.
    partials: Buffer,
    partials_len: usize,
    layout: Partials,
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
        let room_len = room(shape.head_dim);
        let layout = Partials::new(max_tokens.div_ceil(SPAN), shape.padded_dim());
        let partials_len = group * tile_rows(group) * layout.len();
        Ok(Self {
            heads,
            group,
            scale: 1.0 / (shape.head_dim as f32).sqrt(),
            max_tokens,
            room: Buffer::zeroed(workers * room_len, "attention scores")?,
            room_len,
            // Becomes resident as far as it is used.
            partials: Buffer::zeroed(TASKS * workers * partials_len, "attention")?,
            partials_len,
            layout,
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
        let shape = kv.shape();
        let (pool, isa) = (&compute.pool, compute.isa);
        let (group, scale, max_tokens) = (self.group, self.scale, self.max_tokens);
        let layout = self.layout;
        assert!(self.heads == group * shape.kv_heads);
        let row = self.room_len;
        let room = MatrixMut::new(self.room.as_mut_slice(), pool.threads(), row);
        let (regions, len) = (TASKS * pool.threads(), self.partials_len);
        let partials = MatrixMut::new(self.partials.as_mut_slice(), regions, len);
        let (room, partials, out) = (&room, &partials, &*out);

        // What a unit, a tile's KV head, is to the kernels, for the spans that part of `parts` has.
        let tile = |unit: usize, (part, parts): (usize, usize), worker: usize, region: usize| {
            let tile = &tiles[unit / shape.kv_heads];
            assert!(tile.rows <= tile_rows(group) && tile.visible() <= max_tokens);
            let spans = tile.visible().div_ceil(SPAN);
            let blocks_of = |tile: &RowTile| {
                &blocks[tile.blocks..][..tile.visible().div_ceil(shape.block_tokens)]
            };
            let then = (tiles.get((unit + 1) / shape.kv_heads)).map(|next| Following {
                blocks: blocks_of(next),
                head: (unit + 1) % shape.kv_heads,
            });
            Tile {
                kv,
                layer,
                head: unit % shape.kv_heads,
                blocks: blocks_of(tile),
                then,
                qkv,
                rope,
                scale,
                rows: tile.row..tile.row + tile.rows,
                position: tile.position,
                group,
                spans: spans * part / parts..spans * (part + 1) / parts,
                // SAFETY: a worker runs one task at a time and has a row of its own.
                room: unsafe { room.row_part(worker, 0, row) },
                partials: partials.at(region, 0),
                layout,
            }
        };
        let units = tiles.len() * shape.kv_heads;
        if units >= regions || pool.threads() == 1 {
            pool.run(units, &|unit, worker| {
                // SAFETY: the worker's own region has room for all queries and spans of a tile; only this task writes
                // this head of these rows.
                unsafe {
                    let args = tile(unit, (0, 1), worker, worker);
                    dispatch!(isa, attend(args: Tile<'_>));
                    let args = tile(unit, (0, 1), worker, worker);
                    dispatch!(isa, merge(args: Tile<'_>, out: &MatrixMut<'_>));
                }
            });
        } else {
            let parts = regions.div_ceil(units.max(1));
            pool.run(units * parts, &|task, worker| {
                let (unit, part) = (task / parts, task % parts);
                let args = tile(unit, (part, parts), worker, unit);
                // SAFETY: each unit has a region of its own, and its parts have different spans.
                unsafe { dispatch!(isa, attend(args: Tile<'_>)) };
            });
            // Too little to fork for.
            for unit in 0..units {
                let args = tile(unit, (0, 1), 0, unit);
                // SAFETY: all tasks are done.
                unsafe { dispatch!(isa, merge(args: Tile<'_>, out: &MatrixMut<'_>)) };
            }
        }
    }
}

/// Rows whose queries of one group fill a register tile.
fn tile_rows(group: usize) -> usize {
    (TILE / group).max(1)
}
