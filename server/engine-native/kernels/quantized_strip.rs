//! A strip of quantized weights times a block of quantized rows: the innermost part of [`quantized_gemm`].
//!
//! With AVX-512 a tile is up to 6 rows x 32 columns, kept twice: 12 registers of integer sums of the group at hand, 12 of
//! floats.
//!
//! [`quantized_gemm`]: super::quantized_gemm

use std::ops::Range;

use super::dots::{Dots, Operands};
use super::isa::{Isa, dispatch_dots};
use super::lanes::{LANES, Lanes};
use super::quantized_rows::{QuantizedRows, WORDS};
use super::quantized_weights::{Bits, PackedQuantized, STRIP};

/// One strip times a block of rows.
#[derive(Clone, Copy)]
pub(super) struct Block {
    x: *const f32,
    x_stride: usize,
    groups: usize,
    w: *const u8,
    bias: Option<*const f32>,
    y: *mut f32,
    y_stride: usize,
    rows: usize,
    /// To what is in y already.
    pub(super) add: bool,
    /// The strip that comes after this one: it is fetched meanwhile.
    pub(super) next: *const u8,
}

impl Block {
    /// A strip of w times some rows of x, stored to rows of y that are so far apart.
    ///
    /// # Panics
    /// If there are no such rows or no such strip, or x was made for other weights or instructions.
    pub(super) fn new(
        isa: Isa,
        x: &QuantizedRows,
        w: &PackedQuantized,
        (strip, rows): (usize, Range<usize>),
        (y, y_stride): (*mut f32, usize),
    ) -> Self {
        assert_eq!((x.inputs(), x.isa()), (w.inputs, isa));
        let (x_stride, strip_bytes) = (x.stride(), w.groups * w.bits.block());
        let packed = &w.packed()[strip * strip_bytes..][..strip_bytes];
        Self {
            x: x.words()[rows.start * x_stride..rows.end * x_stride].as_ptr(),
            x_stride,
            groups: w.groups,
            w: packed.as_ptr(),
            bias: (w.bias.as_ref()).map(|b| b[strip * STRIP..][..STRIP].as_ptr()),
            y,
            y_stride,
            rows: rows.len(),
            add: false,
            next: packed.as_ptr_range().end,
        }
    }
}

/// Bytes that memory brings at once.
const LINE: usize = 64;

/// How far ahead a tile fetches that is alone on its strip, in bytes: about 200 ns at the speed of memory.
const AHEAD: usize = 4096;

/// What a tile fetches.
#[derive(Clone, Copy)]
struct Ahead {
    /// What it will soon read itself, because it is alone on its strip.
    alone: bool,
    /// Where the strip ends, and how far from there the next one begins.
    end: *const u8,
    jump: usize,
    /// Otherwise a part of the next strip. All tiles of a strip share in it: if the first alone fetched what it reads, it
    /// would wait for memory, and memory for the others.
    next: *const u8,
    /// So many lines with each group.
    lines: usize,
}

/// # Safety
/// The block is of [`Block::new`] for these instructions and bits, and nobody else uses its rows of 32 floats at y.
pub(super) unsafe fn multiply(isa: Isa, bits: Bits, block: Block) {
    // SAFETY: passed on.
    unsafe {
        match bits {
            Bits::Eight => multiply_eight(isa, block),
            Bits::Four => multiply_four(isa, block),
        }
    }
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
    let bits = if FOUR { Bits::Four } else { Bits::Eight };
    let lines = (bits.block() / LINE).div_ceil(tiles.max(1));
    let end = block.w.wrapping_add(block.groups * bits.block());
    for tile in 0..tiles {
        let rows = (block.rows - first).div_ceil(tiles - tile);
        let ahead = Ahead {
            alone: tiles == 1,
            end,
            jump: (block.next as usize).wrapping_sub(end as usize),
            next: (block.next).wrapping_add(tile * lines * LINE * block.groups),
            lines,
        };
        // SAFETY: the tile's rows are among the block's.
        unsafe {
            match rows {
                1 => strip_tiles::<D, FOUR, 1>(&block, first, ahead),
                2 => strip_tiles::<D, FOUR, 2>(&block, first, ahead),
                3 => strip_tiles::<D, FOUR, 3>(&block, first, ahead),
                4 if most >= 4 => strip_tiles::<D, FOUR, 4>(&block, first, ahead),
                5 if most >= 5 => strip_tiles::<D, FOUR, 5>(&block, first, ahead),
                6 if most >= 6 => strip_tiles::<D, FOUR, 6>(&block, first, ahead),
                _ => unreachable!("a tile has at most {most} rows"),
            }
        }
        first += rows;
    }
}

/// # Safety
/// See [`block_rows`]; rows `first..first + R` are the block's.
#[inline(always)]
unsafe fn strip_tiles<D: Dots, const FOUR: bool, const R: usize>(
    block: &Block,
    first: usize,
    ahead: Ahead,
) {
    // SAFETY: passed on; the tiles cover the strip's 32 columns.
    unsafe {
        // One row alone leaves room for the whole width, and then the strip is read from end to end.
        if D::WIDE || R == 1 {
            tile::<D, FOUR, R, 2>(block, first, 0, ahead);
        } else {
            tile::<D, FOUR, R, 1>(block, first, 0, ahead);
            let (alone, lines) = (false, 0);
            let none = Ahead {
                alone,
                lines,
                ..ahead
            };
            tile::<D, FOUR, R, 1>(block, first, LANES, none);
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
    mut ahead: Ahead,
) {
    let bits = if FOUR { Bits::Four } else { Bits::Eight };
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
            if ahead.alone {
                let mut at = w.wrapping_add(AHEAD);
                if at >= ahead.end {
                    at = at.wrapping_add(ahead.jump);
                }
                for line in 0..bits.block() / LINE {
                    D::Floats::prefetch(at.wrapping_add(line * LINE).cast());
                }
            } else {
                for _ in 0..ahead.lines {
                    D::Floats::prefetch(ahead.next.cast());
                    ahead.next = ahead.next.wrapping_add(LINE);
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
