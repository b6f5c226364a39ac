//! A few queries over 64 tokens of a sequence: scores, their exponentials, and the values weighted by them.

use std::mem::MaybeUninit;
use std::ops::Range;

use code_explainer_engine::BlockId;

use super::kv::{KvPool, KvShape};
use super::lanes::{LANES, Lanes};
use super::softmax::softmax;
use super::stored::Stored;

/// Tokens of a partial result.
pub(super) const SPAN: usize = 64;

/// So many queries wait for memory.
const FEW: usize = 3;

/// Bytes that memory brings at once.
const LINE: usize = 64;

/// A row of scores: what lies in a block before and behind a span's tokens falls beside them.
pub(super) const ROW: usize = LANES + SPAN + LANES;

/// Dimensions of queries that lie together, so that those of a tile are at distances that the compiler knows.
pub(super) const DIMS: usize = 64;

/// Sixteen keys of a block, and where the first one's score goes.
#[derive(Clone, Copy)]
struct Keys<E> {
    keys: *const E,
    scales: *const f32,
    column: usize,
    /// What is fetched meanwhile.
    ahead: *const u8,
}

/// The span that comes after one: its sequence's blocks from its first token on, and its head.
#[derive(Clone, Copy)]
pub(super) struct Following<'a> {
    pub(super) blocks: &'a [BlockId],
    pub(super) head: usize,
}

/// Some tokens of a block, counted from the span's start.
#[derive(Clone, Copy)]
struct Values<E> {
    values: *const E,
    from: usize,
    to: usize,
}

/// N queries over a span.
pub(super) struct Span<'a, E, const N: usize> {
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
    /// Bytes of [`Keys::ahead`] that are fetched with each of the head's dimensions.
    ahead_step: usize,
}

impl<'a, E: Stored, const N: usize> Span<'a, E, N> {
    #[inline(always)]
    pub(super) fn new(
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
            ahead_step: 0,
        }
    }

    /// Looks up where the keys and values from token `start` on lie, and those of the span that follows: memory takes
    /// them for random places, as every head of a block is a page of its own, so they are fetched by hand.
    ///
    /// # Safety
    /// The pool stores E.
    #[inline(always)]
    pub(super) unsafe fn find(
        &mut self,
        kv: &KvPool,
        (layer, head): (usize, usize),
        blocks: &[BlockId],
        start: usize,
        following: Option<Following<'_>>,
    ) {
        let (shape, layout) = (kv.shape(), kv.layout());
        let parts = shape.block_tokens.div_ceil(LANES);
        // At most a line: where numbers are so wide that this leaves out values, they have the longer time to come.
        self.ahead_step = (layout.len / parts).div_ceil(shape.head_dim).min(LINE);
        let ahead = |token: usize| {
            let following = following.filter(|_| N <= FEW)?;
            let block = *following.blocks.get(token / shape.block_tokens)?;
            let part = token % shape.block_tokens / LANES * (layout.len / parts);
            Some((kv.block(layer, block, following.head)).wrapping_add(part))
        };
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
                        // Lanes before the first token are of no use there either.
                        ahead: ahead((token + lane - slot).saturating_sub(start)).unwrap_or(data),
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

    /// The weighted values of each query go to `out`; its largest score and the sum of its exponentials are returned.
    ///
    /// # Safety
    /// `q` is `[head_dim / DIMS][N][DIMS]`; `out` has a padded head for each of N queries, `stride` apart.
    #[inline(always)]
    pub(super) unsafe fn attend<V: Lanes>(
        &self,
        q: *const f32,
        scores: &mut [[f32; ROW]; N],
        out: *mut f32,
    ) -> [(f32, f32); N] {
        let mut ends = [(0.0, 0.0); N];
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
                let scales = &*self.value_scales;
                ends[i] = softmax::<V, E>(&mut scores[i], scales, self.visible[i]);
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
        ends
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
        let mut ahead: [*const u8; G] = std::array::from_fn(|g| keys[g].ahead);
        // SAFETY: a group of keys has `head_dim` lines of 16 numbers, `key_stride` apart; its scores end within a row.
        unsafe {
            let mut acc = [[V::splat(0.0); G]; N];
            for first in (0..self.head_dim).step_by(DIMS) {
                for _ in first..self.head_dim.min(first + DIMS) {
                    for g in 0..G {
                        let k = E::load::<V>(at[g]);
                        let q = if G > 1 { V::read_again(q) } else { q };
                        for n in 0..N {
                            acc[n][g] = V::splat(*q.add(n * DIMS)).fma(k, acc[n][g]);
                        }
                        at[g] = at[g].wrapping_add(self.key_stride);
                        // More queries have more to do with a key than memory takes to bring the next.
                        if N <= FEW {
                            V::prefetch(ahead[g].cast());
                            ahead[g] = ahead[g].wrapping_add(self.ahead_step);
                        }
                    }
                    q = q.add(1);
                }
                q = q.wrapping_add((N - 1) * DIMS);
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

    /// Adds the values of `tokens`, weighted, to the outputs of M queries.
    ///
    /// # Safety
    /// `out` has a padded head for each of M queries, `stride` apart.
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
            // Loaded, though zeros at first: with zeros the compiler moves some of them to memory within the loop.
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
