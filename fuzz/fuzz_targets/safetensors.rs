#![no_main]
//! A safetensors file, read as the weights of each architecture.

use std::path::PathBuf;

use code_explainer_weights::huggingface::canonical_table;
use code_explainer_weights::{ModelConfig, SafetensorsTable, validate};
use libfuzzer_sys::fuzz_target;

const CONFIGS: [&[u8]; 2] = [
    br#"{"model_type":"llama","hidden_size":4,"num_attention_heads":2,"num_hidden_layers":1,"intermediate_size":4,"vocab_size":4,"max_position_embeddings":4,"rms_norm_eps":1e-5,"tie_word_embeddings":true}"#,
    br#"{"model_type":"gpt2","n_embd":4,"n_head":2,"n_layer":1,"n_positions":4,"vocab_size":4,"layer_norm_epsilon":1e-5}"#,
];

fuzz_target!(|bytes: &[u8]| {
    let Ok(table) = SafetensorsTable::parse(bytes) else {
        return;
    };
    let files = [(PathBuf::from("fuzz"), table)];
    for config in CONFIGS {
        let config = ModelConfig::from_hugging_face(config).expect("a good configuration");
        let Ok(tensors) = canonical_table(&config, &files) else {
            continue;
        };
        for (name, _) in tensors.iter() {
            let view = tensors
                .view(name, bytes)
                .expect("a parsed tensor lies in the file");
            assert_eq!(view.to_f32().len(), view.len());
        }
        // Whether it is a whole model does not matter, only that the answer comes.
        let _ = validate(&config, &tensors, &files[0].0);
    }
});
