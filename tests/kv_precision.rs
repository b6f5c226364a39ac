//! Keys and values in fewer bits: what it costs in quality, what it saves, and that blocks which sequences share are only
//! read.

use code_explainer_engine::{
    Backend, BlockId, CpuShare, DeviceSpec, EngineKind, EngineOptions, KvPrecision, Precision,
    SequenceStep, StepPlan,
};
use code_explainer_engine_native::kernels::Compute;
use code_explainer_engine_native::kernels::isa::Isa;
use code_explainer_engine_native::kernels::kv::{KvPool, KvShape, RowSlot};
use code_explainer_engine_native::kernels::matrix::Matrix;
use code_explainer_engine_native::kernels::rope::Rope;
use code_explainer_engine_native::pool::Pool;
use code_explainer_engine_native::{NativeBackend, load};
use proptest::prelude::*;

use crate::common::awkward_shapes::tiny_models;
use crate::common::divergence::divergence;
use crate::common::sequences::data;
use crate::common::smollm::checkpoint;

const ALL: [KvPrecision; 4] = [
    KvPrecision::Fp32,
    KvPrecision::Bf16,
    KvPrecision::Fp16,
    KvPrecision::Int8,
];

fn options(precision: Precision, kv_precision: Option<KvPrecision>) -> EngineOptions {
    EngineOptions {
        engine: EngineKind::Native,
        device: DeviceSpec::Cpu,
        cpu_share: CpuShare::WHOLE,
        precision: Some(precision),
        kv_precision,
        kv_cache_tokens: 320,
        block_tokens: 16,
        threads: 2,
    }
}

/// Logits of the tokens from `past` on, of a sequence in the given blocks.
fn logits(
    backend: &mut NativeBackend,
    tokens: &[u32],
    past: usize,
    blocks: &[BlockId],
) -> Vec<f32> {
    let step = SequenceStep {
        tokens: &tokens[past..],
        past,
        blocks,
        sample: None,
    };
    let plan = StepPlan { sequences: &[step] };
    backend.logits(&plan).expect("logits")
}

/// How far each precision of the KV cache moves the answers of the model in fp32.
#[test]
fn fewer_bits_stay_close() {
    let data: serde_json::Value = data("parity.json");
    let ids = |v: &serde_json::Value| -> Vec<u32> {
        serde_json::from_value(v.clone()).expect("token ids")
    };
    let blocks: Vec<BlockId> = (0..20).collect();
    let rows = |kv_precision| {
        let options = options(Precision::Fp32, Some(kv_precision));
        let mut backend = load(checkpoint(), &options).expect("loaded");
        let cases = &data["greedy"].as_array().expect("cases")[2..5];
        (cases.iter())
            .flat_map(|case| logits(&mut backend, &ids(&case["ids"]), 0, &blocks))
            .collect::<Vec<f32>>()
    };
    let vocabulary = checkpoint().config().vocabulary;
    let fp32 = rows(KvPrecision::Fp32);
    for (kv_precision, most, agreement) in [
        (KvPrecision::Bf16, 1e-4, 0.985),
        (KvPrecision::Fp16, 5e-6, 0.995),
        (KvPrecision::Int8, 2e-3, 0.97),
    ] {
        let (kl, same) = divergence(&fp32, &rows(kv_precision), vocabulary);
        println!("KV cache in {kv_precision}: KL {kl:.6}, top-1 {same:.4}");
        assert!(kl > 0.0 && kl < most, "{kv_precision}: KL {kl}");
        assert!(same >= agreement, "{kv_precision}: top-1 {same}");
    }
}

#[test]
fn the_pool_is_as_large_as_it_says() {
    let (model, _files) = tiny_models()[0].checkpoint();
    let config = model.config();
    let heads = (config.layers * config.kv_heads * 20) as u64;
    let (tokens, dim) = (16, config.head_dim as u64);
    let lines = |bytes: u64| bytes.next_multiple_of(64);
    for (kv_precision, size, scale) in [
        (KvPrecision::Fp32, 4, 0),
        (KvPrecision::Bf16, 2, 0),
        (KvPrecision::Fp16, 2, 0),
        (KvPrecision::Int8, 1, 4),
    ] {
        let backend = load(&model, &options(Precision::Fp32, Some(kv_precision))).expect("loaded");
        let keys = lines(tokens * dim * size);
        let values = lines(tokens * dim.next_multiple_of(16) * size);
        let expected = heads * (keys + values + 2 * lines(tokens * scale));
        let info = backend.info();
        assert_eq!(info.kv_pool_bytes, expected, "{kv_precision}");
        assert_eq!(info.kv_precision, kv_precision);
    }
}

#[test]
fn quantized_weights_have_halves_and_fp32_has_floats() {
    let (model, _files) = tiny_models()[0].checkpoint();
    for (precision, expected) in [
        (Precision::Fp32, KvPrecision::Fp32),
        (Precision::Int8, KvPrecision::Fp16),
        (Precision::Int4, KvPrecision::Fp16),
    ] {
        let backend = load(&model, &options(precision, None)).expect("loaded");
        assert_eq!(backend.info().kv_precision, expected, "{precision}");
    }
}

#[test]
fn the_eager_engine_refuses_what_it_does_not_store() {
    let (model, _files) = tiny_models()[0].checkpoint();
    let options = |kv_precision| EngineOptions {
        engine: EngineKind::Eager,
        ..options(Precision::Fp32, Some(kv_precision))
    };
    let load = |kv| code_explainer_engine_torch::load(&model, &options(kv));
    assert!(load(KvPrecision::Fp32).is_ok());
    for kv_precision in &ALL[1..] {
        let error = load(*kv_precision).expect_err("refused").to_string();
        let expected = format!("in its own precision, fp32, not in {kv_precision}");
        assert!(error.contains(&expected), "{error}");
    }
}

/// A second sequence reads the first one's full blocks: its logits are those that it gets alone, and so are the first
/// one's after it, whatever the second one wrote behind the shared blocks.
#[test]
fn a_shared_prefix_is_read_and_never_written() {
    for model in tiny_models() {
        let (checkpoint, _files) = model.checkpoint();
        for kv_precision in ALL {
            let options = options(Precision::Fp32, Some(kv_precision));
            let mut backend = load(&checkpoint, &options).expect("loaded");
            let bits = |x: Vec<f32>| x.into_iter().map(f32::to_bits).collect::<Vec<_>>();
            let cycle = |n: usize| model.ids.iter().copied().cycle().take(n);
            let first: Vec<u32> = cycle(90).collect();
            let second: Vec<u32> = cycle(80).chain([3, 1, 4, 1, 5]).collect();
            let alone: Vec<BlockId> = (10..16).collect();
            let whole = bits(logits(&mut backend, &second, 0, &alone));
            let expected = &whole[80 * backend.info().vocabulary..];

            let blocks: Vec<BlockId> = (0..6).collect();
            let before = bits(logits(&mut backend, &first, 0, &blocks));
            let shared: Vec<BlockId> = [0, 1, 2, 3, 4, 9].into();
            let name = &model.architecture;
            let mine = bits(logits(&mut backend, &second, 80, &shared));
            assert!(mine == expected, "{name}, {kv_precision}: the second one");
            let last = bits(logits(&mut backend, &first, 89, &blocks));
            let vocabulary = last.len();
            let same = before[before.len() - vocabulary..] == last[..];
            assert!(same, "{name}, {kv_precision}: the first one");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]

    /// Rows leave no trace of what the block held before, nor of rows beside them: writing one by one, in another order
    /// and over garbage gives the same bytes.
    #[test]
    fn what_is_stored_depends_on_its_row_alone(
        values in prop::collection::vec(-8.0f32..8.0, 331),
        kv_precision in prop::sample::select(&ALL[..]),
        block_tokens in 1usize..20,
        threads in 1usize..3,
    ) {
        let shape = KvShape { layers: 1, blocks: 3, block_tokens, kv_heads: 2, head_dim: 12 };
        let tokens = 3 * block_tokens;
        let rope = Rope::new(&[1.0, 0.1, 0.01], tokens);
        let compute = Compute { pool: Pool::new(threads).unwrap(), isa: Isa::detect() };
        let width = 2 * 2 * 12;
        let rows: Vec<f32> = (0..tokens * width).map(|i| values[i % values.len()]).collect();
        let slot = |position: usize| RowSlot {
            position,
            block: (position / block_tokens) as BlockId,
            slot: position % block_tokens,
        };
        let slots: Vec<RowSlot> = (0..tokens).map(slot).collect();
        let mut at_once = KvPool::new(shape, kv_precision).unwrap();
        at_once.write(&compute, 0, &slots, Matrix::new(&rows, tokens, width), (0, 24), &rope);
        let mut one_by_one = KvPool::new(shape, kv_precision).unwrap();
        let garbage = vec![1e30; rows.len()];
        one_by_one.write(&compute, 0, &slots, Matrix::new(&garbage, tokens, width), (0, 24), &rope);
        for (row, slot) in rows.chunks_exact(width).zip(&slots).rev() {
            one_by_one.write(&compute, 0, &[*slot], Matrix::new(row, 1, width), (0, 24), &rope);
        }
        prop_assert!(at_once.as_bytes() == one_by_one.as_bytes());
    }
}
