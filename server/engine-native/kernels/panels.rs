//! What the linear layers share, whatever their weights look like: panels of columns, tasks, epilogues.

use std::ops::Range;

use super::matrix::MatrixMut;
use super::{Compute, activation};

/// Columns (outputs) in a panel of packed weights.
pub const PANEL: usize = 64;
/// Rows that share one pass over a panel: few enough that they and the panel stay in the second-level cache.
pub(super) const BLOCK_ROWS: usize = 48;

/// What happens to `x Wᵀ + b`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Epilogue {
    /// It is stored.
    Store,
    /// It is added to what is there: the residual stream.
    Add,
    /// Its GELU (tanh form) is stored.
    GeluTanh,
    /// Its GELU (error function) is stored.
    GeluErf,
    /// With the first half of the panels as gate `g` and the second as `u`, `silu(g) * u` is stored in the first half
    /// of the columns; the second half holds `u` afterwards.
    SiluMul,
}

/// A task's share of a product.
#[derive(Debug, Clone)]
pub(super) struct Part {
    /// The first of its columns.
    pub(super) column: usize,
    /// Which rows.
    pub(super) rows: Range<usize>,
    /// Whether the product is added to what is there.
    pub(super) add: bool,
}

/// The part, and its rows, that each panel holds: the outputs of the parts lie one after the other, each part padded to
/// whole panels.
pub(super) fn panels(outputs: &[usize]) -> Vec<(usize, Range<usize>)> {
    (outputs.iter().enumerate())
        .flat_map(|(part, &n)| {
            (0..n)
                .step_by(PANEL)
                .map(move |first| (part, first..n.min(first + PANEL)))
        })
        .collect()
}

/// How many outputs the parts have together, each padded to whole panels.
pub(super) fn padded_outputs(outputs: &[usize]) -> usize {
    outputs.iter().map(|n| n.next_multiple_of(PANEL)).sum()
}

/// The biases of the parts in the order of their panels, with zeros between.
pub(super) fn pad_bias(parts: &[Vec<f32>]) -> Vec<f32> {
    let mut bias = Vec::new();
    for part in parts {
        bias.extend_from_slice(part);
        bias.resize(bias.len().next_multiple_of(PANEL), 0.0);
    }
    bias
}

/// How a product is cut into tasks: some columns and a block of rows each.
///
/// Where there are blocks enough, each thread gets rows of its own, the same ones in every operator, so that activations
/// stay in its caches; of these it takes all blocks of some columns, then the next columns, whose weights are then cached
/// in turn.
pub(super) struct Split {
    rows: usize,
    strips: usize,
    /// Each thread's share of the rows, in blocks.
    blocks: usize,
    shares: usize,
}

impl Split {
    /// Of products with `strips` strips of columns.
    pub(super) fn new(rows: usize, strips: usize, threads: usize) -> Self {
        let blocks = rows.div_ceil(BLOCK_ROWS);
        let shares = if blocks > 1 { threads } else { 1 };
        Self {
            rows,
            strips,
            blocks: blocks.div_ceil(shares),
            shares,
        }
    }

    /// How many there are.
    pub(super) fn tasks(&self) -> usize {
        self.shares * self.strips * self.blocks
    }

    /// The strip and the rows, at most [`BLOCK_ROWS`], of a task.
    pub(super) fn task(&self, task: usize) -> (usize, Range<usize>) {
        let (share, task) = (
            task / (self.strips * self.blocks),
            task % (self.strips * self.blocks),
        );
        let (strip, block) = (task / self.blocks, share * self.blocks + task % self.blocks);
        let bound = |block: usize| self.rows * block / (self.shares * self.blocks);
        (strip, bound(block)..bound(block + 1))
    }
}

/// Runs `multiply` for all `columns` in strips of `width`, and blocks of rows, on all threads, and the epilogue behind it.
///
/// # Panics
/// If y does not have `rows` rows of all columns.
///
/// # Safety
/// `multiply(part, y)` must write `width` columns of `part.rows` of y, and nothing else. No two calls that overlap in time
/// have the same columns of the same rows.
pub(super) unsafe fn panel_product(
    compute: &Compute,
    rows: usize,
    (columns, width): (usize, usize),
    y: &mut MatrixMut<'_>,
    epilogue: Epilogue,
    multiply: impl Fn(Part, &MatrixMut<'_>) + Sync,
) {
    assert!(y.stride >= columns && y.rows >= rows && columns.is_multiple_of(width));
    let paired = epilogue == Epilogue::SiluMul;
    assert!(
        !paired || columns.is_multiple_of(2 * PANEL),
        "gate and up have the same number of panels"
    );
    let half = columns / 2;
    let strips = if paired { half } else { columns } / width;
    let split = Split::new(rows, strips, compute.pool.threads());
    let (y, isa) = (&*y, compute.isa);
    compute.pool.run(split.tasks(), &|task, _| {
        let (strip, rows) = split.task(task);
        let column = strip * width;
        let run = |column, add| {
            let rows = rows.clone();
            multiply(Part { column, rows, add }, y);
        };
        run(column, epilogue == Epilogue::Add);
        if paired {
            run(column + half, false);
        }
        for row in rows.clone() {
            // SAFETY: only this task touches these columns of these rows, and `multiply` is done with them.
            let out = unsafe { y.row_part(row, column, width) };
            match epilogue {
                Epilogue::Store | Epilogue::Add => break,
                Epilogue::GeluTanh => activation::gelu_tanh(isa, out),
                Epilogue::GeluErf => activation::gelu_erf(out),
                Epilogue::SiluMul => {
                    // SAFETY: as above; gate and up are different columns.
                    let up = unsafe { y.row_part(row, column + half, width) };
                    activation::silu_mul(isa, out, up);
                }
            }
        }
    });
}
