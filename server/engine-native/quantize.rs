//! From a tensor's rows to groups of 32 weights in 8 or 4 bits: the file's own blocks where they fit, as they are, and
//! otherwise the nearest weights that the format has.

use std::ops::Range;

use code_explainer_engine::EngineError;
use code_explainer_weights::{DType, TensorView};
use half::f16;

use super::kernels::quantized_rows::GROUP;
use super::kernels::quantized_weights::{Bits, Group};

/// The groups of rows `rows` of a tensor, `[rows][groups]`; the last group of a row is filled up with zeros.
///
/// Exact, with the file's scales and minimums: Q8_0 and Q4_0 in 8 bits, Q4_0 and Q4_1 in 4 bits.
///
/// # Errors
/// When a value is too large for the format, or no number.
///
/// # Panics
/// If the tensor has no such rows, or `out` is not as long as their groups.
pub fn quantize_rows(
    bits: Bits,
    tensor: &TensorView<'_>,
    rows: Range<usize>,
    out: &mut [Group],
) -> Result<(), EngineError> {
    let columns = tensor.columns();
    let groups = columns.div_ceil(GROUP);
    assert_eq!(out.len(), rows.len() * groups);
    let unfit = || EngineError::Unrepresentable {
        tensor: tensor.name.to_owned(),
    };
    if let Some(decode) = decoder(bits, tensor.dtype) {
        for (row, out) in rows.zip(out.chunks_exact_mut(groups)) {
            let blocks = tensor.row_bytes(row).expect("rows of blocks lie together");
            let blocks = blocks.chunks_exact(tensor.dtype.block_bytes());
            for (out, block) in out.iter_mut().zip(blocks) {
                *out = checked(decode(block)).ok_or_else(unfit)?;
            }
        }
        return Ok(());
    }
    let mut values = vec![0.0; rows.len() * columns];
    tensor.rows_to_f32(rows, &mut values);
    for (row, out) in values.chunks(columns).zip(out.chunks_exact_mut(groups)) {
        for (values, out) in row.chunks(GROUP).zip(out) {
            let mut x = [0.0; GROUP];
            x[..values.len()].copy_from_slice(values);
            *out = quantize(bits, &x).ok_or_else(unfit)?;
        }
    }
    Ok(())
}

/// The nearest group that the format has: in 8 bits with the largest magnitude at 127; in 4 bits with the scale and
/// minimum of least squares, out of several ways to round. `None`: a value is too large for the scale, or no number.
pub fn quantize(bits: Bits, x: &[f32; GROUP]) -> Option<Group> {
    if !x.iter().all(|x| x.is_finite()) {
        return None;
    }
    checked(match bits {
        Bits::Eight => eight(x),
        Bits::Four => four(x),
    })
}

fn checked(group: Group) -> Option<Group> {
    (group.scale.is_finite() && group.min.is_finite()).then_some(group)
}

fn decoder(bits: Bits, dtype: DType) -> Option<fn(&[u8]) -> Group> {
    match (bits, dtype) {
        (Bits::Eight, DType::Q8_0) => Some(|block| Group {
            scale: half_at(block, 0),
            min: f16::ZERO,
            q: std::array::from_fn(|i| block[2 + i] as i8),
        }),
        (Bits::Eight, DType::Q4_0) => Some(|block| Group {
            scale: half_at(block, 0),
            min: f16::ZERO,
            q: nibbles(&block[2..]).map(|q| q - 8),
        }),
        (Bits::Four, DType::Q4_0) => Some(|block| Group {
            scale: half_at(block, 0),
            // A power of two times a half: exact, or infinite and found out.
            min: f16::from_f32(half_at(block, 0).to_f32() * -8.0),
            q: nibbles(&block[2..]),
        }),
        (Bits::Four, DType::Q4_1) => Some(|block| Group {
            scale: half_at(block, 0),
            min: half_at(block, 2),
            q: nibbles(&block[4..]),
        }),
        _ => None,
    }
}

fn half_at(block: &[u8], at: usize) -> f16 {
    f16::from_le_bytes([block[at], block[at + 1]])
}

/// The first 16 in the low nibbles, the others in the high ones.
fn nibbles(bytes: &[u8]) -> [i8; GROUP] {
    std::array::from_fn(|i| (bytes[i % 16] >> (4 * (i / 16)) & 15) as i8)
}

fn eight(x: &[f32; GROUP]) -> Group {
    let largest = x.iter().fold(0f32, |a, x| a.max(x.abs()));
    let scale = f16::from_f32(largest / 127.0);
    let inverse = inverse(scale);
    Group {
        scale,
        min: f16::ZERO,
        q: x.map(|x| nearest(x * inverse, -127.0, 127.0)),
    }
}

fn four(x: &[f32; GROUP]) -> Group {
    /// How many steps the range of the values is cut into, at first: there are 15, and more cut off the ends.
    const STEPS: [f32; 12] = [
        14.0, 14.4, 14.8, 15.0, 15.2, 15.6, 16.0, 16.4, 16.8, 17.2, 17.6, 18.0,
    ];
    let low = x.iter().copied().fold(f32::INFINITY, f32::min);
    let high = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let middle = (low + high) * 0.5;
    // Q4_0's way: one end of the range, whichever is farther from 0, at a step.
    let end = if middle > 0.0 { high } else { low };
    let scale = f16::from_f32(end / -8.0).to_f32();
    let candidates = STEPS.map(|steps| {
        let scale = (high - low) / steps;
        // Around the middle of the range, so that both ends are cut alike.
        let (min, scale) = least_squares(x, &round_to(middle - 7.5 * scale, scale, x).q);
        round_to(min, scale, x)
    });
    let others = [
        round_to(-8.0 * scale, scale, x),
        round_to(low, (high - low) / 15.0, x),
        round_to(middle, 0.0, x),
    ];
    let largest = f16::from_f32((high - low) / 15.0);
    if largest.is_infinite() {
        return Group {
            scale: largest,
            ..Group::ZERO
        };
    }
    // A candidate out of a degenerate fit has no error that compares, so the last one starts.
    let mut best = (squared_error(x, &others[2]), others[2]);
    for group in candidates.into_iter().chain(others) {
        let error = squared_error(x, &group);
        if error < best.0 {
            best = (error, group);
        }
    }
    best.1
}

/// The group with this minimum and scale, as halves, that is nearest to the values.
fn round_to(min: f32, scale: f32, x: &[f32; GROUP]) -> Group {
    let (min, scale) = (f16::from_f32(min), f16::from_f32(scale));
    let (start, inverse) = (min.to_f32(), inverse(scale));
    Group {
        scale,
        min,
        q: x.map(|x| nearest((x - start) * inverse, 0.0, 15.0)),
    }
}

/// 0 for 0: without a scale everything is at step 0.
fn inverse(scale: f16) -> f32 {
    match scale.to_f32() {
        0.0 => 0.0,
        scale => 1.0 / scale,
    }
}

/// The nearest whole number, ties to even, between two that a byte can hold.
fn nearest(x: f32, low: f32, high: f32) -> i8 {
    // At this magnitude a float's last bit counts ones, so that adding rounds; this vectorises on every processor.
    const ONES: f32 = 12_582_912.0;
    (x.max(low).min(high) + ONES).to_bits() as i8
}

/// Minimum and scale with which these numbers are nearest to the values.
fn least_squares(x: &[f32; GROUP], q: &[i8; GROUP]) -> (f32, f32) {
    let (mut sum_q, mut sum_qq, mut sum_x, mut sum_qx) = (0.0, 0.0, 0.0, 0.0);
    for (&x, &q) in x.iter().zip(q) {
        let q = f32::from(q);
        sum_q += q;
        sum_qq += q * q;
        sum_x += x;
        sum_qx += q * x;
    }
    let n = GROUP as f32;
    let scale = (n * sum_qx - sum_q * sum_x) / (n * sum_qq - sum_q * sum_q);
    ((sum_x - scale * sum_q) / n, scale)
}

fn squared_error(x: &[f32; GROUP], group: &Group) -> f32 {
    let (scale, min) = (group.scale.to_f32(), group.min.to_f32());
    let error = |(&x, &q): (&f32, &i8)| (scale * f32::from(q) + min - x).powi(2);
    x.iter().zip(&group.q).map(error).sum()
}
