//! The model that the project ships with is read as what it is.

use std::path::Path;

use code_explainer_weights::{
    Activation, Architecture, Checkpoint, DType, ModelConfig, RopeScaling,
};

const MODEL: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/models/SmolLM2-135M-Instruct.Q4_1.gguf"
);

#[test]
fn smollm2_has_its_published_sizes() {
    let model = Checkpoint::open(Path::new(MODEL)).unwrap_or_else(|e| panic!("{e}"));
    let expected = ModelConfig {
        architecture: Architecture::Llama,
        layers: 30,
        hidden: 576,
        intermediate: 1536,
        heads: 9,
        kv_heads: 3,
        head_dim: 64,
        vocabulary: 49_152,
        context_length: 8192,
        norm_eps: 1e-5,
        rope_theta: 100_000.0,
        rope_scaling: RopeScaling::None,
        rotary_dim: 64,
        activation: Activation::Silu,
        tied_head: true,
        bos: Some(1),
        eos: vec![2],
        sliding_window: None,
        notes: vec![],
    };
    assert_eq!(model.config(), &expected);
    assert_eq!(model.parameters(), 134_515_008);
    assert_eq!(model.name(), "Smollm2 135M 8k Lc100K Mix1 Ep2");
    let metadata = model.gguf_metadata().expect("a GGUF file");
    let tokens = metadata
        .get_strings("tokenizer.ggml.tokens")
        .expect("tokens");
    assert_eq!((tokens.len(), tokens.get(2)), (49_152, Some("<|im_end|>")));
    assert_eq!(
        metadata
            .get_strings("tokenizer.ggml.merges")
            .map(|m| m.len()),
        Some(48_900)
    );
}

#[test]
fn smollm2_embedding_rows_are_read_alone_as_in_the_whole() {
    let model = Checkpoint::open(Path::new(MODEL)).unwrap_or_else(|e| panic!("{e}"));
    let embedding = model.tensor("token_embd.weight").expect("it has one");
    assert_eq!(
        (embedding.dtype, &embedding.shape[..]),
        (DType::Q8_0, &[49_152, 576][..])
    );
    let all = embedding.to_f32();
    for token in [0, 1, 2, 49_151] {
        let mut row = vec![0.0; 576];
        embedding.rows_to_f32(token..token + 1, &mut row);
        assert_eq!(row, all[token * 576..(token + 1) * 576]);
        assert!(row.iter().any(|&x| x != 0.0) && row.iter().all(|x| x.abs() < 10.0));
    }
}
