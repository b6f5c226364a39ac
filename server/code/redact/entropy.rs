//! Literals that are too random to be words, paths or alphabets.

use std::ops::Range;

/// Shorter ones are too often names; longer ones are data.
const LENGTHS: Range<usize> = 32..513;
/// Bits for a character. 32 random characters of base64 have 4.4 to 4.9, English has 4.
const LEAST_BITS: f64 = 4.2;
/// Neighbours of different kinds (capital, small, digit, sign) among all. Random base64 has 0.65, words have 0.2.
const LEAST_CHANGES: f64 = 0.4;

/// Where they are: between quotes, or after a sign of equality up to a space. Hexadecimal digits are not looked at: they are
/// hashes far more often.
pub(super) fn find(text: &str) -> impl Iterator<Item = Range<usize>> {
    let bytes = text.as_bytes();
    let mut at = 0;
    std::iter::from_fn(move || {
        while at < bytes.len() {
            if !is_base64(bytes[at]) {
                at += 1;
                continue;
            }
            let start = at;
            at += run(&bytes[at..], is_base64);
            let padding = run(&bytes[at..], |byte| byte == b'=').min(2);
            let literal = start..at + padding;
            let opened = start
                .checked_sub(1)
                .is_some_and(|before| b"\"'`=".contains(&bytes[before]));
            let closed =
                (bytes.get(literal.end)).is_none_or(|after| b"\"'` \t\r\n".contains(after));
            if opened && closed && is_random(&bytes[start..at]) {
                return Some(literal);
            }
        }
        None
    })
}

fn run(bytes: &[u8], of: impl Fn(u8) -> bool) -> usize {
    (bytes.iter().position(|byte| !of(*byte))).unwrap_or(bytes.len())
}

/// In both alphabets of base64.
fn is_base64(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"+/_-".contains(&byte)
}

fn is_random(literal: &[u8]) -> bool {
    if !LENGTHS.contains(&literal.len()) {
        return false;
    }
    // Of subresource integrity, and of lock files.
    let checksums: [&[u8]; 5] = [b"sha256-", b"sha384-", b"sha512-", b"sha1-", b"h1"];
    if checksums.iter().any(|prefix| literal.starts_with(prefix)) {
        return false;
    }
    let has = |kind: fn(&u8) -> bool| literal.iter().any(kind);
    let mixed =
        has(u8::is_ascii_uppercase) && has(u8::is_ascii_lowercase) && has(u8::is_ascii_digit);
    mixed && changes(literal) >= LEAST_CHANGES && bits(literal) >= LEAST_BITS
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
