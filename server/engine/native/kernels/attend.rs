//! Attention of a few queries over one sequence's keys and values: the vector part of [`attention`](super::attention).
//!
//! The sequence is taken in spans of 64 tokens. Each span gives a partial result: the largest score, the sum of the
//! exponentials and the values weighted by them, relative to the span's own largest score; [`merge`] brings a query's spans
//! together, in order. A span's result depends on nothing else, so any thread may compute it.

use std::ops::Range;

use half::{bf16, f16};

use super::kv::KvPool;
use super::lanes::{LANES, Lanes};
use super::matrix::{Matrix, MatrixMut};
use super::rope::Rope;
use super::span::{Following, ROW, SPAN, Span};
use super::stored::Stored;
use crate::engine::{BlockId, KvPrecision};

/// Most queries that go together.
pub(super) const TILE: usize = 6;

/// Floats of a partial result: the weighted values, then the largest score and the sum.
pub(super) fn partial_len(padded_dim: usize) -> usize {
    padded_dim + LANES
}

/// Floats of [`Tile::room`]: `[TILE + 1][head_dim]` for queries, `[TILE + 1][ROW]` for scores.
pub(super) fn room(head_dim: usize) -> usize {
    (TILE + 1) * (head_dim + ROW)
}

/// Queries of one KV head over some spans of their sequence.
pub(super) struct Tile<'a> {
    pub(super) kv: &'a KvPool,
    pub(super) layer: usize,
    pub(super) head: usize,
    /// The sequence's, enough for the last row.
    pub(super) blocks: &'a [BlockId],
    /// The first span of the tile that the worker probably takes next.
    pub(super) then: Option<Following<'a>>,
    /// Has the queries, not yet rotated, from column 0 on.
    pub(super) qkv: Matrix<'a>,
    pub(super) rope: &'a Rope,
    /// What queries are multiplied with.
    pub(super) scale: f32,
    /// Rows and the first one's position.
    pub(super) rows: Range<usize>,
    pub(super) position: usize,
    /// Query heads of a row.
    pub(super) group: usize,
    pub(super) spans: Range<usize>,
    /// See [`room`].
    pub(super) room: &'a mut [f32],
    /// `[rows * group][stride]` of partial results.
    pub(super) partials: *mut f32,
    pub(super) stride: usize,
}

impl Tile<'_> {
    fn queries(&self) -> usize {
        self.rows.len() * self.group
    }

    /// Keys that a query sees.
    fn visible(&self, query: usize) -> usize {
        self.position + query / self.group + 1
    }

    /// The row of a query and where its head starts.
    fn place(&self, query: usize) -> (usize, usize) {
        let head = self.head * self.group + query % self.group;
        let row = self.rows.start + query / self.group;
        (row, head * self.kv.shape().head_dim)
    }
}

/// Computes the partial results of a tile's spans.
///
/// # Safety
/// `partials` has the room that [`Tile`] says, and nobody else uses that of these spans.
#[inline(always)]
pub(super) unsafe fn attend<V: Lanes>(mut tile: Tile<'_>) {
    // SAFETY: passed on.
    unsafe {
        match tile.kv.precision() {
            KvPrecision::Fp32 => attend_as::<V, f32>(&mut tile),
            KvPrecision::Bf16 => attend_as::<V, bf16>(&mut tile),
            KvPrecision::Fp16 => attend_as::<V, f16>(&mut tile),
            KvPrecision::Int8 => attend_as::<V, i8>(&mut tile),
        }
    }
}

/// # Safety
/// See [`attend`]; the pool stores E.
#[inline(always)]
unsafe fn attend_as<V: Lanes, E: Stored>(tile: &mut Tile<'_>) {
    let mut first = 0;
    while first < tile.queries() {
        // As even as can be, at most a register tile each, and few sizes: each is a kernel of its own.
        let left = tile.queries() - first;
        let n = match left.div_ceil(left.div_ceil(V::TILE)) {
            5 => 3,
            n => n,
        };
        // SAFETY: passed on.
        unsafe {
            if V::TILE == 1 || n == 1 {
                attend_n::<V, E, 1>(tile, first);
            } else {
                match n {
                    2 => attend_n::<V, E, 2>(tile, first),
                    3 => attend_n::<V, E, 3>(tile, first),
                    4 => attend_n::<V, E, 4>(tile, first),
                    _ => attend_n::<V, E, 6>(tile, first),
                }
            }
        }
        first += n;
    }
}

/// Queries `first..first + N` of the tile.
///
/// # Safety
/// See [`attend_as`].
#[inline(always)]
unsafe fn attend_n<V: Lanes, E: Stored, const N: usize>(tile: &mut Tile<'_>, first: usize) {
    let dim = tile.kv.shape().head_dim;
    for i in 0..N {
        let (row, column) = tile.place(first + i);
        let x = &tile.qkv.row(row)[column..][..dim];
        // `[head_dim][N]`, so that a dimension of all queries lies together.
        let (rotated, q) = tile.room[..(N + 1) * dim].split_at_mut(dim);
        tile.rope
            .rotate(tile.position + (first + i) / tile.group, x, rotated);
        for (q, x) in q.chunks_exact_mut(N).zip(&*rotated) {
            q[i] = x * tile.scale;
        }
    }
    for index in tile.spans.clone() {
        let start = index * SPAN;
        let visible: [usize; N] =
            std::array::from_fn(|i| tile.visible(first + i).saturating_sub(start).min(SPAN));
        if visible[N - 1] == 0 {
            continue;
        }
        let (padded, block_tokens) = (tile.kv.shape().padded_dim(), tile.kv.shape().block_tokens);
        let at = first * tile.stride + index * partial_len(padded);
        // SAFETY: passed on; a tile of N queries has their partial results from here on, `stride` apart.
        unsafe {
            let out = tile.partials.add(at);
            let (queries, rows) = tile.room.split_at_mut((TILE + 1) * dim);
            let (rows, _) = rows.as_chunks_mut();
            let (scales, scores) = rows.split_first_mut().expect("rows of scores");
            let scores = scores.first_chunk_mut().expect("a row for each query");
            let mut span = Span::<E, N>::new(tile.kv.shape(), tile.stride, visible, scales);
            let next = Following {
                blocks: (tile.blocks)
                    .get((start + SPAN) / block_tokens..)
                    .unwrap_or(&[]),
                head: tile.head,
            };
            let following = match next.blocks.is_empty() || index + 1 == tile.spans.end {
                true => tile.then,
                // A block that the next span begins in the middle of is not told apart.
                false => Some(next),
            };
            span.find(
                tile.kv,
                (tile.layer, tile.head),
                tile.blocks,
                start,
                following,
            );
            span.attend::<V>(queries[dim..].as_ptr(), scores, out);
        }
    }
}

/// Brings the partial results of all spans together and writes a tile's outputs. Leaves `tile.spans` and `room` alone.
///
/// # Safety
/// The partial results of all spans are there, and nobody else uses them nor these rows' head of `out`.
#[inline(always)]
pub(super) unsafe fn merge<V: Lanes>(tile: Tile<'_>, out: &MatrixMut<'_>) {
    let (dim, padded) = (tile.kv.shape().head_dim, tile.kv.shape().padded_dim());
    let len = partial_len(padded);
    for query in 0..tile.queries() {
        let spans = tile.visible(query).div_ceil(SPAN);
        let (row, column) = tile.place(query);
        // SAFETY: passed on.
        unsafe {
            let partials = tile.partials.add(query * tile.stride);
            let mut max = f32::NEG_INFINITY;
            for span in 0..spans {
                let of_span = *partials.add(span * len + padded);
                max = if of_span > max { of_span } else { max };
            }
            // The first span's result takes the sum.
            let first = weight::<V>(*partials.add(padded), max);
            let mut sum = first.mul(V::splat(*partials.add(padded + 1)));
            for at in (0..padded).step_by(LANES) {
                let x = partials.add(at);
                V::load(x).mul(first).store(x);
            }
            for span in 1..spans {
                let from = partials.add(span * len);
                let w = weight::<V>(*from.add(padded), max);
                sum = w.fma(V::splat(*from.add(padded + 1)), sum);
                for at in (0..padded).step_by(LANES) {
                    let x = partials.add(at);
                    w.fma(V::load(from.add(at)), V::load(x)).store(x);
                }
            }
            let inverse = V::splat(1.0).div(sum);
            for at in (0..padded).step_by(LANES) {
                let x = partials.add(at);
                V::load(x).mul(inverse).store(x);
            }
            let out = out.row_part(row, column, dim);
            partials.copy_to_nonoverlapping(out.as_mut_ptr(), dim);
        }
    }
}

/// What a span counts whose largest score is `of_span`.
///
/// # Safety
/// The instructions are there.
#[inline(always)]
unsafe fn weight<V: Lanes>(of_span: f32, max: f32) -> V {
    // SAFETY: passed on.
    unsafe { V::splat(of_span).sub(V::splat(max)).exp() }
}
