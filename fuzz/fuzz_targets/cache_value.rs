#![no_main]
//! A value that lies in Redis: as it is, and behind a header, a length and a checksum that are right, so that what lies
//! behind them is reached.

use std::time::Duration;

use code_explainer::cache::{CacheKey, CachedAnswer, FinishReason, KeyParts, Timings};
use libfuzzer_sys::fuzz_target;

/// The largest answer that is taken, in bytes.
const LIMIT: usize = 1 << 14;
/// Where the parts of a value lie: magic 4, version 2, key 32, length 8, checksum 32, payload.
const LENGTH_AT: usize = 38;
const CHECKSUM_AT: usize = 46;

fn key() -> CacheKey {
    CacheKey::new(&KeyParts {
        secret: b"",
        salt: b"",
        code: b"x = 1",
        language: "",
        strategy: "",
        prompt_revision: 0,
        model_digest: b"",
        precision: "",
        temperature: 0.0,
        top_p: 1.0,
        top_k: 0,
        repetition_penalty: 1.0,
        seed: 0,
        stops: &[],
        ignore_eos: false,
        max_new_tokens: 1,
        min_new_tokens: 0,
    })
}

/// The bytes behind everything that is checked before them.
fn forged(key: &CacheKey, payload: &[u8]) -> Vec<u8> {
    let good = CachedAnswer {
        deltas: Vec::new(),
        finish_reason: FinishReason::Eos,
        prompt_tokens: 1,
        generated_tokens: 1,
        seed: 0,
        notes: Vec::new(),
        language: String::new(),
        timings: Timings {
            queue: Duration::ZERO,
            prefill: Duration::ZERO,
            decode: Duration::ZERO,
        },
    };
    let mut value = good.encode(key, LIMIT).expect("a small answer");
    value.truncate(LENGTH_AT);
    value.extend((payload.len() as u64).to_le_bytes());
    let mut hasher = blake3::Hasher::new();
    hasher.update(&value[..CHECKSUM_AT]).update(payload);
    value.extend(hasher.finalize().as_bytes());
    value.extend(payload);
    value
}

fuzz_target!(|bytes: &[u8]| {
    let key = key();
    let _ = CachedAnswer::decode(&key, bytes, LIMIT);
    if let Ok(answer) = CachedAnswer::decode(&key, &forged(&key, bytes), LIMIT) {
        // What is taken can be kept again.
        let _ = answer.encode(&key, LIMIT);
    }
});
