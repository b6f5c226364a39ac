//! From floats to stored blocks, by the simple quantizers of GGML.

use code_explainer_weights::DType;
use half::{bf16, f16};

/// Stores `values` as `dtype`.
pub(crate) fn quantize(dtype: DType, values: &[f32]) -> Vec<u8> {
    match dtype {
        DType::F32 => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
        DType::F16 => values
            .iter()
            .flat_map(|&v| f16::from_f32(v).to_le_bytes())
            .collect(),
        DType::BF16 => values
            .iter()
            .flat_map(|&v| bf16::from_f32(v).to_le_bytes())
            .collect(),
        DType::Q8_0 => blocks(values, q8_0),
        DType::Q4_0 => blocks(values, q4_0),
        DType::Q4_1 => blocks(values, q4_1),
        other => panic!("there is no quantizer for {other}"),
    }
}

fn blocks(values: &[f32], block: impl Fn(&[f32; 32]) -> Vec<u8>) -> Vec<u8> {
    let (blocks, rest) = values.as_chunks::<32>();
    assert!(rest.is_empty(), "whole blocks");
    blocks.iter().flat_map(block).collect()
}

/// `1 / d`, or 0 for a block of zeros.
fn inverse(d: f32) -> f32 {
    if d == 0.0 { 0.0 } else { 1.0 / d }
}

fn q8_0(x: &[f32; 32]) -> Vec<u8> {
    let d = x.iter().fold(0.0f32, |most, v| most.max(v.abs())) / 127.0;
    let mut out = f16::from_f32(d).to_le_bytes().to_vec();
    out.extend(x.iter().map(|v| (v * inverse(d)).round() as i8 as u8));
    out
}

fn q4_0(x: &[f32; 32]) -> Vec<u8> {
    let extreme = x
        .iter()
        .copied()
        .fold(0.0f32, |m, v| if v.abs() > m.abs() { v } else { m });
    let d = extreme / -8.0;
    let mut out = f16::from_f32(d).to_le_bytes().to_vec();
    nibbles(
        x,
        |v| (v * inverse(d) + 8.5).clamp(0.0, 15.0) as u8,
        &mut out,
    );
    out
}

fn q4_1(x: &[f32; 32]) -> Vec<u8> {
    let min = x.iter().copied().fold(f32::INFINITY, f32::min);
    let max = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let d = (max - min) / 15.0;
    let mut out = f16::from_f32(d).to_le_bytes().to_vec();
    out.extend(f16::from_f32(min).to_le_bytes());
    nibbles(
        x,
        |v| ((v - min) * inverse(d) + 0.5).clamp(0.0, 15.0) as u8,
        &mut out,
    );
    out
}

fn nibbles(x: &[f32; 32], quant: impl Fn(f32) -> u8, out: &mut Vec<u8>) {
    let (low, high) = x.split_at(16);
    out.extend(
        low.iter()
            .zip(high)
            .map(|(&low, &high)| quant(low) | quant(high) << 4),
    );
}
