//! GGUF metadata of every type is read with its value, and asked for by type.

use code_explainer_weights::{Array, Gguf, Metadata, Value};

use crate::common::model_files::gguf::{GgufFile, Meta};

fn metadata(values: Vec<(&str, Meta)>) -> Metadata {
    let mut file = GgufFile::default();
    values
        .into_iter()
        .for_each(|(key, value)| file.set(key, value));
    Gguf::parse(&file.to_bytes())
        .unwrap_or_else(|e| panic!("{e}"))
        .metadata
}

fn raw<const N: usize>(kind: u32, bytes: [u8; N]) -> Meta {
    Meta::Raw(kind, bytes.to_vec())
}

#[test]
fn every_scalar_type() {
    let metadata = metadata(vec![
        ("u8", raw(0, [200])),
        ("i8", raw(1, [200])),
        ("u16", raw(2, 50_000u16.to_le_bytes())),
        ("i16", raw(3, (-5i16).to_le_bytes())),
        ("u32", Meta::U32(u32::MAX)),
        ("i32", raw(5, (-7i32).to_le_bytes())),
        ("f32", Meta::F32(0.5)),
        ("bool", Meta::Bool(true)),
        ("string", Meta::str("né")),
        ("u64", raw(10, u64::MAX.to_le_bytes())),
        ("i64", raw(11, i64::MIN.to_le_bytes())),
        ("f64", raw(12, 0.25f64.to_le_bytes())),
    ]);
    assert_eq!(metadata.len(), 12);
    assert_eq!(metadata.get("i8"), Some(&Value::I8(-56)));
    assert_eq!(metadata.get("i64"), Some(&Value::I64(i64::MIN)));
    for (key, expected) in [("u8", 200), ("u16", 50_000), ("u32", u32::MAX)] {
        assert_eq!(metadata.get_u32(key), Some(expected));
    }
    assert_eq!(metadata.get_u64("u64"), Some(u64::MAX));
    assert_eq!(
        (metadata.get_f32("f32"), metadata.get_f32("f64")),
        (Some(0.5), Some(0.25))
    );
    assert_eq!(metadata.get_bool("bool"), Some(true));
    assert_eq!(metadata.get_str("string"), Some("né"));
    // Negative, too large, of another type, not there.
    assert_eq!(metadata.get_u32("i16"), None);
    assert_eq!(metadata.get_u32("u64"), None);
    assert_eq!(metadata.get_u32("f32"), None);
    assert_eq!(metadata.get_str("missing"), None);
}

#[test]
fn arrays_of_every_kind() {
    let array = |kind: u32, count: u64, bytes: &[u8]| {
        let mut all = kind.to_le_bytes().to_vec();
        all.extend(count.to_le_bytes());
        all.extend(bytes);
        Meta::Raw(9, all)
    };
    let mut nested = Vec::new();
    for count in [1u64, 0] {
        nested.extend(7u32.to_le_bytes());
        nested.extend(count.to_le_bytes());
        nested.extend(vec![1; count as usize]);
    }
    let metadata = metadata(vec![
        ("bytes", array(0, 2, &[1, 255])),
        ("negative", array(1, 1, &[255])),
        ("wide", array(10, 1, &u64::MAX.to_le_bytes())),
        ("doubles", array(12, 1, &0.5f64.to_le_bytes())),
        ("nested", array(9, 2, &nested)),
        ("integers", Meta::I32s(vec![3, -1])),
        (
            "strings",
            Meta::Strings(vec![String::new(), "ab".into(), "Ġc".into()]),
        ),
        ("none", Meta::Strings(vec![])),
    ]);
    assert_eq!(metadata.get_integers("bytes"), Some(&[1, 255][..]));
    assert_eq!(metadata.get_integers("negative"), Some(&[-1][..]));
    assert_eq!(metadata.get_integers("integers"), Some(&[3, -1][..]));
    assert_eq!(
        metadata.get_array("wide"),
        Some(&Array::U64(vec![u64::MAX]))
    );
    assert_eq!(metadata.get_floats("doubles"), Some(&[0.5][..]));
    let inner = vec![Array::Bools(vec![true]), Array::Bools(vec![])];
    assert_eq!(metadata.get_array("nested"), Some(&Array::Arrays(inner)));

    let strings = metadata.get_strings("strings").expect("strings");
    assert_eq!(strings.iter().collect::<Vec<_>>(), ["", "ab", "Ġc"]);
    assert_eq!(
        (strings.get(0), strings.get(2), strings.get(3)),
        (Some(""), Some("Ġc"), None)
    );
    assert!(metadata.get_strings("none").expect("strings").is_empty());
    assert!(metadata.get_strings("integers").is_none());
}
