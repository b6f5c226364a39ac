//! The libtorch engine computes what transformers computes with SmolLM2, whole or in chunks, alone or beside others.

use code_explainer_engine::{Backend, Precision};
use code_explainer_engine_torch::{TorchBackend, load};
use serde::Deserialize;

use crate::common::sequences::{Sequence, data, eager, logits_all, sequences, step};
use crate::common::smollm;

#[derive(Deserialize)]
struct Reference {
    logits: ReferenceLogits,
    greedy: Vec<Greedy>,
}

#[derive(Deserialize)]
struct ReferenceLogits {
    ids: Vec<u32>,
    stride: usize,
    rows: Vec<ReferenceRow>,
}

#[derive(Deserialize)]
struct ReferenceRow {
    position: usize,
    top_ids: Vec<usize>,
    top_values: Vec<f32>,
    strided_values: Vec<f32>,
    sum: f64,
    abs_sum: f64,
    log_sum_exp: f64,
}

#[derive(Deserialize)]
struct Greedy {
    name: String,
    ids: Vec<u32>,
    tokens: Vec<u32>,
}

fn smollm(kv_cache_tokens: usize, precision: Precision) -> TorchBackend {
    load(smollm::checkpoint(), &eager(kv_cache_tokens, precision)).expect("the model loads")
}

fn answers(sequences: &[Sequence], length: usize) -> impl Iterator<Item = &[u32]> {
    sequences
        .iter()
        .map(move |s| &s.tokens[s.prompt..][..length])
}

fn close(ours: f64, theirs: f64, what: &str) {
    assert!(
        (ours - theirs).abs() < 1e-3,
        "{what}: {ours} instead of {theirs}"
    );
}

#[test]
fn eager_logits_are_those_of_transformers() {
    let reference = data::<Reference>("parity.json").logits;
    let mut sequence = sequences(&[&reference.ids], 0);
    let rows = logits_all(&mut smollm(64, Precision::Fp32), &sequence.remove(0));
    let mut worst = 0f32;
    for expected in reference.rows {
        let row = &rows[expected.position];
        let strided = (0..row.len())
            .step_by(reference.stride)
            .zip(expected.strided_values);
        for (id, value) in expected
            .top_ids
            .into_iter()
            .zip(expected.top_values)
            .chain(strided)
        {
            worst = worst.max((row[id] - value).abs());
        }
        let wide = || row.iter().map(|&x| f64::from(x));
        let count = row.len() as f64;
        close(wide().sum::<f64>() / count, expected.sum / count, "mean");
        close(
            wide().map(f64::abs).sum::<f64>() / count,
            expected.abs_sum / count,
            "mean magnitude",
        );
        close(
            wide().map(f64::exp).sum::<f64>().ln(),
            expected.log_sum_exp,
            "log-sum-exp",
        );
    }
    println!("largest difference of a logit: {worst:.2e}");
    assert!(worst < 1e-3, "a logit is {worst} off");
}

#[test]
fn eager_greedy_answers_are_those_of_transformers() {
    let cases = data::<Reference>("parity.json").greedy;
    assert!(cases.len() >= 20, "{} cases", cases.len());
    let prompts: Vec<&[u32]> = cases.iter().map(|case| case.ids.as_slice()).collect();
    let mut backend = smollm(8192, Precision::Fp32);
    let mut sequences = sequences(&prompts, 64);
    for _ in 0..64 {
        let mut all: Vec<_> = sequences.iter_mut().collect();
        step(&mut backend, &mut all, usize::MAX);
    }
    for (case, answer) in cases.iter().zip(answers(&sequences, 64)) {
        assert_eq!(answer, case.tokens, "the answer to '{}'", case.name);
    }
}

#[test]
fn chunks_and_neighbours_do_not_change_a_greedy_answer() {
    const LENGTH: usize = 20;
    let cases = &data::<Reference>("parity.json").greedy[..8];
    let prompts: Vec<&[u32]> = cases.iter().map(|case| case.ids.as_slice()).collect();
    let mut backend = smollm(4096, Precision::Fp32);
    let mut sequences = sequences(&prompts, LENGTH);
    let mut steps = 0;
    loop {
        // Sequence i joins at step 3 i and leaves when its answer is whole, so steps mix chunks of prompts with decodes of
        // sequences of different lengths.
        let here =
            |(i, s): &(usize, &mut Sequence)| steps >= 3 * i && s.tokens.len() < s.prompt + LENGTH;
        let mut running: Vec<_> = sequences
            .iter_mut()
            .enumerate()
            .filter(here)
            .map(|(_, s)| s)
            .collect();
        if running.is_empty() {
            break;
        }
        step(&mut backend, &mut running, 7);
        steps += 1;
    }
    for (case, answer) in cases.iter().zip(answers(&sequences, LENGTH)) {
        assert_eq!(
            answer,
            &case.tokens[..LENGTH],
            "the answer to '{}'",
            case.name
        );
    }
}

/// Kullback-Leibler divergence of the distribution that `theirs` are the logits of from that of `ours`, in nats.
fn divergence(ours: &[f32], theirs: &[f32]) -> f64 {
    let log_sum = |row: &[f32]| row.iter().map(|&x| f64::from(x).exp()).sum::<f64>().ln();
    let (our_sum, their_sum) = (log_sum(ours), log_sum(theirs));
    (ours.iter().zip(theirs))
        .map(|(&a, &b)| (f64::from(a) - our_sum, f64::from(b) - their_sum))
        .map(|(a, b)| a.exp() * (a - b))
        .sum()
}

/// Index of the largest.
fn best(row: &[f32]) -> usize {
    (0..row.len())
        .max_by(|&a, &b| row[a].total_cmp(&row[b]))
        .expect("a row")
}

fn short_precision_stays_close(precision: Precision, most: f64, least_agreement: usize) {
    let ids = data::<Reference>("parity.json").logits.ids;
    let sequence = sequences(&[&ids], 0).remove(0);
    let (exact, fp32) = {
        let mut backend = smollm(64, Precision::Fp32);
        (logits_all(&mut backend, &sequence), backend.info().clone())
    };
    let mut backend = smollm(128, precision);
    let info = backend.info();
    assert_eq!(
        (info.precision, info.parameters),
        (precision, fp32.parameters)
    );
    // Half of everything but the norms, which stay in 32 bits: two of 576 in each of 30 layers, and the last.
    assert_eq!(
        info.weights_bytes,
        fp32.weights_bytes / 2 + (2 * 30 + 1) * 576 * 2
    );
    assert_eq!(
        info.kv_pool_bytes, fp32.kv_pool_bytes,
        "twice the tokens in half the bytes"
    );
    let rounded = logits_all(&mut backend, &sequence);
    let divergences = exact.iter().zip(&rounded).map(|(a, b)| divergence(a, b));
    let mean = divergences.sum::<f64>() / exact.len() as f64;
    let agree = exact
        .iter()
        .zip(&rounded)
        .filter(|(a, b)| best(a) == best(b))
        .count();
    println!("{precision}: mean divergence {mean:.2e} nats, best token the same at {agree} of 64");
    assert!(mean < most, "{precision} is {mean} nats away from fp32");
    assert!(
        agree >= least_agreement,
        "the best token is the same at {agree} of {} positions",
        exact.len()
    );
}

#[test]
fn bf16_stays_close_to_fp32() {
    short_precision_stays_close(Precision::Bf16, 0.05, 56);
}

#[test]
fn fp16_stays_close_to_fp32() {
    short_precision_stays_close(Precision::Fp16, 0.001, 60);
}
