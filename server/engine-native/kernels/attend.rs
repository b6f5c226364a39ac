//! Attention of a few queries over one sequence's keys and values: the vector part of [`attention`](super::attention).
//!
//! The sequence is taken in spans of 64 tokens. Each span gives a partial result: the largest score, the sum of the
//! exponentials and the values weighted by them, relative to the span's own largest score; [`merge`] brings a query's spans
//! together, in order. A span's result depends on nothing else, so any thread may compute it.

use std::ops::Range;

use code_explainer_engine::{BlockId, KvPrecision};
use half::{bf16, f16};

use super::kv::KvPool;
use super::lanes::{LANES, Lanes};
use super::matrix::{Matrix, MatrixMut};
use super::rope::Rope;
use super::span::{DIMS, Following, ROW, SPAN, Span};
use super::stored::Stored;

/// Most queries that go together.
pub(super) const TILE: usize = 6;

/// How the partial results of a query lie: the largest scores of all spans, their sums, and then the weighted values of
/// one span after the other.
#[derive(Debug, Clone, Copy)]
pub(super) struct Partials {
    /// Spans that there is room for, in whole vectors.
    spans: usize,
    padded_dim: usize,
}

impl Partials {
    /// Of sequences of up to `spans` spans.
    pub(super) fn new(spans: usize, padded_dim: usize) -> Self {
        Self {
            spans: spans.next_multiple_of(LANES),
            padded_dim,
        }
    }

    /// Floats from a query to the next.
    pub(super) fn len(&self) -> usize {
        self.spans * (2 + self.padded_dim)
    }

    fn largest(&self, span: usize) -> usize {
        span
    }

    fn sum(&self, span: usize) -> usize {
        self.spans + span
    }

    fn values(&self, span: usize) -> usize {
        2 * self.spans + span * self.padded_dim
    }
}

/// Floats of [`Tile::room`]: a query on its way, `[head_dim / DIMS][TILE][DIMS]` of them, `[TILE + 1][ROW]` for
/// scores.
pub(super) fn room(head_dim: usize) -> usize {
    head_dim + queries_len(head_dim) + (TILE + 1) * ROW
}

fn queries_len(head_dim: usize) -> usize {
    head_dim.next_multiple_of(DIMS) * TILE
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
    /// `[rows * group]` times [`Partials::len`].
    pub(super) partials: *mut f32,
    pub(super) layout: Partials,
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
        let (rotated, queries) = tile.room.split_at_mut(dim);
        let position = tile.position + (first + i) / tile.group;
        // SAFETY: the instructions are there.
        unsafe { tile.rope.rotate::<V>(position, x, rotated) };
        for (part, x) in rotated.chunks(DIMS).enumerate() {
            let q = &mut queries[(part * N + i) * DIMS..][..x.len()];
            (q.iter_mut().zip(x)).for_each(|(q, x)| *q = x * tile.scale);
        }
    }
    for index in tile.spans.clone() {
        let start = index * SPAN;
        let visible: [usize; N] =
            std::array::from_fn(|i| tile.visible(first + i).saturating_sub(start).min(SPAN));
        if visible[N - 1] == 0 {
            continue;
        }
        let (layout, block_tokens) = (tile.layout, tile.kv.shape().block_tokens);
        // SAFETY: passed on; there are partial results of N queries from `first` on.
        unsafe {
            let partials = tile.partials.add(first * layout.len());
            let (queries, rows) = tile.room[dim..].split_at_mut(queries_len(dim));
            let (rows, _) = rows.as_chunks_mut();
            let (scales, scores) = rows.split_first_mut().expect("rows of scores");
            let scores = scores.first_chunk_mut().expect("a row for each query");
            let mut span = Span::<E, N>::new(tile.kv.shape(), layout.len(), visible, scales);
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
            let out = partials.add(layout.values(index));
            let ends = span.attend::<V>(queries.as_ptr(), scores, out);
            for (i, (largest, sum)) in ends.into_iter().enumerate() {
                let partials = partials.add(i * layout.len());
                *partials.add(layout.largest(index)) = largest;
                *partials.add(layout.sum(index)) = sum;
            }
        }
    }
}

/// Brings the partial results of all spans together and writes a tile's outputs. Leaves `tile.spans` and `room` alone.
///
/// # Safety
/// The partial results of all spans are there, and nobody else uses them nor these rows' head of `out`.
#[inline(always)]
pub(super) unsafe fn merge<V: Lanes>(tile: Tile<'_>, out: &MatrixMut<'_>) {
    let (dim, layout) = (tile.kv.shape().head_dim, tile.layout);
    for query in 0..tile.queries() {
        let spans = tile.visible(query).div_ceil(SPAN);
        let (row, column) = tile.place(query);
        // SAFETY: passed on.
        unsafe {
            let partials = tile.partials.add(query * layout.len());
            let inverse = V::splat(1.0).div(weights::<V>(partials, &layout, spans));
            let out = out.row_part(row, column, dim);
            let (whole, rest) = out.as_chunks_mut::<LANES>();
            for (i, out) in whole.iter_mut().enumerate() {
                let sum = weighted_sum::<V>(partials, &layout, spans, i * LANES);
                sum.mul(inverse).store(out.as_mut_ptr());
            }
            if !rest.is_empty() {
                let mut last = [0.0; LANES];
                let sum = weighted_sum::<V>(partials, &layout, spans, whole.len() * LANES);
                sum.mul(inverse).store(last.as_mut_ptr());
                rest.copy_from_slice(&last[..rest.len()]);
            }
        }
    }
}

/// Puts what each span counts in the place of its largest score, and returns the sum of all exponentials.
///
/// # Safety
/// `partials` are those of a query with so many spans.
#[inline(always)]
unsafe fn weights<V: Lanes>(partials: *mut f32, layout: &Partials, spans: usize) -> V {
    // SAFETY: passed on; there is room for whole vectors.
    unsafe {
        let lowest = V::splat(f32::NEG_INFINITY);
        let mut lanes = lowest;
        for span in (0..spans).step_by(LANES) {
            let largest = V::load(partials.add(layout.largest(span)));
            lanes = lanes.max(largest.first(spans - span, lowest));
        }
        let max = V::splat(lanes.max_lane());
        for span in (0..spans).step_by(LANES) {
            let at = partials.add(layout.largest(span));
            V::load(at).sub(max).exp().store(at);
        }
        // The first span's takes the others.
        let weight = V::splat(*partials.add(layout.largest(0)));
        let mut total = V::splat(*partials.add(layout.sum(0))).mul(weight);
        for span in 1..spans {
            let weight = V::splat(*partials.add(layout.largest(span)));
            total = weight.fma(V::splat(*partials.add(layout.sum(span))), total);
        }
        total
    }
}

/// The weighted sum of 16 columns.
///
/// # Safety
/// As [`weights`], which are there; the columns are within the padded head.
#[inline(always)]
unsafe fn weighted_sum<V: Lanes>(
    partials: *const f32,
    layout: &Partials,
    spans: usize,
    column: usize,
) -> V {
    // SAFETY: passed on.
    unsafe {
        let mut values = partials.add(layout.values(0) + column);
        let mut sum = V::load(values).mul(V::splat(*partials.add(layout.largest(0))));
        for span in 1..spans {
            values = values.add(layout.padded_dim);
            let weight = V::splat(*partials.add(layout.largest(span)));
            sum = weight.fma(V::load(values), sum);
        }
        sum
    }
}
