//! Steps on static tensors in buckets, as CUDA graphs run them, give the eager engine's answers.

use code_explainer_engine::{
    Backend, GraphSteps, Precision, SampleStep, Sampling, SequenceStep, StepPlan,
};
use code_explainer_engine_torch::{TorchBackend, load};
use code_explainer_weights::{Architecture, Checkpoint};
use tempfile::TempDir;

use crate::common::model_files::TinyModel;
use crate::common::sequences::{Sequence, eager, sequences, step};

/// The same tiny model twice: step by step, and in buckets of up to `most_rows` rows.
fn both(architecture: Architecture, precision: Precision, most_rows: usize) -> [TorchBackend; 2] {
    let directory = TempDir::new().expect("a temporary directory");
    TinyModel::new(architecture).write_hugging_face(directory.path(), 1);
    let checkpoint = Checkpoint::open(directory.path()).expect("a model");
    let load = || load(&checkpoint, &eager(640, precision)).expect("loaded");
    let mut bucketed = load();
    bucketed.step_in_buckets(most_rows).expect("buckets");
    [load(), bucketed]
}

fn prompts() -> Vec<Vec<u32>> {
    let prompt = |length: u32, seed: u32| (0..length).map(|i| (i * seed + 5) % 200).collect();
    vec![
        prompt(90, 7),
        prompt(4, 11),
        prompt(15, 13),
        prompt(16, 17),
        prompt(1, 1),
    ]
}

#[test]
fn answers_in_buckets_are_those_of_the_eager_engine() {
    const LENGTH: usize = 24;
    let prompts = prompts();
    let prompts: Vec<&[u32]> = prompts.iter().map(Vec::as_slice).collect();
    for architecture in Architecture::ALL {
        for precision in [Precision::Fp32, Precision::Int4] {
            let answers = both(architecture, precision, 8).map(|mut backend| {
                let mut all = sequences(&prompts, LENGTH);
                for steps in 0.. {
                    // They join one after the other, so that there are steps of every number of rows.
                    let mut running: Vec<&mut Sequence> = (all.iter_mut().enumerate())
                        .filter(|(i, s)| steps >= 4 * i && s.tokens.len() < s.prompt + LENGTH)
                        .map(|(_, s)| s)
                        .collect();
                    if running.is_empty() {
                        break;
                    }
                    step(&mut backend, &mut running, usize::MAX);
                }
                let answers: Vec<_> = all
                    .into_iter()
                    .map(|s| s.tokens[s.prompt..].to_vec())
                    .collect();
                (answers, backend.graph_steps())
            });
            let [(eager, none), (bucketed, steps)] = answers;
            assert_eq!(bucketed, eager, "{architecture} {precision}");
            assert_eq!(none, GraphSteps::default());
            // Three prompts have more than 8 tokens: the steps that they are in fit no bucket.
            assert_eq!(steps.bypassed, 3, "{architecture}");
            assert!(steps.replayed > 20, "{architecture}: {steps:?}");
        }
    }
}

/// Rows of padding write to the scratch block alone: what is in the pool stays as it was.
#[test]
fn padding_reaches_no_sequence() {
    let [mut eager, mut bucketed] = both(Architecture::Llama, Precision::Fp32, 8);
    let tokens: Vec<u32> = (0..40).map(|i| i * 3 % 200).collect();
    let all = |past: usize, count: usize| SequenceStep {
        tokens: &tokens[past..past + count],
        past,
        // The first and the last block of the pool.
        blocks: &[0, 20, 39],
        sample: None,
    };
    let other = SequenceStep {
        tokens: &[9],
        past: 0,
        blocks: &[5],
        sample: None,
    };
    let run = |backend: &mut TorchBackend| {
        backend
            .logits(&StepPlan {
                sequences: &[all(0, 38)],
            })
            .expect("a step");
        // Three rows in a bucket of four, twice, and then the whole sequence again by one token.
        backend
            .logits(&StepPlan {
                sequences: &[other, all(38, 1)],
            })
            .expect("a step");
        backend
            .logits(&StepPlan {
                sequences: &[all(39, 1)],
            })
            .expect("a step")
    };
    let (expected, got) = (run(&mut eager), run(&mut bucketed));
    assert_eq!(
        bucketed.graph_steps(),
        GraphSteps {
            replayed: 2,
            bypassed: 1
        }
    );
    for (a, b) in got[0].iter().zip(&expected[0]) {
        assert!((a - b).abs() < 1e-4, "{a} in a bucket, {b} without");
    }
}

#[test]
fn drafts_fit_buckets_and_are_sampled_as_without_them() {
    let [mut eager, mut bucketed] = both(Architecture::Qwen2, Precision::Fp32, 16);
    let sampling = Sampling {
        temperature: 0.8,
        seed: 4,
        repetition_penalty: 1.2,
        ..Sampling::default()
    };
    let texts: Vec<Vec<u32>> = prompts()[1..4].to_vec();
    let run = |backend: &mut TorchBackend| {
        let blocks: Vec<[u32; 2]> = (0..3).map(|i| [2 * i, 2 * i + 1]).collect();
        let steps: Vec<_> = (texts.iter().zip(&blocks).enumerate())
            .map(|(i, (text, blocks))| SequenceStep {
                tokens: text,
                past: 0,
                blocks,
                sample: Some(SampleStep {
                    sampling: &sampling,
                    history: text,
                    index: 3,
                    banned: &[],
                    drafts: i,
                }),
            })
            .collect();
        // A prompt of 4 tokens without drafts, 15 with one, 16 with two: more than 16 rows together, so each alone.
        let alone: Vec<_> = steps
            .iter()
            .map(|s| {
                backend
                    .step(&StepPlan { sequences: &[*s] })
                    .expect("a step")
                    .tokens
                    .remove(0)
            })
            .collect();
        let together = backend
            .step(&StepPlan { sequences: &steps })
            .expect("a step")
            .tokens;
        (alone, together)
    };
    let (expected, got) = (run(&mut eager), run(&mut bucketed));
    assert_eq!(got, expected);
    assert_eq!(expected.0, expected.1, "alone and together");
    assert_eq!(
        expected.0.iter().map(Vec::len).collect::<Vec<_>>(),
        [1, 2, 3]
    );
    assert_eq!(
        bucketed.graph_steps(),
        GraphSteps {
            replayed: 3,
            bypassed: 1
        }
    );
}
