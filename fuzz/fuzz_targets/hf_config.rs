#![no_main]
//! `config.json`, then the same bytes as `generation_config.json`.

use code_explainer_weights::ModelConfig;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(config) = ModelConfig::from_hugging_face(bytes) else {
        return;
    };
    assert!(config.heads.is_multiple_of(config.kv_heads) && config.rotary_dim <= config.head_dim);
    assert!(config.context_length > 0 && config.norm_eps.is_finite());
    let frequencies = config.inverse_frequencies(None);
    assert_eq!(frequencies.len() * 2, config.rotary_dim);
    let _ = config.with_generation_config(bytes);
});
