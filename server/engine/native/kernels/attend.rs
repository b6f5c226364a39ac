//! Attention of a few queries over one sequence's keys and values: the vector part of [`attention`](super::attention).
//!
//! The sequence is taken in spans of 64 tokens. Each span gives a partial result: the largest score, the sum of the
//! exponentials and the values weighted by them, relative to the span's own largest score; [`merge`] brings a query's spans
//! together, in order. A span's result depends on nothing else, so any thread may compute it.

use std::mem::MaybeUninit;
use std::ops::Range;

use half::{bf16, f16};

use super::kv::{KvPool, KvShape};
use super::lanes::{LANES, Lanes};
use super::matrix::{Matrix, MatrixMut};
use super::rope::Rope;
use super::stored::Stored;
use crate::engine::{BlockId, KvPrecision};

/// Most queries that go together.
pub(super) const TILE: usize = 6;

/// Tokens of a partial result.
pub(super) const SPAN: usize = 64;

/// A row of scores: what lies in a block before and behind a span's tokens falls beside them.
const ROW: usize = LANES + SPAN + LANES;

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
        let padded = tile.kv.shape().padded_dim();
        let at = first * tile.stride + index * partial_len(padded);
        // SAFETY: passed on; a tile of N queries has their partial results from here on, `stride` apart.
        unsafe {
            let out = tile.partials.add(at);
            let (queries, rows) = tile.room.split_at_mut((TILE + 1) * dim);
            let (rows, _) = rows.as_chunks_mut();
            let (scales, scores) = rows.split_first_mut().expect("rows of scores");
            let scores = scores.first_chunk_mut().expect("a row for each query");
            let mut span = Span::<E, N>::new(tile.kv.shape(), tile.stride, visible, scales);
            span.find(tile.kv, (tile.layer, tile.head), tile.blocks, start);
            span.attend::<V>(queries[dim..].as_ptr(), scores, out);
        }
    }
}

/// Sixteen keys of a block, and where the first one's score goes.
#[derive(Clone, Copy)]
struct Keys<E> {
    keys: *const E,
    scales: *const f32,
    column: usize,
}

/// Some tokens of a block, counted from the span's start.
#[derive(Clone, Copy)]
struct Values<E> {
    values: *const E,
    from: usize,
    to: usize,
}

/// N queries over a span.
struct Span<'a, E, const N: usize> {
    /// The first `groups` are there.
    keys: [MaybeUninit<Keys<E>>; SPAN],
    groups: usize,
    /// The first `pieces` are there.
    values: [MaybeUninit<Values<E>>; SPAN],
    pieces: usize,
    value_scales: &'a mut [f32; ROW],
    /// Tokens of the span that each query sees, never fewer than the one before.
    visible: [usize; N],
    head_dim: usize,
    key_stride: usize,
    padded_dim: usize,
    stride: usize,
}

impl<'a, E: Stored, const N: usize> Span<'a, E, N> {
    #[inline(always)]
    fn new(
        shape: &KvShape,
        stride: usize,
        visible: [usize; N],
        value_scales: &'a mut [f32; ROW],
    ) -> Self {
        Self {
            keys: [const { MaybeUninit::uninit() }; SPAN],
            groups: 0,
            values: [const { MaybeUninit::uninit() }; SPAN],
            pieces: 0,
            value_scales,
            visible,
            head_dim: shape.head_dim,
            key_stride: shape.padded_tokens(),
            padded_dim: shape.padded_dim(),
            stride,
        }
    }

    /// Looks up where the keys and values from token `start` on lie.
    ///
    /// # Safety
    /// The pool stores E.
    #[inline(always)]
    unsafe fn find(
        &mut self,
        kv: &KvPool,
        (layer, head): (usize, usize),
        blocks: &[BlockId],
        start: usize,
    ) {
        let (shape, layout) = (kv.shape(), kv.layout());
        let (mut token, end) = (start, start + self.visible[N - 1]);
        while token < end {
            let (block, slot) = (token / shape.block_tokens, token % shape.block_tokens);
            let data = kv.block(layer, blocks[block], head);
            let count = (shape.block_tokens - slot).min(end - token);
            for lane in (slot / LANES * LANES..slot + count).step_by(LANES) {
                let column = LANES + token + lane - slot - start;
                // SAFETY: lanes are below `padded_tokens`; a row of scales has room for 16 from each of its tokens on.
                unsafe {
                    let scales = data.add(layout.key_scales).cast::<f32>().add(lane);
                    self.keys[self.groups].write(Keys {
                        keys: data.cast::<E>().add(lane),
                        scales,
                        column,
                    });
                    if E::SCALED {
                        let scales = data.add(layout.value_scales).cast::<f32>().add(lane);
                        let out = self.value_scales[column..][..LANES].as_mut_ptr();
                        scales.copy_to_nonoverlapping(out, LANES);
                    }
                }
                self.groups += 1;
            }
            // SAFETY: the slot is below `block_tokens`.
            let values = unsafe {
                let values = data.add(layout.values).cast::<E>();
                values.add(slot * shape.padded_dim())
            };
            self.values[self.pieces].write(Values {
                values,
                from: token - start,
                to: token - start + count,
            });
            self.pieces += 1;
            token += count;
        }
    }

    /// # Safety
    /// `q` is `[head_dim][N]`; `out` has N partial results, `stride` apart.
    #[inline(always)]
    unsafe fn attend<V: Lanes>(&self, q: *const f32, scores: &mut [[f32; ROW]; N], out: *mut f32) {
        // SAFETY: passed on.
        unsafe {
            match (V::WIDE, N) {
                _ if V::TILE == 1 => self.scores::<V, 1>(q, scores),
                (true, 1..=3) => self.scores::<V, 4>(q, scores),
                (true, _) | (false, 1..=3) => self.scores::<V, 2>(q, scores),
                _ => self.scores::<V, 1>(q, scores),
            }
            for i in 0..N {
                let out = out.add(i * self.stride);
                let (max, sum) = self.softmax::<V>(&mut scores[i], self.visible[i]);
                *out.add(self.padded_dim) = max;
                *out.add(self.padded_dim + 1) = sum;
                for column in (0..self.padded_dim).step_by(LANES) {
                    V::splat(0.0).store(out.add(column));
                }
            }
            // What all of them see together, then each query's last keys on its own.
            let common = self.visible[0];
            self.weigh::<V, N>(scores, 0..common, out);
            for i in 1..N {
                if self.visible[i] > common {
                    let scores = std::array::from_ref(&scores[i]);
                    self.weigh::<V, 1>(scores, common..self.visible[i], out.add(i * self.stride));
                }
            }
        }
    }

    /// Scores of all keys, G groups of 16 at a time.
    ///
    /// # Safety
    /// See [`attend`](Self::attend).
    #[inline(always)]
    unsafe fn scores<V: Lanes, const G: usize>(&self, q: *const f32, scores: &mut [[f32; ROW]; N]) {
        // In order, because where a block is no multiple of 16 tokens, its last group's idle lanes fall on the next block's
        // scores.
        let mut groups = self.keys[..self.groups].chunks_exact(G);
        // SAFETY: passed on.
        unsafe {
            for group in &mut groups {
                let keys = std::array::from_fn(|g| group[g].assume_init());
                self.score_groups::<V, G>(q, keys, scores);
            }
            for keys in groups.remainder() {
                self.score_groups::<V, 1>(q, [keys.assume_init()], scores);
            }
        }
    }

    /// # Safety
    /// See [`attend`](Self::attend).
    #[inline(always)]
    unsafe fn score_groups<V: Lanes, const G: usize>(
        &self,
        mut q: *const f32,
        keys: [Keys<E>; G],
        scores: &mut [[f32; ROW]; N],
    ) {
        let mut at: [*const E; G] = std::array::from_fn(|g| keys[g].keys);
        // SAFETY: a group of keys has `head_dim` lines of 16 numbers, `key_stride` apart; its scores end within a row.
        unsafe {
            let mut acc = [[V::splat(0.0); G]; N];
            for _ in 0..self.head_dim {
                for g in 0..G {
                    let k = E::load::<V>(at[g]);
                    let q = if G > 1 { V::read_again(q) } else { q };
                    for n in 0..N {
                        acc[n][g] = V::splat(*q.add(n)).fma(k, acc[n][g]);
                    }
                    at[g] = at[g].wrapping_add(self.key_stride);
                }
                q = q.add(N);
            }
            for (row, acc) in scores.iter_mut().zip(acc) {
                for (keys, s) in keys.iter().zip(acc) {
                    let s = match E::SCALED {
                        true => s.mul(V::load(keys.scales)),
                        false => s,
                    };
                    s.store(row[keys.column..][..LANES].as_mut_ptr());
                }
            }
        }
    }

    /// Replaces the first `visible` scores by the weights of their values and returns the largest score and the sum of the
    /// exponentials.
    ///
    /// # Safety
    /// The instructions are there.
    #[inline(always)]
    unsafe fn softmax<V: Lanes>(&self, scores: &mut [f32; ROW], visible: usize) -> (f32, f32) {
        let n = visible.next_multiple_of(LANES);
        scores[LANES + visible..LANES + n].fill(f32::NEG_INFINITY);
        // SAFETY: n, a multiple of 16 and at most SPAN, scores, and as many scales.
        unsafe {
            let scores = scores.as_mut_ptr().add(LANES);
            let scales = self.value_scales.as_ptr().add(LANES);
            let mut lanes = V::splat(f32::NEG_INFINITY);
            for i in (0..n).step_by(LANES) {
                lanes = lanes.max(V::load(scores.add(i)));
            }
            let largest = lanes.max_lane();
            let max = V::splat(largest);
            let mut sum = V::splat(0.0);
            for i in (0..n).step_by(LANES) {
                let e = V::load(scores.add(i)).sub(max).exp();
                e.store(scores.add(i));
                if i + LANES > visible {
                    for i in visible..n {
                        *scores.add(i) = 0.0;
                    }
                }
                let e = V::load(scores.add(i));
                sum = sum.add(e);
                if E::SCALED {
                    e.mul(V::load(scales.add(i))).store(scores.add(i));
                }
            }
            (largest, sum.sum())
        }
    }

    /// Adds the values of `tokens`, weighted, to the outputs of M queries.
    ///
    /// # Safety
    /// `out` has M partial results, `stride` apart.
    #[inline(always)]
    unsafe fn weigh<V: Lanes, const M: usize>(
        &self,
        weights: &[[f32; ROW]; M],
        tokens: Range<usize>,
        out: *mut f32,
    ) {
        let columns = self.padded_dim / LANES;
        // SAFETY: passed on; columns are within the padded head.
        unsafe {
            match (V::WIDE, M) {
                _ if V::TILE == 1 => self.weigh_by::<V, M, 1>(weights, tokens, out, columns),
                (true, _) | (false, 1) => self.weigh_by::<V, M, 4>(weights, tokens, out, columns),
                (false, 2..=3) => self.weigh_by::<V, M, 2>(weights, tokens, out, columns),
                _ => self.weigh_by::<V, M, 1>(weights, tokens, out, columns),
            }
        }
    }

    /// # Safety
    /// See [`weigh`](Self::weigh).
    #[inline(always)]
    unsafe fn weigh_by<V: Lanes, const M: usize, const C: usize>(
        &self,
        weights: &[[f32; ROW]; M],
        tokens: Range<usize>,
        out: *mut f32,
        columns: usize,
    ) {
        let whole = columns / C * C;
        // SAFETY: passed on.
        unsafe {
            for column in (0..whole).step_by(C) {
                self.weigh_columns::<V, M, C>(weights, tokens.clone(), out, column * LANES);
            }
            for column in whole..columns {
                self.weigh_columns::<V, M, 1>(weights, tokens.clone(), out, column * LANES);
            }
        }
    }

    /// # Safety
    /// See [`weigh`](Self::weigh); columns `column..column + C * 16` are within the padded head.
    #[inline(always)]
    unsafe fn weigh_columns<V: Lanes, const M: usize, const C: usize>(
        &self,
        weights: &[[f32; ROW]; M],
        tokens: Range<usize>,
        out: *mut f32,
        column: usize,
    ) {
        let out = |m: usize, c: usize| out.wrapping_add(m * self.stride + column + c * LANES);
        // SAFETY: a piece's tokens are in its block, their weights in the rows.
        unsafe {
            let mut acc = [[V::splat(0.0); C]; M];
            for m in 0..M {
                for c in 0..C {
                    acc[m][c] = V::load(out(m, c));
                }
            }
            for piece in &self.values[..self.pieces] {
                let piece = piece.assume_init_ref();
                let (from, to) = (piece.from.max(tokens.start), piece.to.min(tokens.end));
                let skipped = from - piece.from;
                let mut values = piece
                    .values
                    .wrapping_add(skipped * self.padded_dim + column);
                let mut weight = weights.as_ptr().cast::<f32>().wrapping_add(LANES + from);
                for _ in from..to {
                    for c in 0..C {
                        let v = E::load::<V>(values.add(c * LANES));
                        let weight = if C > 1 { V::read_again(weight) } else { weight };
                        for m in 0..M {
                            acc[m][c] = V::splat(*weight.add(m * ROW)).fma(v, acc[m][c]);
                        }
                    }
                    values = values.wrapping_add(self.padded_dim);
                    weight = weight.add(1);
                }
            }
            for m in 0..M {
                for c in 0..C {
                    acc[m][c].store(out(m, c));
                }
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
