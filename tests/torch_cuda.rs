//! The libtorch engine with the `cuda` feature: on a GPU it answers as on the CPU, through CUDA graphs; without one it says so.

use code_explainer_engine::{Backend, DeviceSpec, EngineError, EngineOptions, Precision};
use code_explainer_engine_torch::{cuda_devices, load};
use code_explainer_weights::{Architecture, Checkpoint};
use tempfile::TempDir;

use crate::common::model_files::TinyModel;
use crate::common::sequences::{eager, sequences, step};
use crate::common::smollm;

fn on_cuda(precision: Precision) -> EngineOptions {
    EngineOptions {
        device: DeviceSpec::Cuda(0),
        ..eager(1024, precision)
    }
}

#[test]
fn a_device_serves_or_is_said_to_be_missing() {
    let directory = TempDir::new().expect("a temporary directory");
    TinyModel::new(Architecture::Llama).write_hugging_face(directory.path(), 1);
    let checkpoint = Checkpoint::open(directory.path()).expect("a model");
    match load(&checkpoint, &on_cuda(Precision::Fp32)) {
        Ok(backend) => assert_eq!(backend.info().device, "cuda:0"),
        Err(error) => {
            assert!(cuda_devices() == 0, "{error}");
            assert!(
                matches!(&error, EngineError::Device { device, .. } if device == "cuda:0"),
                "{error}"
            );
            // It is linked: what is missing is the driver.
            assert!(error.to_string().contains("no CUDA driver"), "{error}");
        }
    }
}

#[test]
fn graphs_on_a_gpu_give_the_answers_of_the_cpu() {
    if cuda_devices() == 0 {
        println!("no GPU here: nothing was captured");
        return;
    }
    const LENGTH: usize = 24;
    let prompts: [Vec<u32>; 3] = [vec![504, 2365, 282], vec![1, 4093], (0..70).collect()];
    let prompts: Vec<&[u32]> = prompts.iter().map(Vec::as_slice).collect();
    let answers = |options: &EngineOptions| {
        let mut backend = load(smollm::checkpoint(), options).expect("loaded");
        let mut all = sequences(&prompts, LENGTH);
        for _ in 0..LENGTH {
            step(
                &mut backend,
                &mut all.iter_mut().collect::<Vec<_>>(),
                usize::MAX,
            );
        }
        let answers: Vec<_> = all
            .into_iter()
            .map(|s| s.tokens[s.prompt..].to_vec())
            .collect();
        (answers, backend.graph_steps())
    };
    let (expected, _) = answers(&eager(1024, Precision::Fp32));
    let (ours, steps) = answers(&on_cuda(Precision::Fp32));
    assert_eq!(ours, expected);
    assert_eq!((steps.replayed, steps.bypassed), (LENGTH as u64 - 1, 1));
    for precision in [
        Precision::Bf16,
        Precision::Fp16,
        Precision::Int8,
        Precision::Int4,
    ] {
        let (ours, _) = answers(&on_cuda(precision));
        let pairs = || ours.iter().flatten().zip(expected.iter().flatten());
        let same = pairs().filter(|(a, b)| a == b).count();
        println!(
            "{precision}: {same} of {} tokens are those of fp32",
            pairs().count()
        );
        assert!(
            ours.iter().zip(&expected).all(|(a, b)| a[0] == b[0]),
            "{precision}: the first tokens"
        );
    }
}
