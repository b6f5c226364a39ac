//! `y = x Wᵀ` in fp32 over packed weights.
//!
//! Every output is one chain of fused multiply-adds over k, from 0 upwards, started at the bias. So its bits do not
//! depend on the number of rows, on the tile it falls into, on the threads, nor on the instruction set.
//!
//! The kernel keeps a tile of up to 6 rows x 64 columns in 24 AVX-512 accumulators, or of 6 x 16 in 12 AVX2 ones, and
//! streams the weights past it. The weights of 16 columns (a *strip*) lie together in the order in which they are read,
//! so that a narrow tile does not skip through memory.

use std::ops::Range;

use code_explainer_engine::EngineError;
use rayon::prelude::*;

use super::Compute;
use super::isa::{Isa, dispatch};
use super::lanes::{LANES, Lanes};
use super::matrix::{Matrix, MatrixMut};
use super::panels::{Epilogue, PANEL, pad_bias, panel_product, panels};
use crate::buffer::Buffer;

/// Rows in the largest tile.
const TILE_ROWS: usize = 6;

/// Linear weights packed as `[N/16][K][16]`.
///
/// The outputs of one or several parts (query, key, value; gate, up) lie one after the other, each part padded with
/// zeros to whole panels.
#[derive(Debug)]
pub struct PackedF32 {
    weights: Buffer,
    bias: Option<Vec<f32>>,
    inputs: usize,
    panels: usize,
}

impl PackedF32 {
    /// Packs the parts of `outputs` rows each, over `inputs` columns. `rows(part, range, out)` gives rows of a part,
    /// `[range.len(), inputs]`; it is called from several threads, for up to 64 rows at a time, so that the matrix is
    /// never held twice.
    ///
    /// # Errors
    /// When there is not enough memory for `what`.
    pub fn pack(
        inputs: usize,
        outputs: &[usize],
        what: &str,
        rows: impl Fn(usize, Range<usize>, &mut [f32]) + Sync,
    ) -> Result<Self, EngineError> {
        let panels = panels(outputs);
        let mut weights = Buffer::zeroed(panels.len() * PANEL * inputs, what)?;
        (weights
            .as_mut_slice()
            .par_chunks_mut(PANEL * inputs)
            .zip(&panels))
        .for_each_init(
            || vec![0.0; PANEL * inputs],
            |unpacked, (panel, (part, range))| {
                let unpacked = &mut unpacked[..range.len() * inputs];
                rows(*part, range.clone(), unpacked);
                for (column, row) in unpacked.chunks_exact(inputs).enumerate() {
                    let strip = &mut panel[column / LANES * LANES * inputs..][..LANES * inputs];
                    for (line, &w) in strip.chunks_exact_mut(LANES).zip(row) {
                        line[column % LANES] = w;
                    }
                }
            },
        );
        Ok(Self {
            weights,
            bias: None,
            inputs,
            panels: panels.len(),
        })
    }

    /// Adds biases: those of the parts, one after the other, as [`pack`](Self::pack) got them.
    ///
    /// # Panics
    /// If they are not as many as there are outputs with padding.
    pub fn with_bias(mut self, parts: &[Vec<f32>]) -> Self {
        let bias = pad_bias(parts);
        assert_eq!(bias.len(), self.padded_outputs());
        self.bias = Some(bias);
        self
    }

    /// Row `row` of the unpacked matrix into `out`: the embedding of a token out of a tied head.
    ///
    /// # Panics
    /// If there is no such row or `out` is shorter than it.
    pub fn unpack_row(&self, row: usize, out: &mut [f32]) {
        let strip =
            &self.weights.as_slice()[row / LANES * LANES * self.inputs..][..LANES * self.inputs];
        for (o, line) in out[..self.inputs].iter_mut().zip(strip.chunks_exact(LANES)) {
            *o = line[row % LANES];
        }
    }

    /// Inputs (k).
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// Outputs with padding: the stride that `y` needs.
    pub fn padded_outputs(&self) -> usize {
        self.panels * PANEL
    }

    /// Bytes of weights and biases.
    pub fn bytes(&self) -> u64 {
        self.weights.bytes() + self.bias.as_ref().map_or(0, |b| 4 * b.len() as u64)
    }
}

/// `y = epilogue(x Wᵀ + b)`: x `[m, >= k]`, y `[m, >= padded outputs]`.
///
/// # Panics
/// If the shapes do not fit.
pub fn gemm(
    compute: &Compute,
    x: Matrix<'_>,
    w: &PackedF32,
    y: &mut MatrixMut<'_>,
    epilogue: Epilogue,
) {
    let (k, isa) = (w.inputs, compute.isa);
    assert!(x.stride >= k);
    // SAFETY: the closure writes the panel's columns of the given rows and nothing else.
    unsafe {
        let columns = (w.panels * PANEL, PANEL);
        panel_product(compute, x.rows, columns, y, epilogue, |part, y| {
            let block = Block {
                x: x.data[part.rows.start * x.stride..].as_ptr(),
                x_stride: x.stride,
                k,
                w: w.weights.as_slice()[part.column * k..][..k * PANEL].as_ptr(),
                bias: w.bias.as_ref().map(|b| b[part.column..][..PANEL].as_ptr()),
                y: y.at(part.rows.start, part.column),
                y_stride: y.stride,
                rows: part.rows.len(),
                add: part.add,
            };
            // SAFETY: `block` describes rows inside x and y, by the shapes asserted here and there, and one whole
            // panel; only this call touches these columns of these rows.
            multiply(isa, block);
        });
    }
}

/// One panel times a block of rows.
#[derive(Clone, Copy)]
struct Block {
    x: *const f32,
    x_stride: usize,
    k: usize,
    w: *const f32,
    bias: Option<*const f32>,
    y: *mut f32,
    y_stride: usize,
    rows: usize,
    add: bool,
}

/// # Safety
/// `block`'s pointers are valid: `rows` rows of `k` floats at x, a panel of four strips of `k` x 16 at w, 64 biases, `rows` rows of 64
/// floats at y that nobody else uses.
unsafe fn multiply(isa: Isa, block: Block) {
    // SAFETY: passed on.
    unsafe { dispatch!(isa, block_rows(block: Block)) }
}

/// # Safety
/// See [`multiply`].
#[inline(always)]
unsafe fn block_rows<V: Lanes>(block: Block) {
    // Tiles as even as can be: 7 rows are 4 + 3, not 6 + 1.
    let tiles = block.rows.div_ceil(TILE_ROWS);
    let mut first = 0;
    for tile in 0..tiles {
        let rows = (block.rows - first).div_ceil(tiles - tile);
        // SAFETY: the tile's rows are among the block's; columns 0..64 in steps of the tile's width.
        unsafe {
            match rows {
                1 => panel_tiles::<V, 1, 4>(&block, first),
                2 if V::WIDE => panel_tiles::<V, 2, 4>(&block, first),
                3 if V::WIDE => panel_tiles::<V, 3, 4>(&block, first),
                4 if V::WIDE => panel_tiles::<V, 4, 4>(&block, first),
                5 if V::WIDE => panel_tiles::<V, 5, 4>(&block, first),
                6 if V::WIDE => panel_tiles::<V, 6, 4>(&block, first),
                2 => panel_tiles::<V, 2, 2>(&block, first),
                3 => panel_tiles::<V, 3, 1>(&block, first),
                4 => panel_tiles::<V, 4, 1>(&block, first),
                5 => panel_tiles::<V, 5, 1>(&block, first),
                _ => panel_tiles::<V, 6, 1>(&block, first),
            }
        }
        first += rows;
    }
}

/// # Safety
/// See [`multiply`]; rows `first..first + R` are the block's.
#[inline(always)]
unsafe fn panel_tiles<V: Lanes, const R: usize, const C: usize>(block: &Block, first: usize) {
    let mut column = 0;
    while column < PANEL {
        // SAFETY: passed on; `column + C * 16` is at most 64.
        unsafe { tile::<V, R, C>(block, first, column) };
        column += C * LANES;
    }
}

/// R rows x C*16 columns, all of k.
///
/// # Safety
/// See [`multiply`]; rows `first..first + R` are the block's, columns `column..column + C * 16` the panel's.
#[inline(always)]
unsafe fn tile<V: Lanes, const R: usize, const C: usize>(
    block: &Block,
    first: usize,
    column: usize,
) {
    // How far ahead of the stream to fetch: some 64 lines, about 100 ns at the speed of the products.
    const AHEAD: usize = 64 * LANES;
    let strip = block.k * LANES;
    // SAFETY: all offsets stay within the rows, the panel and the columns of the contract; a prefetch may point anywhere.
    unsafe {
        let mut acc = [[V::splat(0.0); C]; R];
        if let Some(bias) = block.bias {
            for c in 0..C {
                let b = V::load(bias.add(column + c * LANES));
                for row in &mut acc {
                    row[c] = b;
                }
            }
        }
        // The pointers are there before the loop: in it, whatever is not a product costs one.
        let mut x = [block.x; R];
        for r in 0..R {
            x[r] = block.x.add((first + r) * block.x_stride);
        }
        let mut w = [block.w; C];
        for c in 0..C {
            w[c] = block.w.add(column / LANES * strip + c * strip);
        }
        for k in 0..block.k {
            let mut b = [V::splat(0.0); C];
            for c in 0..C {
                b[c] = V::load(w[c]);
                V::prefetch(w[c].wrapping_add(AHEAD));
                w[c] = w[c].add(LANES);
            }
            for r in 0..R {
                let a = V::splat(*x[r].add(k));
                for c in 0..C {
                    acc[r][c] = a.fma(b[c], acc[r][c]);
                }
            }
        }
        for (r, row) in acc.into_iter().enumerate() {
            let y = block.y.add((first + r) * block.y_stride + column);
            for (c, sum) in row.into_iter().enumerate() {
                let y = y.add(c * LANES);
                if block.add {
                    V::load(y).add(sum).store(y)
                } else {
                    sum.store(y)
                }
            }
        }
    }
}
