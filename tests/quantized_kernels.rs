//! Weights in 8 and 4 bits and activations in bytes: what is stored, and products that are exact.

use code_explainer_engine_native::kernels::Compute;
use code_explainer_engine_native::kernels::isa::Isa;
use code_explainer_engine_native::kernels::matrix::{Matrix, MatrixMut};
use code_explainer_engine_native::kernels::panels::Epilogue;
use code_explainer_engine_native::kernels::quantized_gemm::{
    GATED_SCRATCH, gated_product, quantized_gemm,
};
use code_explainer_engine_native::kernels::quantized_rows::{GROUP, QuantizedRows};
use code_explainer_engine_native::kernels::quantized_weights::{
    Bits, Group, LAYOUT, PackedQuantized,
};
use code_explainer_engine_native::pool::Pool;
use code_explainer_engine_native::quantize::{quantize, quantize_rows};
use code_explainer_weights::{DType, Layout, TensorView};
use half::f16;
use proptest::prelude::*;

const BITS: [Bits; 2] = [Bits::Eight, Bits::Four];

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

#[test]
fn the_files_own_blocks_are_used_exactly() {
    let bytes: Vec<u8> = (0..4u32 * 20 * 64).map(|i| (i * 37 % 251) as u8).collect();
    for (bits, dtype) in [
        (Bits::Eight, DType::Q8_0),
        (Bits::Eight, DType::Q4_0),
        (Bits::Four, DType::Q4_0),
        (Bits::Four, DType::Q4_1),
    ] {
        // 4 rows of 64, with halves that are finite: exponents of 0x30 to 0x3b.
        let size = dtype.block_bytes();
        let mut data = bytes[..8 * size].to_vec();
        for block in data.chunks_exact_mut(size) {
            block[1] = 0x30 + block[1] % 12;
            if dtype == DType::Q4_1 {
                block[3] = 0xb0 + block[3] % 12;
            }
        }
        let tensor = TensorView {
            name: "x",
            dtype,
            shape: vec![4, 64],
            data: &data,
            layout: Layout::RopeInterleaved { heads: 1 },
        };
        let mut groups = vec![Group::ZERO; 8];
        quantize_rows(bits, &tensor, 0..4, &mut groups).expect("exact");
        let pack = |_: usize, rows: std::ops::Range<usize>, out: &mut [Group]| {
            quantize_rows(bits, &tensor, rows, out)
        };
        let packed = PackedQuantized::pack(bits, 64, &[4], "test", pack).expect("packed");
        for (row, expected) in tensor.to_f32().chunks(64).enumerate() {
            let mut values = [0.0; 64];
            packed.unpack_row(row, &mut values);
            assert_eq!(values, *expected, "{bits:?} from {dtype}, row {row}");
        }
    }
}

#[test]
fn values_that_do_not_fit_are_refused() {
    for bits in BITS {
        for value in [f32::NAN, f32::INFINITY, 1e30] {
            let mut x = [0.5; GROUP];
            x[7] = value;
            assert_eq!(quantize(bits, &x), None, "{bits:?} of {value}");
        }
        assert!(quantize(bits, &[0.0; GROUP]).is_some_and(|g| g.q == [0; GROUP]));
    }
}

fn values() -> impl Strategy<Value = Vec<f32>> {
    (prop::collection::vec(-1.0f32..1.0, 499), -12i32..12)
        .prop_map(|(values, exponent)| values.iter().map(|x| x * 2f32.powi(exponent)).collect())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    /// The definition: products summed exactly within a group, groups added in order.
    #[test]
    fn products_are_those_of_exact_integers(
        rows in 1usize..60,
        inputs in 1usize..140,
        outputs in prop::collection::vec(1usize..100, 1..3),
        values in values(),
        seed in any::<u32>(),
        four in any::<bool>(),
        add in any::<bool>(),
    ) {
        let (format, count) = (BITS[usize::from(four)], inputs.div_ceil(GROUP));
        let group = |part: usize, row: usize, g: usize| {
            let hash = |i: usize| {
                let i = (part * 7919 + row * 131 + g) * GROUP + i;
                (i as u32 ^ seed).wrapping_mul(0x9e37_79b1).rotate_left(13)
            };
            Group {
                scale: f16::from_f32((hash(40) % 1000) as f32 * 1e-4 - 0.03),
                min: f16::from_f32(if four { (hash(41) % 1000) as f32 * -1e-3 } else { 0.0 }),
                // The extremes often: there sums saturate where they can.
                q: std::array::from_fn(|i| match (four, hash(i) % 4) {
                    (true, _) => (hash(i) >> 8 & 15) as i8,
                    (false, 0) => -128,
                    (false, 1) => 127,
                    (false, _) => (hash(i) >> 8) as i8,
                }),
            }
        };
        let bias: Vec<Vec<f32>> = (outputs.iter())
            .map(|&n| (0..n).map(|i| values[i % values.len()]).collect())
            .collect();
        let w = PackedQuantized::pack(format, inputs, &outputs, "test", |part, rows, out| {
            for (row, out) in rows.zip(out.chunks_mut(count)) {
                out.iter_mut().enumerate().for_each(|(g, out)| *out = group(part, row, g));
            }
            Ok(())
        }).unwrap().with_bias(&bias);
        let x: Vec<f32> = (0..rows * inputs).map(|i| values[(i * 7 + 3) % values.len()]).collect();
        let (epilogue, initial) = if add { (Epilogue::Add, 0.5) } else { (Epilogue::Store, 0.0) };
        let padded = w.padded_outputs();
        let mut expected: Option<Vec<u32>> = None;
        for isa in Isa::supported() {
            for threads in [1, 2] {
                let compute = Compute { pool: Pool::new(threads).unwrap(), isa };
                let mut quantized = QuantizedRows::new(rows, inputs).unwrap();
                quantized.quantize(&compute, Matrix::new(&x, rows, inputs), inputs);
                let expected = expected.get_or_insert_with(|| {
                    let mut y = vec![initial; rows * padded];
                    for row in 0..rows {
                        let (bytes, scales) = quantized.row(row);
                        let mut first = 0;
                        for (part, bias) in bias.iter().enumerate() {
                            for (output, &bias) in bias.iter().enumerate() {
                                let mut sum = bias;
                                for (g, &(scale, zero, total)) in scales.iter().enumerate() {
                                    let w = group(part, output, g);
                                    let dot: i32 = (w.q.iter().zip(&bytes[g * GROUP..]))
                                        .map(|(&q, &u)| i32::from(q) * (i32::from(u) - zero))
                                        .sum();
                                    sum = (dot as f32 * w.scale.to_f32()).mul_add(scale, sum);
                                    if four {
                                        sum = w.min.to_f32().mul_add(total, sum);
                                    }
                                }
                                y[row * padded + first + output] = if add { initial + sum } else { sum };
                            }
                            first += bias.len().next_multiple_of(64);
                        }
                    }
                    bits(&y)
                });
                let mut y = vec![initial; rows * padded];
                quantized_gemm(&compute, &quantized, &w, &mut MatrixMut::new(&mut y, rows, padded), epilogue, None);
                prop_assert!(bits(&y) == *expected, "{} with {} threads", isa, threads);
            }
        }
    }

    #[test]
    fn activations_are_within_half_a_step_alone_and_in_a_batch(
        rows in 1usize..40,
        inputs in 1usize..140,
        values in values(),
    ) {
        let x: Vec<f32> = (0..rows * inputs).map(|i| values[(i * 11 + 5) % values.len()]).collect();
        let quantize = |isa, threads, x: &[f32]| {
            let compute = Compute { pool: Pool::new(threads).unwrap(), isa };
            let rows = x.len() / inputs;
            let mut quantized = QuantizedRows::new(rows, inputs).unwrap();
            quantized.quantize(&compute, Matrix::new(x, rows, inputs), inputs);
            quantized
        };
        let batch = quantize(Isa::detect(), 2, &x);
        for (i, x) in x.chunks(inputs).enumerate() {
            let (bytes, groups) = batch.row(i);
            for (g, (values, &(scale, zero, total))) in x.chunks(GROUP).zip(&groups).enumerate() {
                prop_assert!((0..=255).contains(&zero));
                let mut sum = 0.0;
                for (x, &u) in values.iter().zip(&bytes[g * GROUP..]) {
                    let back = scale * (i32::from(u) - zero) as f32;
                    // Half a step for the value and, at the ends, half a step of the zero point.
                    prop_assert!((back - x).abs() <= scale * 1.001, "{back}, not {x}");
                    sum += back;
                }
                prop_assert!((sum - total).abs() <= scale * 0.5 + sum.abs() * 1e-4);
            }
            for isa in Isa::supported() {
                let alone = quantize(isa, 1, x);
                prop_assert!(alone.row(0) == batch.row(i), "row {} with {}", i, isa);
            }
        }
    }

    /// Four bits with a searched scale and minimum are never worse than Q4_0's rounding.
    #[test]
    fn four_bits_are_nearer_than_with_a_scale_alone(values in values()) {
        for x in values.as_chunks::<GROUP>().0 {
            let group = quantize(Bits::Four, x).unwrap();
            let error = |f: &dyn Fn(usize) -> f32| -> f32 {
                (0..GROUP).map(|i| (f(i) - x[i]).powi(2)).sum()
            };
            let (scale, min) = (group.scale.to_f32(), group.min.to_f32());
            let ours = error(&|i| scale * f32::from(group.q[i]) + min);
            let largest = x.iter().copied().fold(0f32, |a, b| if b.abs() > a.abs() { b } else { a });
            let d = f16::from_f32(largest / -8.0).to_f32();
            prop_assume!(d != 0.0);
            let theirs = error(&|i| d * ((x[i] / d + 8.5).floor().clamp(0.0, 15.0) - 8.0));
            prop_assert!(ours <= theirs * 1.01, "{ours} against {theirs}");
        }
    }
}

/// Gate, up, activation and quantization in one pass are those one after the other.
#[test]
fn a_gated_product_has_the_bits_of_its_parts() {
    let (inputs, outputs) = (70, 100);
    for (bits, rows) in BITS
        .into_iter()
        .flat_map(|bits| [(bits, 1), (bits, 7), (bits, 100)])
    {
        let group = |at: usize| Group {
            scale: f16::from_f32(0.01 + (at % 7) as f32 * 0.003),
            min: f16::from_f32(if bits == Bits::Four { -0.05 } else { 0.0 }),
            q: std::array::from_fn(|k| ((at * 5 + k * 7) % 16) as i8),
        };
        let pack = |part: usize, range: std::ops::Range<usize>, out: &mut [Group]| {
            for (i, out) in out.iter_mut().enumerate() {
                *out = group(part * 1000 + range.start * 3 + i);
            }
            Ok(())
        };
        let w = PackedQuantized::pack(bits, inputs, &[outputs, outputs], "test", pack).unwrap();
        let next = PackedQuantized::pack(bits, outputs, &[3], "test", pack).unwrap();
        let x: Vec<f32> = (0..rows * inputs)
            .map(|i| (i * 37 % 101) as f32 * 0.02 - 1.0)
            .collect();
        for isa in Isa::supported() {
            let compute = Compute {
                pool: Pool::new(2).unwrap(),
                isa,
            };
            let room = |width| QuantizedRows::new(rows, width).unwrap();
            let (mut quantized, mut apart, mut gated) =
                (room(inputs), room(outputs), room(outputs));
            quantized.quantize(&compute, Matrix::new(&x, rows, inputs), inputs);
            let padded = w.padded_outputs();
            let mut y = vec![0.0; rows * padded];
            let mut matrix = MatrixMut::new(&mut y, rows, padded);
            quantized_gemm(
                &compute,
                &quantized,
                &w,
                &mut matrix,
                Epilogue::SiluMul,
                None,
            );
            apart.quantize(&compute, Matrix::new(&y, rows, padded), outputs);
            let mut scratch = vec![0.0; 2 * GATED_SCRATCH];
            let mut scratch = MatrixMut::new(&mut scratch, 2, GATED_SCRATCH);
            gated_product(&compute, &quantized, &w, &mut scratch, &mut gated, &next);
            for row in 0..rows {
                assert!(
                    gated.row(row) == apart.row(row),
                    "{bits:?}, row {row} of {rows}, {isa}"
                );
            }
        }
    }
}

/// Packed models on disk have these bytes. If they change on purpose, [`LAYOUT`] must change with them.
#[test]
fn the_layout_is_what_its_version_says() {
    let hash = |bits: Bits| {
        let pack = |part: usize, rows: std::ops::Range<usize>, out: &mut [Group]| {
            for (at, group) in out.iter_mut().enumerate() {
                let seed = (part * 1000 + rows.start * 3 + at) as i32;
                *group = Group {
                    scale: f16::from_f32(1.0 + seed as f32),
                    min: f16::from_f32(if bits == Bits::Four {
                        -seed as f32
                    } else {
                        0.0
                    }),
                    q: std::array::from_fn(|k| ((seed + k as i32 * 7) % 16) as i8),
                };
            }
            Ok(())
        };
        let packed = PackedQuantized::pack(bits, 70, &[65, 3], "test", pack).expect("packed");
        blake3::hash(packed.packed()).to_hex()[..16].to_owned()
    };
    let found = (LAYOUT, hash(Bits::Eight), hash(Bits::Four));
    assert_eq!(
        found,
        (
            1,
            "125b8de6aa7cb2f2".to_owned(),
            "fe5ec05b3fa7be11".to_owned()
        )
    );
}
