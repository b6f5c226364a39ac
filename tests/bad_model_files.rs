//! Every way in which a GGUF file, or the path to it, can be wrong has its own sentence, which names the file and the
//! place.

use std::fs;
use std::path::Path;

use code_explainer_weights::{Architecture, Checkpoint, DType, Gguf};
use tempfile::TempDir;

use crate::common::model_files::TinyModel;
use crate::common::model_files::gguf::{GgufFile, Meta};
use crate::common::model_files::safetensors::to_bytes;

fn directory() -> TempDir {
    tempfile::tempdir().expect("a directory")
}

/// The message of opening `path`, with `root` cut from the paths in it.
#[track_caller]
fn message(path: &Path, root: &Path) -> String {
    let error = Checkpoint::open(path)
        .map(|_| ())
        .expect_err("it must not open");
    let message = error.to_string();
    assert!(
        message.contains(&*path.to_string_lossy()),
        "{message} does not name {path:?}"
    );
    message
        .replace(&format!("{}/", root.display()), "")
        .replace(&*root.to_string_lossy(), "DIR")
}

#[track_caller]
fn check_bytes(bytes: &[u8], expected: &str) {
    let directory = directory();
    let path = directory.path().join("x.gguf");
    fs::write(&path, bytes).expect("write");
    assert_eq!(
        message(&path, directory.path()),
        format!("x.gguf: {expected}")
    );
}

/// Breaks a good tiny GGUF file.
#[track_caller]
fn check_gguf(change: impl FnOnce(&mut GgufFile), expected: &str) {
    let mut file = TinyModel::new(Architecture::Llama).gguf();
    change(&mut file);
    check_bytes(&file.to_bytes(), expected);
}

#[test]
fn paths_that_lead_to_no_model() {
    let root = directory();
    let root = root.path();
    let at = |name: &str| root.join(name);
    assert_eq!(
        message(&at("missing.gguf"), root),
        "missing.gguf: no such file or directory; give a GGUF file or a Hugging Face directory"
    );
    fs::write(at("empty.gguf"), b"").expect("write");
    assert_eq!(
        message(&at("empty.gguf"), root),
        "empty.gguf: the file is empty; was its download cut?"
    );
    assert_eq!(
        message(root, root),
        "DIR: the directory has no config.json; it has empty.gguf: give the path of that GGUF file"
    );
    fs::create_dir(at("nothing")).expect("create");
    assert_eq!(
        message(&at("nothing"), root),
        "nothing: the directory has no config.json; a Hugging Face model directory has config.json and model.safetensors"
    );
    let device = Path::new("/dev/null");
    assert_eq!(
        message(device, root),
        "/dev/null: neither a regular file nor a directory"
    );
}

#[test]
fn files_of_other_kinds() {
    check_bytes(
        b"<!DOCTYPE html>",
        "not a GGUF file: it begins with '<!DO' instead of 'GGUF'",
    );
    check_bytes(
        b"GG",
        "not a GGUF file: it begins with 'GG' instead of 'GGUF'",
    );
    check_bytes(
        b"version https://git-lfs.github.com/spec/v1",
        "not a GGUF file: it begins with 'vers' instead of 'GGUF'; it looks like a Git LFS pointer: run `git lfs pull` where it was checked out",
    );
    check_bytes(
        &to_bytes(&TinyModel::new(Architecture::Llama).safetensors()[..1]),
        "not a GGUF file: it begins with 'x\\x00\\x00\\x00' instead of 'GGUF'; it looks like a safetensors file, give the directory it lies in",
    );
    check_gguf(
        |file| file.version = 1,
        "GGUF version 1 cannot be read; versions 2 and 3 can",
    );
    check_gguf(
        |file| file.version = 3u32.swap_bytes(),
        "a big-endian GGUF file (version 3); only little-endian ones can be read",
    );
}

#[test]
fn counts_and_lengths_that_lie() {
    const HUGE: u64 = 1 << 60;
    let length = |n: u64| n.to_le_bytes().to_vec();
    let array = |kind: u32, count: u64| {
        let mut bytes = kind.to_le_bytes().to_vec();
        bytes.extend(length(count));
        Meta::Raw(9, bytes)
    };
    let check = |change: &dyn Fn(&mut GgufFile), place: &str| {
        let mut file = TinyModel::new(Architecture::Llama).gguf();
        change(&mut file);
        let error = Gguf::parse(&file.to_bytes())
            .expect_err("it lies")
            .to_string();
        assert!(
            error.starts_with(place),
            "{error}\nshould begin with\n{place}"
        );
    };
    check(
        &|file| file.tensor_count = Some(HUGE),
        "the header declares 1152921504606846976 tensors, but the ",
    );
    check(
        &|file| file.key_count = Some(HUGE),
        "the header declares 1152921504606846976 metadata keys, but the ",
    );
    check(
        &|file| file.tensor_count = Some(u64::MAX),
        "the header declares 18446744073709551615",
    );
    for (kind, what) in [
        (0, "numbers"),
        (7, "booleans"),
        (8, "strings"),
        (9, "arrays"),
        (12, "numbers"),
    ] {
        check(
            &|file| file.metadata.insert(0, (b"a".to_vec(), array(kind, HUGE))),
            &format!("metadata 'a' declares 1152921504606846976 {what}, but the "),
        );
    }
    check(
        &|file| {
            file.metadata
                .insert(0, (b"a".to_vec(), Meta::Raw(8, length(HUGE))))
        },
        "truncated: metadata 'a' at byte 45 needs 1152921504606846976 bytes, but only ",
    );
    check(
        &|file| file.line("output_norm.weight").sizes = vec![HUGE, 1 << 4],
        "tensor 'output_norm.weight' has the impossible shape [1152921504606846976, 16]",
    );
    // One tensor more than there are: the padding before the data is read as a name.
    let more = |file: &mut GgufFile| file.tensor_count = Some(21);
    check(&more, "tensor 20 of the table has an empty name");
}

#[test]
fn broken_metadata() {
    check_gguf(
        |file| {
            file.metadata
                .push((b"general.name".to_vec(), Meta::str("again")))
        },
        "metadata key 'general.name' is there twice",
    );
    check_gguf(
        |file| file.metadata.insert(0, (Vec::new(), Meta::U32(1))),
        "metadata key 0 has an empty name",
    );
    check_gguf(
        |file| file.metadata.insert(0, (vec![0xFF, 0xFE], Meta::U32(1))),
        "metadata key 0 at byte 32 is not UTF-8",
    );
    let text = [&2u64.to_le_bytes()[..], &[b'a', 0x80]].concat();
    check_gguf(
        |file| file.metadata.insert(0, (b"k".to_vec(), Meta::Raw(8, text))),
        "metadata 'k' at byte 46 is not UTF-8",
    );
    check_gguf(
        |file| file.set("k", Meta::Raw(13, vec![0; 8])),
        "metadata 'k' has value type 13, which GGUF does not define (it has 0 to 12)",
    );
    check_gguf(
        |file| file.set("k", Meta::Raw(7, vec![2])),
        "metadata 'k' is a boolean of value 2; it must be 0 or 1",
    );
    let mut nested = Vec::new();
    for _ in 0..5 {
        nested.extend(9u32.to_le_bytes());
        nested.extend(1u64.to_le_bytes());
    }
    check_gguf(
        |file| file.set("k", Meta::Raw(9, nested)),
        "metadata 'k' nests arrays more than 4 deep",
    );
    for alignment in [0, 3, 4, 1 << 20] {
        check_gguf(
            |file| file.set("general.alignment", Meta::U32(alignment)),
            &format!("general.alignment is {alignment}; it must be a power of two from 8 to 65536"),
        );
    }
    check_gguf(
        |file| file.set("general.alignment", Meta::str("32")),
        "general.alignment is of type string; it must be a power of two from 8 to 65536",
    );
    check_gguf(
        |file| file.set("split.count", Meta::U32(3)),
        "one of 3 parts of a split model; join them with `llama-gguf-split --merge`",
    );
}

#[test]
fn a_broken_table_of_tensors() {
    let name = "blk.1.ffn_up.weight";
    check_gguf(
        |file| file.line(name).sizes = vec![],
        "tensor 'blk.1.ffn_up.weight' has 0 dimensions; it must have 1 to 4",
    );
    check_gguf(
        |file| file.line(name).sizes = vec![2, 2, 2, 2, 384],
        "tensor 'blk.1.ffn_up.weight' has 5 dimensions; it must have 1 to 4",
    );
    check_gguf(
        |file| file.line(name).sizes = vec![64, 0],
        "tensor 'blk.1.ffn_up.weight' has the impossible shape [64, 0]",
    );
    check_gguf(
        |file| file.line(name).kind = 10,
        "tensor 'blk.1.ffn_up.weight' has type 10 (Q2_K); supported are F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q4_K, Q5_K, Q6_K",
    );
    check_gguf(
        |file| file.line(name).kind = 4711,
        "tensor 'blk.1.ffn_up.weight' has type 4711 (unknown); supported are F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q4_K, Q5_K, Q6_K",
    );
    check_gguf(
        |file| file.line(name).kind = 12,
        "tensor 'blk.1.ffn_up.weight' has rows of 64 elements, which are not whole Q4_K blocks of 256",
    );
    check_gguf(
        |file| file.line(name).offset = Some(7),
        "tensor 'blk.1.ffn_up.weight' begins at offset 7, which is not a multiple of the alignment 32",
    );
    check_gguf(
        |file| file.line(name).offset = Some(0),
        "tensors 'token_embd.weight' and 'blk.1.ffn_up.weight' overlap",
    );
    for offset in [1 << 20, u64::MAX - 31] {
        check_gguf(
            |file| file.line(name).offset = Some(offset),
            &format!(
                "truncated: tensor 'blk.1.ffn_up.weight' has 24576 bytes at offset {offset} of the data, which is only 316672 bytes long"
            ),
        );
    }
    check_gguf(
        |file| file.line("blk.0.ffn_up.weight").name = name.into(),
        "tensor 'blk.1.ffn_up.weight' is in the table twice",
    );
    check_gguf(
        |file| file.line(name).name = vec![],
        "tensor 17 of the table has an empty name",
    );
    check_gguf(
        |file| {
            file.tensors.pop();
        },
        "tensor 'output_norm.weight' is missing; llama needs it in shape [64]",
    );
    check_gguf(
        |file| file.line(name).sizes = vec![96, 64],
        "tensor 'blk.1.ffn_up.weight' has shape [64, 96], but the model's configuration makes it [96, 64]",
    );
    check_gguf(
        |file| file.tensor("blk.1.attn_q_norm.weight", &[16], DType::F32, vec![0; 64]),
        "tensor 'blk.1.attn_q_norm.weight' is not part of a llama model of 2 layers; without it the model would compute something else than it was trained for",
    );
}

#[test]
fn metadata_that_describes_no_model() {
    check_gguf(
        |file| file.unset("general.architecture"),
        "'general.architecture' is missing",
    );
    check_gguf(
        |file| file.set("general.architecture", Meta::str("mamba")),
        "architecture 'mamba' is not supported; supported are llama, qwen2, gpt2",
    );
    check_gguf(
        |file| file.set("general.architecture", Meta::U32(7)),
        "'general.architecture' must be a string, not uint32 7",
    );
    check_gguf(
        |file| file.unset("llama.block_count"),
        "'llama.block_count' is missing",
    );
    check_gguf(
        |file| file.set("llama.block_count", Meta::str("two")),
        "'llama.block_count' must be a size, not string",
    );
    check_gguf(
        |file| file.set("llama.block_count", Meta::U32(0)),
        "'number of layers' is 0; it must be from 1 to 65536",
    );
    check_gguf(
        |file| file.set("llama.block_count", Meta::U32(65_536)),
        "tensor 'blk.2.attn_norm.weight' is missing; llama needs it in shape [64]",
    );
    check_gguf(
        |file| file.set("llama.block_count", Meta::U32(1)),
        "tensor 'blk.1.attn_k.weight' is not part of a llama model of 1 layers; without it the model would compute something else than it was trained for",
    );
    check_gguf(
        |file| file.set("llama.attention.head_count", Meta::U32(0)),
        "'number of attention heads' is 0; it must be from 1 to 65536",
    );
    check_gguf(
        |file| file.set("llama.attention.head_count_kv", Meta::U32(3)),
        "'number of key-value heads' is 3; it must be a divisor of the 4 attention heads",
    );
    check_gguf(
        |file| {
            file.set(
                "llama.attention.layer_norm_rms_epsilon",
                Meta::F32(f32::NAN),
            )
        },
        "'norm epsilon' is NaN; it must be finite and not negative",
    );
    check_gguf(
        |file| file.set("llama.rope.freq_base", Meta::F32(-1.0)),
        "'rope theta' is -1; it must be finite and positive",
    );
    check_gguf(
        |file| file.set("llama.rope.dimension_count", Meta::U32(8)),
        "'llama.rope.dimension_count' is 8, which is not supported: it must be the head dimension, 16",
    );
    check_gguf(
        |file| file.set("llama.rope.scaling.type", Meta::str("yarn")),
        "'llama.rope.scaling.type' is 'yarn', which is not supported: supported are none and linear, and Llama 3's through rope_freqs.weight",
    );
    check_gguf(
        |file| file.set("llama.expert_count", Meta::U32(8)),
        "'llama.expert_count' is 8, which is not supported: mixtures of experts cannot be run",
    );
    check_gguf(
        |file| {
            file.set(
                "tokenizer.ggml.tokens",
                Meta::Strings(vec!["a".into(); 300]),
            )
        },
        "'tokenizer.ggml.tokens' is 300 tokens long; it must be at most as long as the embedding, 272",
    );
    check_gguf(
        |file| file.set("tokenizer.ggml.eos_token_id", Meta::str("</s>")),
        "'tokenizer.ggml.eos_token_id' must be a token id, not string",
    );
}

#[test]
fn a_gguf_file_cut_anywhere_is_an_error() {
    let bytes = TinyModel::new(Architecture::Llama).gguf().to_bytes();
    let data = bytes.len() - 316_672;
    // Every byte of header, metadata and table; of the data every 997th, and the last.
    for cut in (0..data)
        .chain((data..bytes.len()).step_by(997))
        .chain([bytes.len() - 1])
    {
        let error = Gguf::parse(&bytes[..cut])
            .expect_err("it is cut")
            .to_string();
        let known = [
            "truncated: ",
            "not a GGUF file",
            "the header declares ",
            "metadata '",
            "tensor '",
        ];
        assert!(
            known.iter().any(|start| error.starts_with(start)),
            "cut at {cut}: {error}"
        );
    }
    assert!(Gguf::parse(&bytes).is_ok());
}

#[test]
fn a_tensor_that_a_model_does_not_have() {
    let directory = directory();
    let path = directory.path().join("x.gguf");
    TinyModel::new(Architecture::Llama).write_gguf(&path);
    let checkpoint = Checkpoint::open(&path).expect("a good model");
    let error = checkpoint
        .tensor("blk.9.attn_q.weight")
        .expect_err("no such layer");
    assert!(
        error
            .to_string()
            .ends_with("x.gguf: has no tensor 'blk.9.attn_q.weight'"),
        "{error}"
    );
}
