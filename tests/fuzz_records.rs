//! Whatever lies in the files of the data directory or comes as a document: reading it gives what was written, or nothing,
//! and never a panic.
//!
//! `CODE_EXPLAINER_FUZZ_SECONDS` makes each of these run for so long.

use code_explainer::embed::cache::{decode_value, encode_value};
use code_explainer::embed::{Embedding, VectorKey};
use code_explainer::retrieval::chunk::{PASSAGE_CHARS, passages};
use code_explainer::retrieval::record::{
    DocumentRecord, Kind, PassageRecord, Scope, parse, seal, unseal,
};

use crate::common::random::{Random, rounds};

/// Without `CODE_EXPLAINER_FUZZ_SECONDS`.
const ROUNDS: u64 = 20_000;

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
    for round in rounds(ROUNDS) {
        let random = &mut Random(round);
        let mut bytes = sealed.clone();
        random.mutate(&mut bytes, &[]);
        if let Some(read) = unseal::<PassageRecord>(&bytes) {
            assert_eq!((read, &bytes), (record.clone(), &sealed));
        }
        // Past the checksum, as if somebody had made one that is right.
        let payload = bytes.get(17..).unwrap_or_default();
        let _ = parse::<PassageRecord>(payload);
        let _ = parse::<DocumentRecord>(payload);
    }
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
    for round in rounds(ROUNDS) {
        let random = &mut Random(round);
        let mut bytes = good.clone();
        random.mutate(&mut bytes, &[]);
        if let Some((_, read)) = decode_value(&key, &bytes, 6) {
            assert_eq!(read, embedding);
        }
    }
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
    for round in rounds(1_000) {
        let random = &mut Random(round);
        let text: String = (0..random.below(400))
            .map(|_| pieces[random.below(pieces.len())])
            .collect();
        for name in ["a.md", "a.txt"] {
            let all = passages(name, "t", &text);
            assert!(all.iter().all(|p| p.text.chars().count() <= PASSAGE_CHARS));
        }
    }
}
