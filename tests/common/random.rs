//! Numbers that look random and are the same in every run, and what fuzzers make of them.

use std::time::{Duration, Instant};

/// SplitMix64 (Steele, Lea and Flood, 2014).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Of an empty range: 0.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }

    /// Of so many of these parts at most.
    pub(crate) fn text(&mut self, parts: &[&str], most: usize) -> String {
        (0..self.below(most + 1))
            .map(|_| parts[self.below(parts.len())])
            .collect()
    }

    /// Changes some bytes: flips, cuts, insertions, copies of parts, and pieces that are `meant`: such as mean something to
    /// the reader.
    pub(crate) fn mutate(&mut self, bytes: &mut Vec<u8>, meant: &[&[u8]]) {
        for _ in 0..1 + self.below(4) {
            let at = self.below(bytes.len());
            match self.below(if meant.is_empty() { 5 } else { 6 }) {
                0 if !bytes.is_empty() => bytes[at] ^= 1 << self.below(8),
                1 => bytes.truncate(at),
                2 => bytes.insert(at, self.next() as u8),
                3 => {
                    let end = (at + self.below(16)).min(bytes.len());
                    let copy = bytes[at..end].to_vec();
                    let to = self.below(bytes.len());
                    bytes.splice(to..to, copy);
                }
                5 => {
                    let end = (at + self.below(8)).min(bytes.len());
                    bytes.splice(at..end, meant[self.below(meant.len())].iter().copied());
                }
                _ => {
                    let end = (at + self.below(16)).min(bytes.len());
                    bytes.drain(at..end);
                }
            }
        }
    }
}

/// How long each fuzzer is to run, if not for as long as it is by itself: `CODE_EXPLAINER_FUZZ_SECONDS`.
pub(crate) fn fuzz_time() -> Option<Duration> {
    let seconds = std::env::var("CODE_EXPLAINER_FUZZ_SECONDS").ok()?;
    let seconds = seconds.parse().expect("a number of seconds");
    Some(Duration::from_secs(seconds))
}

/// Numbers of rounds: `count` of them, or as many as the [time](fuzz_time) allows.
pub(crate) fn rounds(count: u64) -> impl Iterator<Item = u64> {
    let (time, start) = (fuzz_time(), Instant::now());
    (0..).take_while(move |round| match time {
        Some(time) => start.elapsed() < time,
        None => *round < count,
    })
}
