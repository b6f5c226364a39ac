//! Whatever lies in Redis: reading it gives the answer that was written, or an error, and never a panic.
//!
//! `CODE_EXPLAINER_FUZZ_SECONDS` makes each of these run for so long.

use std::time::{Duration, Instant};

use code_explainer_cache::{
    BrokenValue, CacheKey, CachedAnswer, CachedDelta, FinishReason, KeyParts, MacKey, Timings,
};

use crate::common::random::{Random, rounds};

/// Without `CODE_EXPLAINER_FUZZ_SECONDS`.
const ROUNDS: u64 = 20_000;
/// More than any answer here has.
const LIMIT: usize = 1 << 14;
/// Where the parts of a value lie: magic 4, version 2, code 32, payload.
const CODE_AT: usize = 6;
const PAYLOAD_AT: usize = 38;
/// Of the installation. Who forges here knows it, so that what lies behind the code is reached.
const SECRET: &[u8] = b"secret";

/// Tokens of JSON.
const TOKENS: &[&[u8]] = &[
    b"[",
    b"{",
    b"\"",
    b",",
    b"\\ud800",
    b"null",
    b"-1",
    b"1e999",
    b"18446744073709551616",
    b"\"eos\"",
    b"\"deltas\":[",
    b"\xff",
];

/// Characters that are easily written or read wrongly.
const CHARACTERS: [&str; 11] = [
    "a",
    " ",
    "\"",
    "\\",
    "\n",
    "\0",
    "\u{1f}",
    "é",
    "\u{fffd}",
    "🌍",
    "\u{10ffff}",
];

fn text(random: &mut Random) -> String {
    random.text(&CHARACTERS, 11)
}

fn answer(random: &mut Random) -> CachedAnswer {
    use FinishReason::{Context, Eos, Length, Stop};
    let time = |random: &mut Random| Duration::from_nanos(random.next());
    CachedAnswer {
        deltas: (0..random.below(20))
            .map(|_| CachedDelta {
                text: text(random),
                at_us: random.next(),
            })
            .collect(),
        finish_reason: [Eos, Stop, Length, Context][random.below(4)],
        prompt_tokens: random.next() as u32,
        generated_tokens: random.next() as u32,
        seed: random.next(),
        notes: (0..random.below(3)).map(|_| text(random)).collect(),
        language: text(random),
        timings: Timings {
            queue: time(random),
            prefill: time(random),
            decode: time(random),
        },
    }
}

fn key(random: &mut Random) -> CacheKey {
    let code = random.next().to_le_bytes();
    CacheKey::new(&KeyParts {
        code: &code,
        ..KeyParts::default()
    })
}

fn mac() -> MacKey {
    MacKey::new(SECRET)
}

/// Puts the code right, by hand: one for an answer (1), of its key, and of header and payload behind their lengths.
fn sign(key: &CacheKey, value: &mut [u8]) {
    if value.len() < PAYLOAD_AT {
        return;
    }
    let secret = blake3::derive_key("code-explainer cache MAC, version 1", SECRET);
    let mut hasher = blake3::Hasher::new_keyed(&secret);
    hasher.update(&[1]).update(key.as_bytes());
    for part in [&value[..CODE_AT], &value[PAYLOAD_AT..]] {
        let length = part.len() as u64;
        hasher.update(&length.to_le_bytes()).update(part);
    }
    let code = hasher.finalize();
    value[CODE_AT..PAYLOAD_AT].copy_from_slice(code.as_bytes());
}

#[test]
fn fuzz_an_answer_reads_back_under_its_key_alone() {
    let mut random = Random(1);
    for round in rounds(ROUNDS) {
        let (answer, right, wrong) = (answer(&mut random), key(&mut random), key(&mut random));
        let value = answer.encode(&mac(), &right, LIMIT).expect("small");
        assert_eq!(
            CachedAnswer::decode(&mac(), &right, &value, LIMIT).expect("intact"),
            answer,
            "{round}"
        );
        let other = CachedAnswer::decode(&mac(), &wrong, &value, LIMIT);
        assert!(matches!(other, Err(BrokenValue::Mac)), "{round}: {other:?}");
        let other = CachedAnswer::decode(&MacKey::new(b"another"), &right, &value, LIMIT);
        assert!(matches!(other, Err(BrokenValue::Mac)), "{round}: {other:?}");
    }
}

#[test]
fn fuzz_changed_bytes_are_never_taken_for_an_answer() {
    let mut random = Random(2);
    for round in rounds(ROUNDS) {
        let (answer, key) = (answer(&mut random), key(&mut random));
        let value = answer.encode(&mac(), &key, LIMIT).expect("small");
        let mut changed = value.clone();
        random.mutate(&mut changed, TOKENS);
        let decoded = CachedAnswer::decode(&mac(), &key, &changed, LIMIT);
        assert_eq!(decoded.is_ok(), changed == value, "{round}: {decoded:?}");
    }
}

/// Forged with the secret: the code is right. What is behind it is a frame that was changed, or a frame of a text that was.
#[test]
fn fuzz_a_forged_value_is_an_answer_or_an_error() {
    let mut random = Random(3);
    let mut accepted = 0;
    for round in rounds(ROUNDS) {
        let (answer, key) = (answer(&mut random), key(&mut random));
        let mut value = answer.encode(&mac(), &key, LIMIT).expect("small");
        let mut payload = value.split_off(PAYLOAD_AT);
        if round % 2 == 0 {
            payload = zstd::decode_all(&*payload).expect("a frame");
            random.mutate(&mut payload, TOKENS);
            payload = zstd::encode_all(&*payload, 1).expect("memory");
        } else {
            random.mutate(&mut payload, TOKENS);
        }
        value.extend(payload);
        sign(&key, &mut value);
        match CachedAnswer::decode(&mac(), &key, &value, LIMIT) {
            Ok(read) => {
                accepted += 1;
                let again = read.encode(&mac(), &key, LIMIT).expect("small");
                assert_eq!(
                    CachedAnswer::decode(&mac(), &key, &again, LIMIT).expect("intact"),
                    read,
                    "{round}"
                );
            }
            Err(
                BrokenValue::Payload(_)
                | BrokenValue::Compression(_)
                | BrokenValue::TooLarge { .. },
            ) => {}
            Err(other) => panic!("{round}: the header is right, but {other}"),
        }
    }
    // Otherwise the mutations are too coarse to reach past the JSON parser.
    assert!(accepted > 0);
}

/// A gigabyte of spaces packs into some tens of kilobytes.
#[test]
fn a_value_that_unpacks_to_too_much_is_given_up_at_the_limit() {
    let mut random = Random(5);
    let (answer, key) = (answer(&mut random), key(&mut random));
    let mut value = answer.encode(&mac(), &key, LIMIT).expect("small");
    value.truncate(PAYLOAD_AT);
    let spaces = std::io::Read::take(std::io::repeat(b' '), 1 << 30);
    zstd::stream::copy_encode(spaces, &mut value, 1).expect("memory");
    sign(&key, &mut value);
    let started = Instant::now();
    let error = CachedAnswer::decode(&mac(), &key, &value, LIMIT).expect_err("too much");
    // The window alone can be refused, or the text.
    assert!(
        matches!(
            error,
            BrokenValue::TooLarge { limit: LIMIT } | BrokenValue::Compression(_)
        ),
        "{error}"
    );
    assert!(started.elapsed() < Duration::from_secs(5));
}

/// Whatever lies behind a code that is wrong, it is the code that is found wrong: nothing behind it was looked at.
#[test]
fn fuzz_nothing_is_unpacked_before_its_code_is_right() {
    let mut random = Random(4);
    for round in rounds(ROUNDS) {
        let (answer, key) = (answer(&mut random), key(&mut random));
        let value = answer.encode(&mac(), &key, LIMIT).expect("small");
        let mut changed = value.clone();
        if round % 2 == 0 {
            changed.truncate(PAYLOAD_AT + random.below(value.len() - PAYLOAD_AT));
        } else {
            let at = CODE_AT + random.below(value.len() - CODE_AT);
            changed[at] ^= 1 << random.below(8);
        }
        let decoded = CachedAnswer::decode(&mac(), &key, &changed, LIMIT);
        assert!(
            matches!(decoded, Err(BrokenValue::Mac)),
            "{round}: {decoded:?}"
        );
    }
}
