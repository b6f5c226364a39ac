//! The feed-forward network's nonlinearities, in place.

use super::isa::{Isa, dispatch};
use super::lanes::{LANES, Lanes};
use super::panels::PANEL;

/// `gate = silu(gate) * up`, with `silu(x) = x / (1 + e^-x)`.
///
/// # Panics
/// If the lengths differ or are not multiples of 16.
pub fn silu_mul(isa: Isa, gate: &mut [f32], up: &[f32]) {
    assert!(gate.len() == up.len() && gate.len().is_multiple_of(LANES));
    let (n, gate, up) = (gate.len(), gate.as_mut_ptr(), up.as_ptr());
    // SAFETY: both hold n floats, a multiple of 16.
    unsafe { dispatch!(isa, silu_mul_lanes(n: usize, gate: *mut f32, up: *const f32)) }
}

/// [`silu_mul`] for some rows of a panel of gates and then one of factors, `stride` apart.
///
/// # Safety
/// They lie there, and nobody else uses them.
pub(super) unsafe fn silu_mul_rows(isa: Isa, rows: usize, first: *mut f32, stride: usize) {
    // SAFETY: passed on.
    unsafe { dispatch!(isa, silu_mul_rows_lanes(rows: usize, first: *mut f32, stride: usize)) }
}

/// `x = gelu(x)` by the tanh form: `x/2 (1 + tanh(u)) = x / (1 + e^-2u)` with `u = sqrt(2/pi) (x + 0.044715 x^3)`.
///
/// # Panics
/// If the length is not a multiple of 16.
pub fn gelu_tanh(isa: Isa, x: &mut [f32]) {
    assert!(x.len().is_multiple_of(LANES));
    let (n, x) = (x.len(), x.as_mut_ptr());
    // SAFETY: x holds n floats, a multiple of 16.
    unsafe { dispatch!(isa, gelu_tanh_lanes(n: usize, x: *mut f32)) }
}

/// `x = gelu(x) = x/2 (1 + erf(x / sqrt 2))`, erf by Abramowitz and Stegun 7.1.26 in f64 (error below 1.5e-7).
pub fn gelu_erf(x: &mut [f32]) {
    for x in x {
        let z = f64::from(*x) * std::f64::consts::FRAC_1_SQRT_2;
        let t = 1.0 / (1.0 + 0.327_591_1 * z.abs());
        let c = [
            1.061_405_429,
            -1.453_152_027,
            1.421_413_741,
            -0.284_496_736,
            0.254_829_592,
        ];
        let p = c.iter().fold(0.0, |p, c| (p + c) * t);
        let erf = (1.0 - p * (-z * z).exp()).copysign(z);
        *x = (0.5 * f64::from(*x) * (1.0 + erf)) as f32;
    }
}

/// # Safety
/// `n`, a multiple of 16, floats at both pointers.
#[inline(always)]
unsafe fn silu_mul_lanes<V: Lanes>(n: usize, gate: *mut f32, up: *const f32) {
    for i in (0..n).step_by(LANES) {
        // SAFETY: i + 16 is at most n.
        unsafe {
            let g = V::load(gate.add(i));
            let e = V::splat(0.0).sub(g).exp();
            g.div(V::splat(1.0).add(e))
                .mul(V::load(up.add(i)))
                .store(gate.add(i));
        }
    }
}

/// # Safety
/// See [`silu_mul_rows`].
#[inline(always)]
unsafe fn silu_mul_rows_lanes<V: Lanes>(rows: usize, first: *mut f32, stride: usize) {
    for row in 0..rows {
        // SAFETY: passed on.
        unsafe {
            let gates = first.add(row * stride);
            silu_mul_lanes::<V>(PANEL, gates, gates.add(PANEL));
        }
    }
}

/// # Safety
/// `n`, a multiple of 16, floats at the pointer.
#[inline(always)]
unsafe fn gelu_tanh_lanes<V: Lanes>(n: usize, x: *mut f32) {
    // -2 sqrt(2/pi)
    const SCALE: f32 = -1.595_769;
    for i in (0..n).step_by(LANES) {
        // SAFETY: i + 16 is at most n.
        unsafe {
            let v = V::load(x.add(i));
            let inner = v.mul(v).mul(v).fma(V::splat(0.044_715), v);
            let e = inner.mul(V::splat(SCALE)).exp();
            v.div(V::splat(1.0).add(e)).store(x.add(i));
        }
    }
}
