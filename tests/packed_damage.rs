//! Every way in which a packed model can be damaged, or made to lie, has its own sentence.

use std::fs;
use std::path::{Path, PathBuf};

use code_explainer_engine_native::open_packed;
use code_explainer_weights::Architecture;
use code_explainer_weights::packed::FILE;
use proptest::prelude::*;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::common::model_files::TinyModel;
use crate::common::packed::{PRELUDE, Parts, load_packed, packed};

/// A tiny model from a Hugging Face directory, packed in 8 bits.
fn tiny(architecture: Architecture) -> TempDir {
    let source = tempfile::tempdir().expect("a directory");
    TinyModel::new(architecture).write_hugging_face(source.path(), 1);
    packed(source.path(), 8)
}

#[track_caller]
fn refused(directory: &Path, says: &str) {
    let error = load_packed(directory)
        .err()
        .expect("it must not load")
        .to_string();
    assert!(error.contains(says), "'{says}' is not in: {error}");
    assert!(
        error.contains(&*directory.to_string_lossy()),
        "{error} names no file"
    );
}

/// Changes bytes of the packed file.
#[track_caller]
fn damaged(change: impl FnOnce(&mut Vec<u8>), says: &str) {
    let directory = tiny(Architecture::Llama);
    let path = directory.path().join(FILE);
    let mut bytes = fs::read(&path).expect("read");
    change(&mut bytes);
    fs::write(&path, bytes).expect("written");
    refused(directory.path(), says);
}

/// Changes the table, and makes all checksums right again.
#[track_caller]
fn lies(change: impl FnOnce(&mut Value), says: &str) {
    let directory = tiny(Architecture::Llama);
    let mut parts = Parts::read(directory.path());
    change(&mut parts.table);
    parts.write(directory.path());
    refused(directory.path(), says);
}

#[test]
fn other_files_and_versions_are_told() {
    damaged(
        |file| file[..4].copy_from_slice(b"GGUF"),
        "not a packed model: it begins with 'GGUFCKED'",
    );
    damaged(
        |file| file[8] = 9,
        "version 9 of the format, this server reads version 1",
    );
    damaged(
        |file| file[12] = 7,
        "packed in layout 7, this server's kernels read layout 1",
    );
    damaged(Vec::clear, "the file is empty");
    damaged(|file| file.truncate(5), "not a packed model");
    damaged(
        |file| file.truncate(PRELUDE - 1),
        "truncated: 64 bytes are described, 63 are there",
    );
    damaged(|file| file.push(0), "trailing bytes");
    damaged(|file| file[16..24].fill(0xff), "truncated");
    damaged(|file| file[16..24].fill(0), "trailing bytes");
}

#[test]
fn a_file_cut_in_any_section_is_truncated() {
    let directory = tiny(Architecture::Qwen2);
    let path = directory.path().join(FILE);
    let whole = fs::read(&path).expect("read");
    let parts = Parts::read(directory.path());
    let sections = parts.table["sections"]
        .as_array()
        .expect("sections")
        .clone();
    assert!(sections.len() > 10);
    for section in sections {
        let (start, length) = (section["offset"].as_u64(), section["length"].as_u64());
        let (start, length) = (
            start.expect("a number") as usize,
            length.expect("a number") as usize,
        );
        for cut in [
            start,
            start + length / 2,
            (start + length).saturating_sub(1),
        ] {
            fs::write(&path, &whole[..cut]).expect("written");
            refused(directory.path(), "truncated");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Of all files that belong to it, whichever bit it is.
    #[test]
    fn every_flipped_bit_is_found(file in any::<prop::sample::Index>(), at in any::<prop::sample::Index>(), bit in 0..8u8) {
        let directory = shared();
        let mut files: Vec<PathBuf> = fs::read_dir(directory).expect("read").map(|e| e.expect("an entry").path()).collect();
        files.sort();
        // Half of the flips in the weights.
        let weights = directory.join(FILE);
        let path = if bit % 2 == 0 { &weights } else { file.get(&files) };
        let good = fs::read(path).expect("read");
        let mut bytes = good.clone();
        bytes[at.index(good.len())] ^= 1 << bit;
        fs::write(path, bytes).expect("written");
        let found = open_packed(directory).is_err();
        fs::write(path, good).expect("written");
        prop_assert!(found, "bit {bit} of byte {} of {}", at.index(fs::metadata(path).expect("it is there").len() as usize), path.display());
    }
}

/// For the property alone, which puts it right again after each case.
fn shared() -> &'static Path {
    static DIRECTORY: std::sync::OnceLock<TempDir> = std::sync::OnceLock::new();
    DIRECTORY.get_or_init(|| tiny(Architecture::Gpt2)).path()
}

#[test]
fn the_property_starts_from_a_good_model() {
    assert!(load_packed(tiny(Architecture::Gpt2).path()).is_ok());
}

#[test]
fn sections_that_lie_wrong_are_told() {
    lies(
        |t| t["sections"][1]["offset"] = json!(1u64 << 40),
        "leaves the",
    );
    lies(
        |t| t["sections"][1]["length"] = json!(u64::MAX),
        "leaves the",
    );
    lies(
        |t| t["sections"][1]["offset"] = json!(u64::MAX),
        "leaves the",
    );
    lies(
        |t| {
            let offset = t["sections"][1]["offset"].as_u64().expect("a number");
            t["sections"][1]["offset"] = json!(offset + 4);
            t["sections"][1]["length"] = json!(4);
        },
        "does not begin at a multiple of 64",
    );
    lies(
        |t| t["sections"][1]["offset"] = json!(PRELUDE),
        "overlaps what ends at",
    );
    lies(
        |t| t["sections"][0]["offset"] = json!(0),
        "overlaps what ends at 64",
    );
    lies(
        |t| {
            let length = t["sections"][0]["length"].as_u64().expect("a number");
            t["sections"][0]["length"] = json!(length - 128);
        },
        "leaves a gap",
    );
    lies(
        |t| t["sections"][1]["name"] = t["sections"][0]["name"].clone(),
        "is there twice",
    );
    lies(
        |t| drop(t["sections"].as_array_mut().expect("sections").pop()),
        "leaves a gap",
    );
}

#[test]
fn a_table_that_is_none_is_told() {
    lies(|t| t["bits"] = json!(5), "weights of 5 bits");
    lies(|t| t["digest"] = json!("deadbeef"), "digest");
    lies(
        |t| t["config"]["heads"] = json!(0),
        "number of attention heads",
    );
    lies(|t| t["config"]["layers"] = json!(-1), "the table is broken");
    lies(|t| t["extra"] = json!(1), "unknown field");
    lies(
        |t| t["files"][0]["name"] = json!("../../etc/passwd"),
        "is no file that belongs",
    );
}

#[test]
fn a_shape_that_the_weights_do_not_have_is_told() {
    lies(
        |t| t["config"]["layers"] = json!(3),
        "section 'blk.2.attn_norm.weight' is missing",
    );
    lies(
        |t| t["config"]["layers"] = json!(1),
        "the model's configuration has only",
    );
    lies(
        |t| t["config"]["hidden"] = json!(1 << 27),
        "the model's configuration makes it",
    );
    lies(
        |t| t["config"]["vocabulary"] = json!(1 << 28),
        "the model's configuration makes it",
    );
    lies(
        |t| t["config"]["intermediate"] = json!(300),
        "the model's configuration makes it",
    );
    lies(
        |t| t["config"]["tied_head"] = json!(false),
        "section 'output.weight' is missing",
    );
    lies(|t| t["config"]["architecture"] = json!("gpt2"), "heads");
    lies(
        |t| t["bits"] = json!(4),
        "the model's configuration makes it",
    );
    lies(
        |t| t["sections"][0]["name"] = json!("something"),
        "is missing",
    );
}

#[test]
fn files_beside_the_weights_must_be_the_ones_it_was_packed_with() {
    let directory = tiny(Architecture::Llama);
    let tokenizer = directory.path().join("tokenizer.json");
    let good = fs::read(&tokenizer).expect("read");
    fs::remove_file(&tokenizer).expect("removed");
    refused(directory.path(), "tokenizer.json is missing");
    fs::write(&tokenizer, good.to_ascii_uppercase()).expect("written");
    refused(
        directory.path(),
        "tokenizer.json beside it is damaged or another model's",
    );
    fs::write(&tokenizer, good).expect("written");
    fs::write(directory.path().join("chat_template.jinja"), "{{ 1 }}").expect("written");
    refused(directory.path(), "packed without it");
}

#[test]
fn weights_of_another_model_are_found_out() {
    let (one, other) = (tiny(Architecture::Llama), tiny(Architecture::Gpt2));
    fs::copy(other.path().join(FILE), one.path().join(FILE)).expect("copied");
    refused(one.path(), "not the file that the model was packed with");
}
