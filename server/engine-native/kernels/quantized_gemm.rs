//! `y = x Wᵀ` with weights in 8 or 4 bits and activations in bytes.
//!
//! Within a group of 32 the products are summed as integers, exactly; the groups' sums are scaled and added in fp32, one
//! chain from the bias up in the order of the groups. So an output's bits do not depend on the number of rows, the tile,
//! the threads or the instruction set.

use super::Compute;
use super::activation;
use super::matrix::MatrixMut;
use super::panels::{BLOCK_ROWS, Epilogue, PANEL, Split, panel_product};
use super::quantized_rows::{GROUP, QuantizedRows};
use super::quantized_strip::{Block, multiply};
use super::quantized_weights::{PackedQuantized, STRIP};

/// Floats that [`gated_product`] needs for each worker.
pub const GATED_SCRATCH: usize = BLOCK_ROWS * 2 * PANEL;

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
    then: Option<Then<'_>>,
) {
    let isa = compute.isa;
    let order = Order::new(compute, w, x.rows(), false);
    let columns = (w.padded_outputs(), order.strips * STRIP);
    // SAFETY: the closure writes the part's columns of its rows and nothing else.
    unsafe {
        panel_product(compute, x.rows(), columns, y, epilogue, |part, y| {
            for column in (part.column..part.column + columns.1).step_by(STRIP) {
                let to = (y.at(part.rows.start, column), y.stride);
                let strip = column / STRIP;
                let mut block = Block::new(isa, x, w, (strip, part.rows.clone()), to);
                block.add = part.add;
                block.next = order.next(w, strip + 1, then);
                // SAFETY: these rows of y are there, by what `panel_product` asserts, and only this call touches these
                // columns.
                multiply(isa, w.bits, block);
            }
        });
    }
}

/// `out = silu(g) u` in bytes, where `g` is the first half of `x Wᵀ + b` and `u` the second, for the layer `then`.
/// What lies between stays in `scratch`, and so in the caches: [`GATED_SCRATCH`] floats for each worker.
///
/// # Panics
/// If the shapes do not fit.
pub fn gated_product(
    compute: &Compute,
    x: &QuantizedRows,
    w: &PackedQuantized,
    scratch: &mut MatrixMut<'_>,
    out: &mut QuantizedRows,
    then: &PackedQuantized,
) {
    let inputs = then.inputs;
    let (isa, half) = (compute.isa, w.padded_outputs() / 2);
    let groups = inputs.div_ceil(GROUP);
    assert!(half.is_multiple_of(PANEL) && half >= inputs);
    assert!(scratch.rows >= compute.pool.threads() && scratch.stride >= GATED_SCRATCH);
    let (out, scratch) = (out.begin(isa, x.rows(), inputs), &*scratch);
    // Whole panels: of narrower pieces memory has not yet brought the second when it is to begin with the third.
    let order = Order::new(compute, w, x.rows(), true);
    let then = Some(Then {
        w: then,
        gated: false,
    });
    let split = Split::new(x.rows(), half / PANEL, compute.pool.threads());
    compute.pool.run(split.tasks(), &|task, worker| {
        let (panel, rows) = split.task(task);
        let gates = scratch.at(worker, 0);
        let strip = |column: usize| {
            let from = if column < PANEL { 0 } else { half - PANEL };
            (panel * PANEL + from + column) / STRIP
        };
        for column in (0..2 * PANEL).step_by(STRIP) {
            let to = (gates.wrapping_add(column), 2 * PANEL);
            let mut block = Block::new(isa, x, w, (strip(column), rows.clone()), to);
            // Behind the panel's last gate come its ups, and behind these the next panel's gates.
            block.next = match column + STRIP {
                end if end < 2 * PANEL => w.strip(strip(end)),
                _ => order.next(w, (panel + 1) * PANEL / STRIP, then),
            };
            // SAFETY: a worker has a row of scratch for itself, with room for a block's gates and ups.
            unsafe { multiply(isa, w.bits, block) };
        }
        let group = panel * PANEL / GROUP;
        // SAFETY: as above; only this task writes these groups of these rows.
        unsafe {
            activation::silu_mul_rows(isa, rows.len(), gates, 2 * PANEL);
            let groups = group.min(groups)..groups.min(group + PANEL / GROUP);
            out.quantize(rows, groups, gates, 2 * PANEL);
        }
    });
}

/// What is multiplied next: its first weights are fetched with the last ones before.
#[derive(Debug, Clone, Copy)]
pub struct Then<'a> {
    /// Its weights.
    pub w: &'a PackedQuantized,
    /// By [`gated_product`].
    pub gated: bool,
}

/// In which order the workers take strips.
#[derive(Debug, Clone, Copy)]
struct Order {
    /// Strips of a task, and tasks.
    strips: usize,
    tasks: usize,
    threads: usize,
    /// Whether each worker takes all of them, for rows of its own.
    all: bool,
}

impl Order {
    fn new(compute: &Compute, w: &PackedQuantized, rows: usize, gated: bool) -> Self {
        Self::shaped(w, gated, compute.pool.threads(), rows > BLOCK_ROWS)
    }

    fn shaped(w: &PackedQuantized, gated: bool, threads: usize, all: bool) -> Self {
        // A strip at a time shares out few columns more evenly; otherwise a panel writes twice as much of a row at once.
        let few = !all && !gated && w.panels < 16 * threads;
        Self {
            strips: if few { 1 } else { PANEL / STRIP },
            tasks: match (gated, few) {
                (true, _) => w.panels / 2,
                (_, true) => w.panels * (PANEL / STRIP),
                _ => w.panels,
            },
            threads,
            all,
        }
    }

    /// The first task of a worker; see [`Pool::run`](crate::pool::Pool::run).
    fn first(&self, worker: usize) -> usize {
        match self.all {
            true => 0,
            false => (self.tasks * worker).div_ceil(self.threads),
        }
    }

    /// Where the weights lie that whoever is done with all strips before `end` most likely reads next.
    fn next(&self, w: &PackedQuantized, end: usize, then: Option<Then<'_>>) -> *const u8 {
        let (task, worker) = match self.all {
            true => (self.tasks, 0),
            false => {
                let last = end.div_ceil(self.strips) - 1;
                let worker = (last * self.threads / self.tasks).min(self.threads - 1);
                (((worker + 1) * self.tasks).div_ceil(self.threads), worker)
            }
        };
        match then {
            Some(then) if end == task * self.strips => {
                let order = Self::shaped(then.w, then.gated, self.threads, self.all);
                then.w.strip(order.first(worker) * order.strips)
            }
            _ => w.strip(end),
        }
    }
}
