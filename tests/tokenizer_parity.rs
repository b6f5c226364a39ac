//! Token ids and decoded text equal those of Hugging Face's tokenizers
//! (`tests/reference/tokenizer.py` writes the data).

use std::collections::BTreeMap;
use std::sync::OnceLock;

use code_explainer_text::{Family, Text};
use code_explainer_weights::Gguf;
use serde::Deserialize;

use crate::common::model_files::gguf::{GgufFile, Meta};
use crate::common::smollm::text;
use crate::common::token_ids::{hash, unpack};

#[derive(Deserialize)]
struct Reference {
    /// Text and packed ids.
    strings: Vec<(String, String)>,
    /// Texts with special tokens in them, and their ids as ordinary text.
    literal: Vec<(String, String)>,
    /// Unit, how often, number of ids, their hash.
    long: Vec<(String, usize, usize, String)>,
    /// Packed random ids and their text.
    decoded: Vec<(String, String)>,
    family_tokens: Vec<String>,
    family_merges: Vec<String>,
    family_strings: Vec<String>,
    /// For each family, the hashes of the ids of `family_strings`.
    families: BTreeMap<String, Vec<String>>,
}

fn reference() -> &'static Reference {
    static DATA: OnceLock<Reference> = OnceLock::new();
    DATA.get_or_init(|| {
        serde_json::from_str(include_str!("data/tokenizer.json")).expect("well-formed data")
    })
}

#[track_caller]
fn check_ids(cases: &[(String, String)], allow_special: bool) {
    let tokenizer = text().tokenizer();
    for (string, packed) in cases {
        let ids = tokenizer
            .encode(string, allow_special)
            .expect("byte-level BPE takes all");
        assert_eq!(ids, unpack(packed), "{string:?}");
    }
}

#[test]
fn awkward_strings_have_the_reference_ids() {
    assert!(reference().strings.len() >= 2000);
    check_ids(&reference().strings, true);
}

#[test]
fn special_tokens_can_be_ordinary_text() {
    assert!(reference().literal.len() >= 50);
    check_ids(&reference().literal, false);
    let tokenizer = text().tokenizer();
    for (string, _) in &reference().strings {
        let ids = tokenizer
            .encode(string, false)
            .expect("byte-level BPE takes all");
        assert!(
            ids.iter().all(|&id| !tokenizer.is_special(id)),
            "{string:?}"
        );
    }
}

#[test]
fn long_strings_have_the_reference_ids() {
    for (unit, count, length, expected) in &reference().long {
        let ids = text()
            .tokenizer()
            .encode(&unit.repeat(*count), true)
            .expect("takes all");
        assert_eq!(
            (ids.len(), &hash(&ids)),
            (*length, expected),
            "{count} times {unit:?}"
        );
    }
}

#[test]
fn encoded_text_comes_back() {
    // SmolLM2 has no token for these bytes; the reference drops them too.
    let missing = [0x04, 0x06, 0x13, 0x14, 0x16, 0x1D, 0xF1, 0xF2];
    let tokenizer = text().tokenizer();
    let mut checked = 0;
    for (string, _) in &reference().strings {
        if string.bytes().any(|byte| missing.contains(&byte)) {
            continue;
        }
        let ids = tokenizer
            .encode(string, false)
            .expect("byte-level BPE takes all");
        assert_eq!(&tokenizer.decode(&ids), string);
        checked += 1;
    }
    assert!(checked >= 1900, "only {checked} strings were checked");
}

#[test]
fn random_ids_decode_as_in_the_reference() {
    for (packed, expected) in &reference().decoded {
        let ids = unpack(packed);
        assert_eq!(&text().tokenizer().decode(&ids), expected, "{ids:?}");
    }
}

#[test]
fn every_family_cuts_words_as_its_reference() {
    assert_eq!(reference().families.len(), Family::ALL.len());
    for (family, hashes) in &reference().families {
        let mut file = GgufFile::default();
        file.set("tokenizer.ggml.model", Meta::str("gpt2"));
        file.set("tokenizer.ggml.pre", Meta::str(family));
        file.set(
            "tokenizer.ggml.tokens",
            Meta::Strings(reference().family_tokens.clone()),
        );
        file.set(
            "tokenizer.ggml.merges",
            Meta::Strings(reference().family_merges.clone()),
        );
        let metadata = Gguf::parse(&file.to_bytes()).expect("a good file").metadata;
        let text = Text::from_gguf(&metadata, &[]).expect("a good tokenizer");
        for (string, expected) in reference().family_strings.iter().zip(hashes) {
            let ids = text
                .tokenizer()
                .encode(string, true)
                .expect("byte-level BPE takes all");
            assert_eq!(&hash(&ids), expected, "{family}: {string:?} became {ids:?}");
        }
    }
}
