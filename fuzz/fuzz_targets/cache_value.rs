#![no_main]
//! A value that lies in Redis: as it is, and behind a header and a code that are right, so that what lies behind them is
//! reached.

use std::time::Duration;

use code_explainer_cache::{CacheKey, CachedAnswer, FinishReason, KeyParts, MacKey, Timings};
use libfuzzer_sys::fuzz_target;

/// The largest answer that is taken, in bytes.
const LIMIT: usize = 1 << 14;
/// Where the parts of a value lie: magic 4, version 2, code 32, payload.
const CODE_AT: usize = 6;

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
fn forged(mac: &MacKey, key: &CacheKey, payload: &[u8]) -> Vec<u8> {
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
    let mut value = good.encode(mac, key, LIMIT).expect("a small answer");
    value.truncate(CODE_AT);
    let secret = blake3::derive_key("code-explainer cache MAC, version 1", b"");
    let mut hasher = blake3::Hasher::new_keyed(&secret);
    hasher.update(&[1]).update(key.as_bytes());
    for part in [value.as_slice(), payload] {
        hasher
            .update(&(part.len() as u64).to_le_bytes())
            .update(part);
    }
    value.extend(hasher.finalize().as_bytes());
    value.extend(payload);
    value
}

fuzz_target!(|bytes: &[u8]| {
    let (mac, key) = (MacKey::new(b""), key());
    let _ = CachedAnswer::decode(&mac, &key, bytes, LIMIT);
    if let Ok(answer) = CachedAnswer::decode(&mac, &key, &forged(&mac, &key, bytes), LIMIT) {
        // What is taken can be kept again.
        let _ = answer.encode(&mac, &key, LIMIT);
    }
});
