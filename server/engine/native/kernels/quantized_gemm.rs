//! `y = x Wᵀ` with weights in 8 or 4 bits and activations in bytes.
//!
//! Within a group of 32 the products are summed as integers, exactly; the groups' sums are scaled and added in fp32, one
//! chain from the bias up in the order of the groups. So an output's bits do not depend on the number of rows, the tile,
//! the threads or the instruction set.
//!
//! With AVX-512 the kernel keeps a tile of up to 6 rows x 32 columns twice: 12 registers of integer sums of the group at
//! hand, 12 of floats.

use super::Compute;
use super::dots::{Dots, Operands};
use super::isa::{Isa, dispatch_dots};
use super::lanes::{LANES, Lanes};
use super::matrix::MatrixMut;
use super::panels::{Epilogue, PANEL, panel_product};
use super::quantized_rows::{QuantizedRows, WORDS};
use super::quantized_weights::{Bits, PackedQuantized, STRIP};

/// `y = epilogue(x Wᵀ + b)`: y `[rows of x, >= padded outputs]`.
///
/// # Panics
/// If the shapes do not fit.
pub fn quantized_gemm(
    compute: &Compute,
    x: &QuantizedRows,
    w: &PackedQuantized,
    y: &mut MatrixMut<'_>,
    epilogue: Epilogue,
) {
    assert_eq!(x.inputs(), w.inputs);
    assert_eq!(x.isa(), compute.isa);
    let (isa, x_stride) = (compute.isa, x.stride());
    let strip_bytes = w.groups * w.bits.block();
    // SAFETY: the closure writes the panel's columns of the given rows and nothing else.
    unsafe {
        panel_product(compute, x.rows(), w.panels, y, epilogue, |part, y| {
            for strip in part.panel * (PANEL / STRIP)..(part.panel + 1) * (PANEL / STRIP) {
                let block = Block {
                    x: x.words()[part.rows.start * x_stride..].as_ptr(),
                    x_stride,
                    groups: w.groups,
                    w: w.packed()[strip * strip_bytes..][..strip_bytes].as_ptr(),
                    bias: (w.bias.as_ref()).map(|b| b[strip * STRIP..][..STRIP].as_ptr()),
                    y: y.at(part.rows.start, strip * STRIP),
                    y_stride: y.stride,
                    rows: part.rows.len(),
                    add: part.add,
                };
                // SAFETY: `block` describes rows inside x and y, by the shapes asserted here and there, and one whole
                // strip; only this call touches these columns of these rows.
                match w.bits {
                    Bits::Eight => multiply_eight(isa, block),
                    Bits::Four => multiply_four(isa, block),
                }
            }
        });
    }
}

/// One strip times a block of rows.
#[derive(Clone, Copy)]
struct Block {
    x: *const f32,
    x_stride: usize,
    groups: usize,
    w: *const u8,
    bias: Option<*const f32>,
    y: *mut f32,
    y_stride: usize,
    rows: usize,
    add: bool,
}

/// # Safety
/// `block`'s pointers are valid: `rows` quantized rows at x, a strip of `groups` blocks in 8 bits at w, 32 biases, `rows`
/// rows of 32 floats at y that nobody else uses.
unsafe fn multiply_eight(isa: Isa, block: Block) {
    // SAFETY: passed on.
    unsafe { dispatch_dots!(isa, eight_bits(block: Block)) }
}

/// # Safety
/// As [`multiply_eight`], in 4 bits.
unsafe fn multiply_four(isa: Isa, block: Block) {
    // SAFETY: passed on.
    unsafe { dispatch_dots!(isa, four_bits(block: Block)) }
}

/// # Safety
/// See [`multiply_eight`].
#[inline(always)]
unsafe fn eight_bits<D: Dots>(block: Block) {
    // SAFETY: passed on.
    unsafe { block_rows::<D, false>(block) }
}

/// # Safety
/// See [`multiply_four`].
#[inline(always)]
unsafe fn four_bits<D: Dots>(block: Block) {
    // SAFETY: passed on.
    unsafe { block_rows::<D, true>(block) }
}

/// # Safety
/// See [`multiply_eight`] and [`multiply_four`].
#[inline(always)]
unsafe fn block_rows<D: Dots, const FOUR: bool>(block: Block) {
    let most = D::TILE_ROWS[usize::from(FOUR)];
    // Tiles as even as can be: 7 rows are 4 + 3, not 6 + 1.
    let tiles = block.rows.div_ceil(most);
    let mut first = 0;
    for tile in 0..tiles {
        let rows = (block.rows - first).div_ceil(tiles - tile);
        // SAFETY: the tile's rows are among the block's.
        unsafe {
            match rows {
                1 => strip_tiles::<D, FOUR, 1>(&block, first),
                2 => strip_tiles::<D, FOUR, 2>(&block, first),
                3 => strip_tiles::<D, FOUR, 3>(&block, first),
                4 if most >= 4 => strip_tiles::<D, FOUR, 4>(&block, first),
                5 if most >= 5 => strip_tiles::<D, FOUR, 5>(&block, first),
                6 if most >= 6 => strip_tiles::<D, FOUR, 6>(&block, first),
                _ => unreachable!("a tile has at most {most} rows"),
            }
        }
        first += rows;
    }
}

/// # Safety
/// See [`block_rows`]; rows `first..first + R` are the block's.
#[inline(always)]
unsafe fn strip_tiles<D: Dots, const FOUR: bool, const R: usize>(block: &Block, first: usize) {
    // SAFETY: passed on; the tiles cover the strip's 32 columns.
    unsafe {
        // One row alone leaves room for the whole width, and then the strip is read from end to end.
        if D::WIDE || R == 1 {
            tile::<D, FOUR, R, 2>(block, first, 0);
        } else {
            tile::<D, FOUR, R, 1>(block, first, 0);
            tile::<D, FOUR, R, 1>(block, first, LANES);
        }
    }
}

/// R rows x C*16 columns, all groups.
///
/// # Safety
/// See [`block_rows`]; rows `first..first + R` are the block's, columns `column..column + C * 16` the strip's.
#[inline(always)]
unsafe fn tile<D: Dots, const FOUR: bool, const R: usize, const C: usize>(
    block: &Block,
    first: usize,
    column: usize,
) {
    // Bytes ahead of the stream to fetch: about 200 ns at the memory's speed.
    const AHEAD: usize = 4096;
    let bits = if FOUR { Bits::Four } else { Bits::Eight };
    // The first tile is the one that finds the strip in memory; the others find it in the caches.
    let fetch = first == 0 && column == 0;
    // SAFETY: all offsets stay within the rows, the strip and the columns of the contract; a prefetch may point anywhere.
    unsafe {
        let mut sums = [[D::Floats::splat(0.0); C]; R];
        if let Some(bias) = block.bias {
            for c in 0..C {
                let b = D::Floats::load(bias.add(column + c * LANES));
                for row in &mut sums {
                    row[c] = b;
                }
            }
        }
        let x = block.x.add(first * block.x_stride);
        let mut bytes = x.cast::<u8>();
        let mut words = x.add(block.groups * D::GROUP_BYTES / 4);
        let mut w = block.w;
        for _ in 0..block.groups {
            if fetch {
                for line in 0..bits.block() / 64 {
                    D::Floats::prefetch(w.wrapping_add(AHEAD + line * 64).cast());
                }
            }
            let metas = w.add(bits.weights()).cast::<u32>().add(column);
            let dots = D::group::<FOUR, R, C>(Operands {
                bytes,
                zero: words.add(1).cast(),
                row_bytes: block.x_stride * 4,
                weights: w.add(column * 4),
                metas,
            });
            let minimums = w.add(bits.weights() + STRIP * 4).cast::<u16>().add(column);
            for c in 0..C {
                let scale = D::scales(metas.add(c * LANES));
                for r in 0..R {
                    let words = words.add(r.wrapping_mul(block.x_stride));
                    let factor = D::Floats::splat(*words);
                    let product = dots[r][c].to_floats().mul(scale);
                    sums[r][c] = product.fma(factor, sums[r][c]);
                }
                if FOUR {
                    let min = D::halves(minimums.add(c * LANES));
                    for r in 0..R {
                        let words = words.add(r.wrapping_mul(block.x_stride));
                        let total = D::Floats::splat(*words.add(2));
                        sums[r][c] = min.fma(total, sums[r][c]);
                    }
                }
            }
            bytes = bytes.add(D::GROUP_BYTES);
            words = words.add(WORDS);
            w = w.add(bits.block());
        }
        for (r, row) in sums.into_iter().enumerate() {
            let y = block.y.add((first + r) * block.y_stride + column);
            for (c, sum) in row.into_iter().enumerate() {
                let y = y.add(c * LANES);
                if block.add {
                    D::Floats::load(y).add(sum).store(y)
                } else {
                    sum.store(y)
                }
            }
        }
    }
}
