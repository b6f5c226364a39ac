//! Literals that are too random to be words, paths or alphabets.

use std::ops::Range;
use std::sync::LazyLock;

use regex::Regex;

/// Shorter ones are too often names; longer ones are data.
const LENGTHS: Range<usize> = 32..513;
/// Bits for a character. 32 random characters of base64 have 4.4 to 4.9, English has 4.
const LEAST_BITS: f64 = 4.2;
/// Neighbours of different kinds (capital, small, digit, sign) among all. Random base64 has 0.65, words have 0.2.
const LEAST_CHANGES: f64 = 0.4;

static LITERAL: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r#"["'`=]([A-Za-z0-9+/_-]{32,}={0,2})(?:["'`\s]|$)"#).expect("a fixed pattern")
});

/// Where they are. Hexadecimal digits are not looked at: they are hashes far more often.
pub(super) fn find(text: &str) -> impl Iterator<Item = Range<usize>> {
    LITERAL.captures_iter(text).filter_map(|captures| {
        let literal = captures.get(1)?;
        is_random(literal.as_str()).then(|| literal.range())
    })
}

fn is_random(literal: &str) -> bool {
    let bytes = literal.trim_end_matches('=').as_bytes();
    // Of subresource integrity, and of lock files.
    let checksum = ["sha256-", "sha384-", "sha512-", "sha1-", "h1"]
        .iter()
        .any(|p| literal.starts_with(p));
    if checksum || !LENGTHS.contains(&bytes.len()) {
        return false;
    }
    let has = |kind: fn(&u8) -> bool| bytes.iter().any(kind);
    let mixed =
        has(u8::is_ascii_uppercase) && has(u8::is_ascii_lowercase) && has(u8::is_ascii_digit);
    mixed && changes(bytes) >= LEAST_CHANGES && bits(bytes) >= LEAST_BITS
}

fn changes(bytes: &[u8]) -> f64 {
    let kind = |byte: u8| match byte {
        b'A'..=b'Z' => 0,
        b'a'..=b'z' => 1,
        b'0'..=b'9' => 2,
        _ => 3,
    };
    let changed = bytes
        .windows(2)
        .filter(|pair| kind(pair[0]) != kind(pair[1]));
    changed.count() as f64 / (bytes.len() - 1) as f64
}

/// Shannon's, of the characters' frequencies.
fn bits(bytes: &[u8]) -> f64 {
    let mut counts = [0_u32; 256];
    for byte in bytes {
        counts[usize::from(*byte)] += 1;
    }
    let total = bytes.len() as f64;
    let share = |count: &u32| f64::from(*count) / total;
    counts
        .iter()
        .filter(|count| **count > 0)
        .map(|count| -share(count) * share(count).log2())
        .sum()
}
