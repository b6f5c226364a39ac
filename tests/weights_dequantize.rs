//! Blocks of every type become the floats that the reference implementation makes of them, to the bit.

use code_explainer_weights::{DType, Layout, TensorView};
use proptest::prelude::*;
use serde::Deserialize;

/// Made by `tests/reference/dequant.py`.
const REFERENCE: &str = include_str!("data/dequant.json");

#[derive(Deserialize)]
struct Case {
    r#type: String,
    data: String,
    floats: String,
}

fn bytes(hex: &str) -> Vec<u8> {
    let digit = |c: u8| char::from(c).to_digit(16).expect("a hex digit") as u8;
    hex.as_bytes()
        .chunks(2)
        .map(|pair| digit(pair[0]) << 4 | digit(pair[1]))
        .collect()
}

fn view<'a>(dtype: DType, shape: &[usize], data: &'a [u8], layout: Layout) -> TensorView<'a> {
    TensorView {
        name: "x",
        dtype,
        shape: shape.to_vec(),
        data,
        layout,
    }
}

#[test]
fn every_type_agrees_with_gguf_py_to_the_bit() {
    let cases: Vec<Case> = serde_json::from_str(REFERENCE).expect("the reference is JSON");
    let mut seen = Vec::new();
    for case in cases {
        let known = DType::ALL
            .into_iter()
            .find(|dtype| dtype.as_str() == case.r#type);
        let dtype = known.expect("a type that can be read");
        let data = bytes(&case.data);
        let expected: Vec<u32> = bytes(&case.floats)
            .as_chunks::<4>()
            .0
            .iter()
            .map(|&bits| u32::from_be_bytes(bits))
            .collect();
        let found = view(dtype, &[expected.len()], &data, Layout::Rows).to_f32();
        let found: Vec<u32> = found.iter().map(|x| x.to_bits()).collect();
        assert_eq!(found, expected, "{dtype}");
        seen.push(dtype);
    }
    assert_eq!(seen, DType::ALL);
}

/// A type, and a matrix of random blocks of it.
fn matrix() -> impl Strategy<Value = (DType, usize, usize, Vec<u8>)> {
    let dtype = prop::sample::select(&DType::ALL[..]);
    (dtype, 1usize..5, 1usize..4, any::<u64>()).prop_map(|(dtype, heads, blocks, seed)| {
        let (rows, columns) = (heads * 4, blocks * dtype.block_len());
        let size = dtype.bytes_for(rows * columns).expect("whole blocks");
        let mut state = seed;
        let data = (0..size).map(|_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            // Without the top exponent bits nothing is infinite or NaN, so that floats can be compared.
            (state >> 56) as u8 & 0x3B
        });
        (dtype, heads, columns, data.collect())
    })
}

proptest! {
    #[test]
    fn any_rows_are_a_slice_of_the_whole(
        (dtype, heads, columns, data) in matrix(), from in 0usize..20, count in 0usize..20, layout in 0..3
    ) {
        let rows = heads * 4;
        let layout = match layout {
            0 => Layout::Rows,
            1 if !dtype.is_quantized() => Layout::Transposed,
            _ => Layout::RopeInterleaved { heads },
        };
        let view = view(dtype, &[rows, columns], &data, layout);
        let all = view.to_f32();
        prop_assert_eq!(all.len(), view.len());
        let from = from.min(rows);
        let to = (from + count).min(rows);
        let mut some = vec![0.0; (to - from) * columns];
        view.rows_to_f32(from..to, &mut some);
        prop_assert_eq!(&some[..], &all[from * columns..to * columns]);
        for row in 0..rows {
            if let Some(bytes) = view.row_bytes(row) {
                let alone = TensorView { shape: vec![columns], data: bytes, layout: Layout::Rows, ..view.clone() };
                prop_assert_eq!(&alone.to_f32()[..], &all[row * columns..(row + 1) * columns]);
            }
        }
        prop_assert!(view.row_bytes(rows).is_none());
    }

    #[test]
    fn layouts_only_move_elements((_, heads, columns, _) in matrix()) {
        let rows = heads * 4;
        let values: Vec<f32> = (0..rows * columns).map(|i| i as f32).collect();
        let data: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        for layout in [Layout::Transposed, Layout::RopeInterleaved { heads }] {
            let mut moved = view(DType::F32, &[rows, columns], &data, layout).to_f32();
            moved.sort_by(f32::total_cmp);
            prop_assert_eq!(&moved, &values);
        }
    }
}

#[test]
fn a_transposed_tensor_reads_as_its_transpose() {
    let stored: Vec<u8> = (0..6).flat_map(|i| (i as f32).to_le_bytes()).collect();
    let view = view(DType::F32, &[3, 2], &stored, Layout::Transposed);
    assert_eq!(view.to_f32(), [0.0, 3.0, 1.0, 4.0, 2.0, 5.0]);
}

#[test]
fn interleaved_halves_come_apart() {
    let stored: Vec<u8> = (0..8).flat_map(|i| (i as f32).to_le_bytes()).collect();
    // Two heads of width four: pairs (0, 1), (2, 3) become halves (0, 2), (1, 3).
    let expected = [0.0, 2.0, 1.0, 3.0, 4.0, 6.0, 5.0, 7.0];
    for shape in [vec![8, 1], vec![8]] {
        let layout = Layout::RopeInterleaved { heads: 2 };
        assert_eq!(
            view(DType::F32, &shape, &stored, layout).to_f32(),
            expected,
            "{shape:?}"
        );
    }
}
