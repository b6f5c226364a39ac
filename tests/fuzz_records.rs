//! Whatever lies in the files of the data directory or comes as a document: reading it gives what was written, or nothing,
//! and never a panic.
//!
//! `CODE_EXPLAINER_FUZZ_SECONDS` makes each of these run for so long.

use std::time::{Duration, Instant};

use code_explainer::embed::cache::{decode_value, encode_value};
use code_explainer::embed::{Embedding, VectorKey};
use code_explainer::retrieval::chunk::{PASSAGE_CHARS, passages};
use code_explainer::retrieval::record::{
    DocumentRecord, Kind, PassageRecord, Scope, parse, seal, unseal,
};

/// Without `CODE_EXPLAINER_FUZZ_SECONDS`.
const ROUNDS: u64 = 20_000;

/// SplitMix64 (Steele, Lea and Flood, 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }

    fn mutate(&mut self, bytes: &mut Vec<u8>) {
        for _ in 0..=self.below(3) {
            let at = self.below(bytes.len());
            match self.below(4) {
                0 => bytes.truncate(at),
                1 => bytes.insert(at, self.next() as u8),
                _ if at < bytes.len() => bytes[at] = self.next() as u8,
                _ => {}
            }
        }
    }
}

fn rounds(most: u64, mut round: impl FnMut(&mut Random)) {
    let seconds = std::env::var("CODE_EXPLAINER_FUZZ_SECONDS").ok();
    let limit = seconds
        .and_then(|s| s.parse().ok())
        .map(Duration::from_secs);
    let start = Instant::now();
    for number in 0.. {
        if limit.map_or(number >= most, |limit| start.elapsed() >= limit) {
            break;
        }
        round(&mut Random(number));
    }
}

fn passage() -> PassageRecord {
    PassageRecord {
        scope: Scope::of_tenant(b"a"),
        kind: Kind::Explanation,
        document: "docs/queue.md".into(),
        number: 3,
        title: "Queue".into(),
        text: "A bounded queue.".into(),
        embedded: Some("queue".into()),
        model: "digest".into(),
        vector: vec![0.6, 0.8],
    }
}

#[test]
fn records_of_the_corpus() {
    let record = passage();
    let sealed = seal(&record);
    assert_eq!(unseal::<PassageRecord>(&sealed).as_ref(), Some(&record));
    rounds(ROUNDS, |random| {
        let mut bytes = sealed.clone();
        random.mutate(&mut bytes);
        if let Some(read) = unseal::<PassageRecord>(&bytes) {
            assert_eq!((read, &bytes), (record.clone(), &sealed));
        }
        // Past the checksum, as if somebody had made one that is right.
        let payload = bytes.get(17..).unwrap_or_default();
        let _ = parse::<PassageRecord>(payload);
        let _ = parse::<DocumentRecord>(payload);
    });
}

#[test]
fn vectors_of_the_cache() {
    let key = VectorKey::new(b"salt", "model", "text");
    let embedding = Embedding {
        values: vec![0.5; 6],
        tokens: 7,
        truncated: false,
        cached: true,
    };
    let good = encode_value(&key, &embedding);
    rounds(ROUNDS, |random| {
        let mut bytes = good.clone();
        random.mutate(&mut bytes);
        if let Some((_, read)) = decode_value(&key, &bytes, 6) {
            assert_eq!(read, embedding);
        }
    });
}

#[test]
fn documents() {
    let pieces = [
        "# ",
        "## a\n",
        "```\n",
        "- x\n",
        "\r\n",
        "word ",
        "é🚀",
        "\0",
        "|a|b|\n|-|-|\n",
        "[l](u)",
        "<div>",
        "> q\n\n",
        "\u{2028}",
        "1. ",
    ];
    rounds(1_000, |random| {
        let text: String = (0..random.below(400))
            .map(|_| pieces[random.below(pieces.len())])
            .collect();
        for name in ["a.md", "a.txt"] {
            let all = passages(name, "t", &text);
            assert!(all.iter().all(|p| p.text.chars().count() <= PASSAGE_CHARS));
        }
    });
}
