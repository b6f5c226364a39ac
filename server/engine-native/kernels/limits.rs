//! What this machine can do at most, for kernels to be measured against: loops that do nothing else.

use std::hint::black_box;

use super::Compute;
use super::isa::dispatch;
use super::lanes::{LANES, Lanes};

/// Tasks for each thread, so that one that is late holds nobody up.
const TASKS: usize = 8;
/// Floats of a task that reads.
const CHUNK: usize = 1 << 14;

/// Multiplies and adds fp32 in registers, `rounds` times on each of some tasks; gives how many operations that were, a
/// multiply-add counting as two.
pub fn multiply_add(compute: &Compute, rounds: usize) -> u64 {
    let (tasks, isa) = (TASKS * compute.pool.threads(), compute.isa);
    compute.pool.run(tasks, &|_, _| {
        let mut sum = 0.0;
        let out = &raw mut sum;
        // SAFETY: `out` is a float of this task's own.
        unsafe { dispatch!(isa, fma_loop(rounds: usize, out: *mut f32)) };
        black_box(sum);
    });
    (tasks * rounds * ACCUMULATORS * LANES * 2) as u64
}

/// Multiplies and adds bytes by the integer dot products (VNNI) in registers; otherwise as
/// [`multiply_add`]. `None` if the instruction set has none.
pub fn byte_products(compute: &Compute, rounds: usize) -> Option<u64> {
    #[cfg(target_arch = "x86_64")]
    if compute.isa.0 == super::isa::Level::Avx512Vnni {
        let tasks = TASKS * compute.pool.threads();
        compute.pool.run(tasks, &|_, _| {
            // SAFETY: the instructions are there, as the `Isa` proves.
            black_box(unsafe { super::dots::vnni_loop(rounds) });
        });
        return Some((tasks * rounds * super::dots::VNNI_LOOP_OPERATIONS) as u64);
    }
    let _ = (compute, rounds);
    None
}

/// Reads all of `data` once, each thread its part of it from end to end.
pub fn read(compute: &Compute, data: &[f32]) {
    let isa = compute.isa;
    let chunks: Vec<&[f32]> = data.chunks_exact(CHUNK).collect();
    compute.pool.run(chunks.len(), &|i, _| {
        let (from, mut sum) = (chunks[i].as_ptr(), 0.0);
        let out = &raw mut sum;
        // SAFETY: a chunk has CHUNK floats; `out` is a float of this task's own.
        unsafe { dispatch!(isa, read_loop(from: *const f32, out: *mut f32)) };
        black_box(sum);
    });
}

/// Independent chains: enough to hide a multiply-add's latency, few enough for every instruction set's registers.
const ACCUMULATORS: usize = 12;

/// # Safety
/// The instructions are there, and a float at `out`.
#[inline(always)]
unsafe fn fma_loop<V: Lanes>(rounds: usize, out: *mut f32) {
    // SAFETY: passed on.
    unsafe {
        let (a, b) = (V::splat(black_box(1e-6)), V::splat(black_box(1.0)));
        let mut sums = [V::splat(0.0); ACCUMULATORS];
        for _ in 0..rounds {
            for sum in &mut sums {
                *sum = a.fma(b, *sum);
            }
        }
        *out = sums.into_iter().fold(0.0, |total, sum| total + sum.sum());
    }
}

/// # Safety
/// The instructions are there, CHUNK floats at `from`, and a float at `out`.
#[inline(always)]
unsafe fn read_loop<V: Lanes>(from: *const f32, out: *mut f32) {
    // Far enough ahead that the memory is never idle.
    const AHEAD: usize = 1024;
    const TOGETHER: usize = 4;
    // SAFETY: offsets are below CHUNK; a prefetch may point anywhere.
    unsafe {
        let mut sums = [V::splat(0.0); TOGETHER];
        for at in (0..CHUNK).step_by(TOGETHER * LANES) {
            for (i, sum) in sums.iter_mut().enumerate() {
                let p = from.add(at + i * LANES);
                V::prefetch(p.wrapping_add(AHEAD));
                *sum = sum.add(V::load(p));
            }
        }
        *out = sums.into_iter().fold(0.0, |total, sum| total + sum.sum());
    }
}
