#![no_main]
//! A GGUF file, from its magic to the last dequantized element.

use std::path::Path;

use code_explainer_weights::gguf::{GgufModel, read_model};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(GgufModel {
        config, tensors, ..
    }) = read_model(bytes, Path::new("fuzz"))
    else {
        return;
    };
    for (name, _) in tensors.iter() {
        let view = tensors
            .view(name, bytes)
            .expect("a checked tensor lies in the file");
        assert_eq!(view.to_f32().len(), view.len());
    }
    assert_eq!(
        config.inverse_frequencies(None).len() * 2,
        config.rotary_dim
    );
});
