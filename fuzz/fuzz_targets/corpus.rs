#![no_main]
//! What lies in the data directory, and documents: records past their checksum, values of the embedding cache, passages.

use code_explainer::embed::VectorKey;
use code_explainer::embed::cache::decode_value;
use code_explainer::retrieval::chunk::{PASSAGE_CHARS, passages};
use code_explainer::retrieval::record::{DocumentRecord, PassageRecord, parse, unseal};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = unseal::<PassageRecord>(bytes);
    let _ = parse::<PassageRecord>(bytes);
    let _ = parse::<DocumentRecord>(bytes);
    let _ = decode_value(&VectorKey::new(b"salt", "model", "text"), bytes, 8);
    if let Ok(text) = std::str::from_utf8(bytes) {
        for name in ["a.md", "a.txt"] {
            let all = passages(name, "title", text);
            assert!(all.iter().all(|p| p.text.chars().count() <= PASSAGE_CHARS));
        }
    }
});
