//! From stored blocks to floats, operation by operation as GGML's reference does it, so that results agree to the bit.
//!
//! Block formats: <https://github.com/ggml-org/llama.cpp/blob/master/ggml/src/ggml-common.h>.

use half::{bf16, f16};

use super::dtype::DType;

/// Dequantizes whole blocks.
///
/// # Panics
/// If `bytes` is not exactly the blocks of `out.len()` elements.
pub(crate) fn dequantize(dtype: DType, bytes: &[u8], out: &mut [f32]) {
    assert_eq!(
        dtype.bytes_for(out.len()),
        Some(bytes.len()),
        "{dtype} blocks do not fit the output"
    );
    match dtype {
        DType::F32 => plain(bytes, out, f32::from_le_bytes),
        DType::F16 => half_floats(bytes, out),
        DType::BF16 => plain(bytes, out, |b| bf16::from_le_bytes(b).to_f32()),
        DType::Q8_0 => blocks::<34, 32>(bytes, out, q8_0),
        DType::Q4_0 => blocks::<18, 32>(bytes, out, q4_0),
        DType::Q4_1 => blocks::<20, 32>(bytes, out, q4_1),
        DType::Q5_0 => blocks::<22, 32>(bytes, out, q5_0),
        DType::Q5_1 => blocks::<24, 32>(bytes, out, q5_1),
        DType::Q4_K => blocks::<144, 256>(bytes, out, q4_k),
        DType::Q5_K => blocks::<176, 256>(bytes, out, q5_k),
        DType::Q6_K => blocks::<210, 256>(bytes, out, q6_k),
    }
}

fn plain<const N: usize>(bytes: &[u8], out: &mut [f32], read: impl Fn([u8; N]) -> f32) {
    for (y, &x) in out.iter_mut().zip(bytes.as_chunks::<N>().0) {
        *y = read(x);
    }
}

/// Halves in groups, which the `half` crate converts with one instruction per eight where the CPU has it.
fn half_floats(bytes: &[u8], out: &mut [f32]) {
    use half::slice::HalfFloatSliceExt;
    const GROUP: usize = 64;
    let mut group = [f16::ZERO; GROUP];
    for (y, x) in out.chunks_mut(GROUP).zip(bytes.chunks(2 * GROUP)) {
        let group = &mut group[..y.len()];
        for (h, &b) in group.iter_mut().zip(x.as_chunks::<2>().0) {
            *h = f16::from_le_bytes(b);
        }
        group.convert_to_f32_slice(y);
    }
}

fn blocks<const BYTES: usize, const LEN: usize>(
    bytes: &[u8],
    out: &mut [f32],
    block: impl Fn(&[u8; BYTES], &mut [f32; LEN]),
) {
    for (y, x) in out
        .as_chunks_mut::<LEN>()
        .0
        .iter_mut()
        .zip(bytes.as_chunks::<BYTES>().0)
    {
        block(x, y);
    }
}

fn half_at(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

fn q8_0(x: &[u8; 34], y: &mut [f32; 32]) {
    let d = half_at(x, 0);
    for (y, &q) in y.iter_mut().zip(&x[2..]) {
        *y = f32::from(q as i8) * d;
    }
}

fn q4_0(x: &[u8; 18], y: &mut [f32; 32]) {
    let d = half_at(x, 0);
    let (low, high) = y.split_at_mut(16);
    for ((low, high), &q) in low.iter_mut().zip(high).zip(&x[2..]) {
        *low = d * f32::from((q & 15) as i8 - 8);
        *high = d * f32::from((q >> 4) as i8 - 8);
    }
}

fn q4_1(x: &[u8; 20], y: &mut [f32; 32]) {
    let (d, m) = (half_at(x, 0), half_at(x, 2));
    let (low, high) = y.split_at_mut(16);
    for ((low, high), &q) in low.iter_mut().zip(high).zip(&x[4..]) {
        *low = d * f32::from(q & 15) + m;
        *high = d * f32::from(q >> 4) + m;
    }
}

/// The 32 five-bit numbers of a block: nibbles, and the fifth bits in a word.
fn five_bits(fifth: &[u8], nibbles: &[u8], mut each: impl FnMut(usize, u8)) {
    let fifth = u32::from_le_bytes([fifth[0], fifth[1], fifth[2], fifth[3]]);
    let bit = |i: usize| ((fifth >> i & 1) << 4) as u8;
    for (i, &q) in nibbles.iter().enumerate() {
        each(i, q & 15 | bit(i));
        each(i + 16, q >> 4 | bit(i + 16));
    }
}

fn q5_0(x: &[u8; 22], y: &mut [f32; 32]) {
    let d = half_at(x, 0);
    five_bits(&x[2..6], &x[6..], |i, q| y[i] = d * f32::from(q as i8 - 16));
}

fn q5_1(x: &[u8; 24], y: &mut [f32; 32]) {
    let (d, m) = (half_at(x, 0), half_at(x, 2));
    five_bits(&x[4..8], &x[8..], |i, q| y[i] = d * f32::from(q) + m);
}

/// The 6-bit scale and minimum of group `j` of 8: the first four whole in bytes 0 to 7, the low nibbles of the others in
/// bytes 8 to 11, and their high bit pairs at the top of the first eight bytes.
fn scale_and_min(scales: &[u8], j: usize) -> (f32, f32) {
    let (scale, min) = if j < 4 {
        (scales[j] & 63, scales[j + 4] & 63)
    } else {
        (
            scales[j + 4] & 15 | (scales[j - 4] >> 6) << 4,
            scales[j + 4] >> 4 | (scales[j] >> 6) << 4,
        )
    };
    (f32::from(scale), f32::from(min))
}

fn q4_k(x: &[u8; 144], y: &mut [f32; 256]) {
    let (d, dmin) = (half_at(x, 0), half_at(x, 2));
    for (j, y) in y.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let (scale, min) = scale_and_min(&x[4..16], j);
        let (scale, min) = (d * scale, dmin * min);
        // Groups 2k and 2k + 1 share 32 bytes: low nibbles, then high ones.
        let quants = &x[16 + 32 * (j / 2)..][..32];
        let shift = 4 * (j % 2);
        for (y, &q) in y.iter_mut().zip(quants) {
            *y = scale * f32::from(q >> shift & 15) - min;
        }
    }
}

fn q5_k(x: &[u8; 176], y: &mut [f32; 256]) {
    let (d, dmin) = (half_at(x, 0), half_at(x, 2));
    let fifth = &x[16..48];
    for (j, y) in y.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let (scale, min) = scale_and_min(&x[4..16], j);
        let (scale, min) = (d * scale, dmin * min);
        let quants = &x[48 + 32 * (j / 2)..][..32];
        let shift = 4 * (j % 2);
        for ((y, &q), &h) in y.iter_mut().zip(quants).zip(fifth) {
            *y = scale * f32::from(q >> shift & 15 | (h >> j & 1) << 4) - min;
        }
    }
}

fn q6_k(x: &[u8; 210], y: &mut [f32; 256]) {
    let d = half_at(x, 208);
    for (j, y) in y.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        // In each half of the block: four groups of 32; low nibbles in 64 bytes, bit pairs in 32.
        let (half, group) = (j / 4, j % 4);
        let low = &x[64 * half + 32 * (group % 2)..][..32];
        let high = &x[128 + 32 * half..][..32];
        for (i, (y, (&l, &h))) in y.iter_mut().zip(low.iter().zip(high)).enumerate() {
            let q = l >> (4 * (group / 2)) & 15 | (h >> (2 * group) & 3) << 4;
            let scale = d * f32::from(x[192 + 2 * j + i / 16] as i8);
            *y = scale * f32::from(q as i8 - 32);
        }
    }
}
