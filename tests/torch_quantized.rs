//! int8 and int4 by libtorch's own operators: how close they stay to fp32, and their size.

use code_explainer_engine::{Backend, EngineError, Precision};
use code_explainer_engine_torch::{TorchBackend, load};
use code_explainer_weights::{Architecture, Checkpoint};
use serde::Deserialize;
use tempfile::TempDir;

use crate::common::model_files::{TinyModel, safetensors};
use crate::common::sequences::{data, eager, logits_all, sequences, step};
use crate::common::smollm;

#[derive(Deserialize)]
struct Reference {
    greedy: Vec<Greedy>,
}

#[derive(Deserialize)]
struct Greedy {
    ids: Vec<u32>,
}

/// Mean KL divergence of `q` from `p` in nats, and how often their largest logit is the same.
fn divergence(p: &[Vec<f32>], q: &[Vec<f32>]) -> (f64, f64) {
    let log_sum = |row: &[f32]| {
        let largest = f64::from(row.iter().copied().fold(f32::MIN, f32::max));
        let sum: f64 = row.iter().map(|x| (f64::from(*x) - largest).exp()).sum();
        largest + sum.ln()
    };
    let top = |row: &[f32]| (0..row.len()).max_by(|a, b| row[*a].total_cmp(&row[*b]));
    let (mut kl, mut same) = (0.0, 0);
    for (p, q) in p.iter().zip(q) {
        let (p_sum, q_sum) = (log_sum(p), log_sum(q));
        for (p, q) in p.iter().zip(q) {
            let p = f64::from(*p) - p_sum;
            kl += p.exp() * (p - (f64::from(*q) - q_sum));
        }
        same += usize::from(top(p) == top(q));
    }
    (kl / p.len() as f64, same as f64 / p.len() as f64)
}

fn logits(backend: &mut TorchBackend, prompts: &[Vec<u32>]) -> Vec<Vec<f32>> {
    let all = prompts
        .iter()
        .flat_map(|prompt| logits_all(backend, &sequences(&[prompt], 0)[0]));
    all.collect()
}

#[test]
fn smollm_stays_close_to_fp32_in_a_fraction_of_the_memory() {
    let cases = data::<Reference>("parity.json").greedy;
    let prompts: Vec<_> = cases[2..6].iter().map(|case| case.ids.clone()).collect();
    let load = |precision| load(smollm::checkpoint(), &eager(512, precision)).expect("loaded");
    let mut fp32 = load(Precision::Fp32);
    let expected = logits(&mut fp32, &prompts);
    assert!(expected.len() >= 300, "{} positions", expected.len());
    for (precision, most, least, memory) in [
        (Precision::Int8, 0.02, 0.92, 0.26),
        (Precision::Int4, 0.02, 0.92, 0.22),
    ] {
        let mut backend = load(precision);
        let share = backend.info().weights_bytes as f64 / fp32.info().weights_bytes as f64;
        let (kl, same) = divergence(&expected, &logits(&mut backend, &prompts));
        println!("eager {precision}: KL {kl:.5}, top-1 {same:.3}, {share:.3} of fp32's weights");
        assert!(kl <= most, "{precision}: KL {kl}");
        assert!(same >= least, "{precision}: top-1 {same}");
        assert!(share <= memory, "{precision}: {share} of fp32's weights");
    }
}

/// Norms, biases, embeddings with and without a head of their own: every architecture, in chunks and beside others.
#[test]
fn every_architecture_runs_in_bits() {
    let prompts: [Vec<u32>; 2] = [(0..30).map(|i| i * 7 % 200).collect(), vec![3, 1, 4]];
    for architecture in Architecture::ALL {
        for tied in [true, false] {
            let mut model = TinyModel::new(architecture);
            model.tied_head = tied;
            let directory = TempDir::new().expect("a temporary directory");
            model.write_hugging_face(directory.path(), 1);
            let checkpoint = Checkpoint::open(directory.path()).expect("a model");
            let load = |precision| load(&checkpoint, &eager(128, precision)).expect("loaded");
            let expected = logits(&mut load(Precision::Fp32), &prompts);
            for (precision, most) in [(Precision::Int8, 2e-3), (Precision::Int4, 0.1)] {
                let mut backend = load(precision);
                let (kl, _) = divergence(&expected, &logits(&mut backend, &prompts));
                println!("{architecture} in {precision}: KL {kl:.2e}");
                assert!(kl < most, "{architecture} in {precision}: KL {kl}");
                let prompts: Vec<&[u32]> = prompts.iter().map(Vec::as_slice).collect();
                let [whole, chunked] = [64, 7].map(|chunk| {
                    let mut all = sequences(&prompts, 8);
                    while all.iter().any(|s| s.tokens.len() < s.prompt + 8) {
                        let open = |s: &&mut crate::common::sequences::Sequence| {
                            s.tokens.len() < s.prompt + 8
                        };
                        let mut running: Vec<_> = all.iter_mut().filter(open).collect();
                        step(&mut backend, &mut running, chunk);
                    }
                    all.into_iter().map(|s| s.tokens).collect::<Vec<_>>()
                });
                assert_eq!(whole, chunked, "{architecture} in {precision}");
            }
        }
    }
}

#[test]
fn a_weight_that_is_no_number_is_named() {
    let model = TinyModel::new(Architecture::Llama);
    let directory = TempDir::new().expect("a temporary directory");
    model.write_hugging_face(directory.path(), 1);
    let mut tensors = model.safetensors();
    let weight = (tensors.iter_mut())
        .find(|t| t.name == "model.layers.1.mlp.down_proj.weight")
        .expect("it has one");
    weight.data[..4].copy_from_slice(&f32::INFINITY.to_le_bytes());
    let file = directory.path().join("model.safetensors");
    std::fs::write(file, safetensors::to_bytes(&tensors)).expect("written");
    let checkpoint = Checkpoint::open(directory.path()).expect("a model");
    for precision in [Precision::Int8, Precision::Int4] {
        let error = load(&checkpoint, &eager(64, precision)).expect_err("refused");
        assert!(
            matches!(&error, EngineError::Unrepresentable { tensor } if tensor == "blk.1.ffn_down.weight"),
            "{error}"
        );
    }
}
