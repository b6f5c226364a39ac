//! Vectors are those that transformers computes, alone and in any batch.

use code_explainer_engine::Encoder;
use serde::Deserialize;

use crate::common::minilm::{apart, dot, load};

/// Of a number of a vector of length 1.
const TOLERANCE: f32 = 1e-4;

#[derive(Deserialize)]
struct Reference {
    texts: Vec<Text>,
}

#[derive(Deserialize)]
struct Text {
    name: String,
    text: String,
    truncated: bool,
    ids: Vec<u32>,
    vector: Vec<f32>,
}

fn reference() -> Vec<Text> {
    let reference: Reference =
        serde_json::from_str(include_str!("data/embeddings.json")).expect("reference data");
    assert!(reference.texts.len() >= 20);
    reference.texts
}

#[test]
fn tokens_and_vectors_are_those_of_the_reference() {
    let (tokenizer, mut encoder) = load();
    for expected in reference() {
        let name = &expected.name;
        let text = tokenizer.encode(&expected.text).expect("tokens");
        assert_eq!(text.tokens, expected.ids, "{name}");
        assert_eq!(text.truncated, expected.truncated, "{name}");
        let vector = &encoder.encode(&[&text.tokens]).expect("a vector")[0];
        let apart = apart(vector, &expected.vector);
        assert!(apart < TOLERANCE, "{name}: {apart:e}");
        assert!((dot(vector, vector) - 1.0).abs() < 1e-5, "{name}");
    }
}

#[test]
fn padding_is_not_seen() {
    let (_, mut encoder) = load();
    let reference = reference();
    let texts: Vec<&[u32]> = reference.iter().map(|text| text.ids.as_slice()).collect();
    let together = encoder.encode(&texts).expect("vectors");
    for (expected, vector) in reference.iter().zip(together) {
        let apart = apart(&vector, &expected.vector);
        assert!(apart < TOLERANCE, "{}: {apart:e}", expected.name);
    }
}

#[test]
fn control_tokens_cannot_be_typed() {
    let (tokenizer, _) = load();
    let typed = tokenizer
        .encode("a [SEP] b [CLS] [PAD] [MASK]")
        .expect("tokens")
        .tokens;
    let control = [0, 101, 102, 103];
    assert_eq!((typed.first(), typed.last()), (Some(&101), Some(&102)));
    let inside = &typed[1..typed.len() - 1];
    assert!(
        !inside.iter().any(|token| control.contains(token)),
        "{typed:?}"
    );
}

#[test]
fn texts_that_mean_the_like_are_close() {
    let (tokenizer, mut encoder) = load();
    let tokens = [
        "The function sorts a list of numbers in ascending order.",
        "Numbers are put into increasing order by this routine.",
        "The weather in Lisbon is mild in winter.",
    ]
    .map(|text| tokenizer.encode(text).expect("tokens").tokens);
    let vectors = encoder
        .encode(&tokens.each_ref().map(Vec::as_slice))
        .expect("vectors");
    let (like, unlike) = (dot(&vectors[0], &vectors[1]), dot(&vectors[0], &vectors[2]));
    assert!(like > 0.5 && unlike < 0.2, "{like} {unlike}");
}

#[test]
fn what_the_model_cannot_take_is_refused_and_it_goes_on() {
    let (_, mut encoder) = load();
    assert!(encoder.encode(&[&[101, 102], &[]]).is_err());
    assert!(encoder.encode(&[&[101, 40_000, 102]]).is_err());
    assert!(encoder.encode(&[&[7; 513]]).is_err());
    assert_eq!(
        encoder.encode(&[]).expect("nothing"),
        Vec::<Vec<f32>>::new()
    );
    assert_eq!(encoder.encode(&[&[101, 102]]).expect("a vector").len(), 1);
}
