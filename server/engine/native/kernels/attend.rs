//! Attention of a few queries over one sequence's keys and values: the vector part of [`attention`](super::attention).

use super::kv::{KvPool, KvShape};
use super::lanes::{LANES, Lanes};
use crate::engine::BlockId;

/// Queries that go together.
pub(super) const TILE: usize = 6;

/// One sequence's keys and values of one layer and head.
pub(super) struct HeadKv<'a> {
    pub(super) kv: &'a KvPool,
    pub(super) layer: usize,
    pub(super) head: usize,
    pub(super) blocks: &'a [BlockId],
}

/// Up to six queries over the same keys.
pub(super) struct Queries<'a> {
    pub(super) kv: &'a HeadKv<'a>,
    pub(super) n: usize,
    /// Keys that each query sees, never fewer than the one before.
    pub(super) visible: [usize; TILE],
    /// `[n][head_dim]`.
    pub(super) q: &'a [f32],
    /// `[n][scores_stride]`, by position; room for the blocks' tokens and 16 more.
    pub(super) scores: &'a mut [f32],
    pub(super) scores_stride: usize,
    /// `[n][padded_dim]`.
    pub(super) out: &'a mut [f32],
}

/// # Safety
/// The slices hold what [`Queries`] says, `n` is 1 to 6.
#[inline(always)]
pub(super) unsafe fn attend<V: Lanes>(mut queries: Queries<'_>) {
    // SAFETY: passed on.
    unsafe {
        match queries.n {
            1 => attend_n::<V, 1>(&mut queries),
            2 => attend_n::<V, 2>(&mut queries),
            3 => attend_n::<V, 3>(&mut queries),
            4 => attend_n::<V, 4>(&mut queries),
            5 => attend_n::<V, 5>(&mut queries),
            _ => attend_n::<V, 6>(&mut queries),
        }
    }
}

/// # Safety
/// See [`attend`]; `queries.n` is N.
#[inline(always)]
unsafe fn attend_n<V: Lanes, const N: usize>(queries: &mut Queries<'_>) {
    let shape = *queries.kv.kv.shape();
    // SAFETY: passed on; query i's scores and outputs are within the slices.
    unsafe {
        match (V::WIDE, N) {
            (true, 1..=3) => scores::<V, N, 4>(queries, &shape),
            (true, _) | (false, 1..=3) => scores::<V, N, 2>(queries, &shape),
            _ => scores::<V, N, 1>(queries, &shape),
        }
        let mut sums = [0.0; N];
        for (i, sum) in sums.iter_mut().enumerate() {
            let row = &mut queries.scores[i * queries.scores_stride..][..queries.scores_stride];
            *sum = softmax::<V>(row, queries.visible[i]);
        }
        queries.out.fill(0.0);
        // What all of them see together, then each query's last keys on its own.
        let common = queries.visible[0];
        weigh::<V, N>(queries, 0, 0..common, &shape);
        for i in 1..N {
            if queries.visible[i] > common {
                weigh::<V, 1>(queries, i, common..queries.visible[i], &shape);
            }
        }
        for (i, sum) in sums.into_iter().enumerate() {
            let inverse = V::splat(1.0 / sum);
            let out = &mut queries.out[i * shape.padded_dim()..][..shape.padded_dim()];
            for lanes in out.chunks_exact_mut(LANES) {
                V::load(lanes.as_ptr())
                    .mul(inverse)
                    .store(lanes.as_mut_ptr());
            }
        }
    }
}

/// Scores of N queries over all keys, G groups of 16 at a time.
///
/// # Safety
/// See [`attend_n`].
#[inline(always)]
unsafe fn scores<V: Lanes, const N: usize, const G: usize>(
    queries: &mut Queries<'_>,
    shape: &KvShape,
) {
    let per_block = shape.padded_tokens() / LANES;
    let groups = queries.kv.blocks.len() * per_block;
    let HeadKv {
        kv,
        layer,
        head,
        blocks,
    } = *queries.kv;
    let (q, stride) = (queries.q.as_ptr(), queries.scores_stride);
    // The keys of a group and the position of its first score.
    let keys = |group: usize| {
        let (block, lane) = (group / per_block, group % per_block * LANES);
        (
            kv.keys(layer, blocks[block], head)[lane..].as_ptr(),
            block * shape.block_tokens + lane,
        )
    };
    let out = queries.scores.as_mut_ptr();
    let mut group = 0;
    // In order, because where a block is no multiple of 16 tokens, its last group's idle lanes fall on the next block's
    // scores.
    // SAFETY: a group of keys has `head_dim` lines of 16 floats, `padded_tokens` apart; a query has `head_dim` floats and a
    // row of scores with room for every group.
    unsafe {
        while group + G <= groups {
            let keys: [_; G] = std::array::from_fn(|g| keys(group + g));
            score_groups::<V, N, G>(q, shape, keys, out, stride);
            group += G;
        }
        while group < groups {
            score_groups::<V, N, 1>(q, shape, [keys(group)], out, stride);
            group += 1;
        }
    }
}

/// # Safety
/// See [`scores`].
#[inline(always)]
unsafe fn score_groups<V: Lanes, const N: usize, const G: usize>(
    q: *const f32,
    shape: &KvShape,
    keys: [(*const f32, usize); G],
    out: *mut f32,
    stride: usize,
) {
    let (dim, tokens) = (shape.head_dim, shape.padded_tokens());
    // SAFETY: the caller's word on every pointer.
    unsafe {
        let mut acc = [[V::splat(0.0); G]; N];
        for d in 0..dim {
            let mut k = [V::splat(0.0); G];
            for g in 0..G {
                k[g] = V::load(keys[g].0.add(d * tokens));
            }
            for n in 0..N {
                let a = V::splat(*q.add(n * dim + d));
                for g in 0..G {
                    acc[n][g] = a.fma(k[g], acc[n][g]);
                }
            }
        }
        for (n, row) in acc.into_iter().enumerate() {
            for (g, s) in row.into_iter().enumerate() {
                s.store(out.add(n * stride + keys[g].1));
            }
        }
    }
}

/// Replaces the first `visible` scores by `e^(score - max)` and returns their sum.
///
/// # Safety
/// The instructions are there.
#[inline(always)]
unsafe fn softmax<V: Lanes>(scores: &mut [f32], visible: usize) -> f32 {
    let n = visible.next_multiple_of(LANES);
    scores[visible..n].fill(f32::NEG_INFINITY);
    let scores = scores[..n].as_mut_ptr();
    // SAFETY: n, a multiple of 16, scores.
    unsafe {
        let mut max = V::splat(f32::NEG_INFINITY);
        for i in (0..n).step_by(LANES) {
            max = max.max(V::load(scores.add(i)));
        }
        let max = V::splat(max.max_lane());
        let mut sum = V::splat(0.0);
        for i in (0..visible / LANES * LANES).step_by(LANES) {
            let e = V::load(scores.add(i)).sub(max).exp();
            e.store(scores.add(i));
            sum = sum.add(e);
        }
        if visible < n {
            let last = scores.add(n - LANES);
            V::load(last).sub(max).exp().store(last);
            for i in visible..n {
                *scores.add(i) = 0.0;
            }
            sum = sum.add(V::load(last));
        }
        sum.sum()
    }
}

/// Adds the values of `tokens`, weighted, to the outputs of queries `first..first + N`.
///
/// # Safety
/// See [`attend_n`].
#[inline(always)]
unsafe fn weigh<V: Lanes, const N: usize>(
    queries: &mut Queries<'_>,
    first: usize,
    tokens: std::ops::Range<usize>,
    shape: &KvShape,
) {
    let dim = shape.padded_dim();
    let wide = (V::WIDE || N == 1) && dim.is_multiple_of(4 * LANES);
    let mut column = 0;
    while column < dim {
        // SAFETY: the columns are within the padded head.
        unsafe {
            if wide {
                weigh_columns::<V, N, 4>(queries, first, tokens.clone(), shape, column);
                column += 4 * LANES;
            } else {
                weigh_columns::<V, N, 1>(queries, first, tokens.clone(), shape, column);
                column += LANES;
            }
        }
    }
}

/// # Safety
/// See [`attend_n`]; columns `column..column + C * 16` are within the padded head.
#[inline(always)]
unsafe fn weigh_columns<V: Lanes, const N: usize, const C: usize>(
    queries: &mut Queries<'_>,
    first: usize,
    tokens: std::ops::Range<usize>,
    shape: &KvShape,
    column: usize,
) {
    let HeadKv {
        kv,
        layer,
        head,
        blocks,
    } = *queries.kv;
    let (dim, per_block) = (shape.padded_dim(), shape.block_tokens);
    let stride = queries.scores_stride;
    // SAFETY: rows of values, scores and outputs are sliced, hence checked, once per block; tokens stay below the
    // block's end.
    unsafe {
        let out = queries.out[first * dim..][..N * dim]
            .as_mut_ptr()
            .add(column);
        let mut acc = [[V::splat(0.0); C]; N];
        for n in 0..N {
            for c in 0..C {
                acc[n][c] = V::load(out.add(n * dim + c * LANES));
            }
        }
        let mut token = tokens.start;
        while token < tokens.end {
            let (block, slot) = (token / per_block, token % per_block);
            let count = (per_block - slot).min(tokens.end - token);
            let values =
                kv.values(layer, blocks[block], head)[slot * dim..][..count * dim].as_ptr();
            let weights = queries.scores[first * stride..][..N * stride].as_ptr();
            let weights = weights.add(token);
            for t in 0..count {
                let mut v = [V::splat(0.0); C];
                for c in 0..C {
                    v[c] = V::load(values.add(t * dim + column + c * LANES));
                }
                for n in 0..N {
                    let p = V::splat(*weights.add(n * stride + t));
                    for c in 0..C {
                        acc[n][c] = p.fma(v[c], acc[n][c]);
                    }
                }
            }
            token += count;
        }
        for n in 0..N {
            for c in 0..C {
                acc[n][c].store(out.add(n * dim + c * LANES));
            }
        }
    }
}
