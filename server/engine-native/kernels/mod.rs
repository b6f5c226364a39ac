//! The operators, vectorised and spread over the pool's threads.
//!
//! Everything here is exact in this sense: a result's bits depend on its own inputs alone, not on the other rows, the
//! number of threads or the instruction set. Safe functions check their shapes; all that is unsafe in the engine is below
//! this module and in the pool.
//!
//! Reading order: [`isa`], `lanes`, [`matrix`], [`panels`], [`gemm`], `dots`, [`quantized_rows`], [`quantized_weights`],
//! [`quantized_gemm`], `quantized_strip`, [`norm`], [`activation`], [`rope`], `stored`, [`kv`], [`attention`], `attend`, `span`, `softmax`; and
//! [`limits`], what they are measured against.

#![allow(
    clippy::needless_range_loop,
    reason = "tiles of registers are indexed by row and column"
)]

pub mod activation;
mod attend;
pub mod attention;
mod dots;
pub mod gemm;
pub mod isa;
pub mod kv;
mod lanes;
pub mod limits;
pub mod matrix;
pub mod norm;
pub mod panels;
pub mod quantized_gemm;
pub mod quantized_rows;
mod quantized_strip;
pub mod quantized_weights;
pub mod rope;
mod softmax;
mod span;
mod stored;

use std::ops::Range;

use isa::Isa;

use super::pool::Pool;

/// Rows from which on the threads share the work of a row-wise operator; for fewer a fork costs more than it saves.
const PARALLEL_ROWS: usize = 16;

/// Rows in a task of such an operator.
const TASK_ROWS: usize = 8;

/// What operators run on.
pub struct Compute {
    /// The threads.
    pub pool: Pool,
    /// The instructions.
    pub isa: Isa,
}

/// Calls `f(rows, worker)` for parts of the rows, on all threads where it is worth it. No two calls that overlap in time
/// have the same worker.
fn for_rows(compute: &Compute, rows: usize, f: impl Fn(Range<usize>, usize) + Sync) {
    let part = |task: usize| task * TASK_ROWS..rows.min((task + 1) * TASK_ROWS);
    let tasks = rows.div_ceil(TASK_ROWS);
    if rows < PARALLEL_ROWS {
        return (0..tasks).for_each(|task| f(part(task), 0));
    }
    compute
        .pool
        .run(tasks, &|task, worker| f(part(task), worker));
}
