//! Every way in which a Hugging Face directory can be wrong has its own sentence, which names the file and the place.

use std::fs;
use std::path::Path;

use code_explainer_text::Text;
use code_explainer_weights::{Architecture, Checkpoint, SafetensorsTable};
use serde_json::{Value, json};

use crate::common::model_files::TinyModel;
use crate::common::model_files::safetensors::{Stored, to_bytes, with_header};

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

/// Breaks a good tiny Hugging Face directory.
#[track_caller]
fn check_directory(
    architecture: Architecture,
    shards: usize,
    change: impl FnOnce(&Path),
    expected: &str,
) {
    let directory = tempfile::tempdir().expect("a directory");
    TinyModel::new(architecture).write_hugging_face(directory.path(), shards);
    change(directory.path());
    assert_eq!(message(directory.path(), directory.path()), expected);
}

/// Changes one key of `config.json`; `null` removes it.
#[track_caller]
fn check_config(architecture: Architecture, key: &str, value: Value, expected: &str) {
    let change = |directory: &Path| {
        let mut config = TinyModel::new(architecture).config_json();
        config[key] = value;
        fs::write(directory.join("config.json"), config.to_string()).expect("write");
    };
    check_directory(architecture, 1, change, &format!("config.json: {expected}"));
}

/// Replaces the weights of a good tiny Hugging Face directory.
#[track_caller]
fn check_safetensors(bytes: &[u8], expected: &str) {
    let change = |directory: &Path| {
        fs::write(directory.join("model.safetensors"), bytes).expect("write");
    };
    check_directory(Architecture::Llama, 1, change, expected);
}

#[test]
fn what_git_lfs_leaves_in_the_place_of_a_file_is_named() {
    const POINTER: &[u8] =
        b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 269060552\n";
    const TOLD: &str =
        "is a Git LFS pointer and not the file itself: run `git lfs pull` where it was checked out";
    check_safetensors(POINTER, &format!("model.safetensors: {TOLD}"));
    let directory = tempfile::tempdir().expect("a directory");
    TinyModel::new(Architecture::Llama).write_hugging_face(directory.path(), 2);
    let path = directory.path().join("tokenizer.json");
    fs::write(&path, POINTER).expect("write");
    let refused = Text::from_directory(directory.path(), &[]).expect_err("a pointer");
    assert_eq!(refused.to_string(), format!("{}: {TOLD}", path.display()));
    for name in ["model.safetensors.index.json", "config.json"] {
        let change = |directory: &Path| fs::write(directory.join(name), POINTER).expect("write");
        let directory = tempfile::tempdir().expect("a directory");
        TinyModel::new(Architecture::Llama).write_hugging_face(directory.path(), 2);
        change(directory.path());
        let told = message(directory.path(), directory.path());
        assert!(told.starts_with(name) && told.contains(TOLD), "{told}");
    }
}

#[test]
fn config_json_that_describes_no_model() {
    use Architecture::{Gpt2, Llama, Qwen2};
    check_config(
        Llama,
        "hidden_size",
        Value::Null,
        "'hidden_size' is missing",
    );
    check_config(Llama, "model_type", Value::Null, "'model_type' is missing");
    check_config(
        Llama,
        "model_type",
        json!("bert"),
        "architecture 'bert' is not supported; supported are llama, mistral, qwen2, gpt2",
    );
    check_config(
        Llama,
        "hidden_size",
        json!("64"),
        "'hidden_size' must be a size, not \"64\"",
    );
    check_config(
        Llama,
        "hidden_size",
        json!(-64),
        "'hidden_size' must be a size, not -64",
    );
    check_config(
        Llama,
        "hidden_size",
        json!(1u64 << 60),
        "'hidden_size' must be a size, not 1152921504606846976",
    );
    check_config(
        Llama,
        "num_attention_heads",
        json!(0),
        "'number of attention heads' is 0; it must be from 1 to 65536",
    );
    check_config(
        Gpt2,
        "n_head",
        json!(3),
        "'n_head' is 3; it must be a divisor of n_embd, 64",
    );
    check_config(
        Gpt2,
        "n_head",
        json!(0),
        "'number of attention heads' is 0; it must be from 1 to 65536",
    );
    check_config(
        Gpt2,
        "scale_attn_by_inverse_layer_idx",
        json!(true),
        "'scale_attn_by_inverse_layer_idx' is true, which is not supported: attention is scaled alike in every layer",
    );
    check_config(
        Qwen2,
        "hidden_act",
        json!("relu"),
        "'hidden_act' is \"relu\", which is not supported: supported are silu, gelu, gelu_new, gelu_fast and gelu_pytorch_tanh",
    );
    check_config(
        Qwen2,
        "rope_scaling",
        json!({"type": "yarn", "factor": 4.0}),
        "'rope_scaling.type' is \"yarn\", which is not supported: supported are default, linear and llama3",
    );
    check_config(
        Llama,
        "rope_scaling",
        json!({"rope_type": "llama3", "factor": 8.0}),
        "'rope_scaling.low_freq_factor' is missing",
    );
    check_config(
        Llama,
        "quantization_config",
        json!({"bits": 4}),
        "'quantization_config' is {\"bits\":4}, which is not supported: quantized safetensors cannot be read; use the original model or a GGUF file",
    );
    check_config(
        Llama,
        "eos_token_id",
        json!([2, "x"]),
        "'eos_token_id' must be a token id or a list of them, not [2,\"x\"]",
    );
    for (text, expected) in [
        ("", "config.json: the file is empty; was its download cut?"),
        (
            "{",
            "config.json: not valid JSON: EOF while parsing an object at line 1 column 1",
        ),
        (
            "[1]",
            "config.json: not valid JSON: invalid type: sequence, expected a map at line 1 column 0",
        ),
    ] {
        let change =
            |directory: &Path| fs::write(directory.join("config.json"), text).expect("write");
        check_directory(Llama, 1, change, expected);
    }
    let change = |directory: &Path| {
        fs::write(directory.join("generation_config.json"), "no").expect("write");
    };
    check_directory(
        Llama,
        1,
        change,
        "generation_config.json: not valid JSON: expected ident at line 1 column 2",
    );
}

#[test]
fn configurations_that_their_tensors_contradict() {
    let change = |directory: &Path| {
        let mut config = TinyModel::new(Architecture::Llama).config_json();
        config["intermediate_size"] = json!(128);
        fs::write(directory.join("config.json"), config.to_string()).expect("write");
    };
    check_directory(
        Architecture::Llama,
        1,
        change,
        "DIR: tensor 'blk.0.ffn_up.weight' has shape [96, 64], but the model's configuration makes it [128, 64]",
    );
    let change = |directory: &Path| {
        let mut config = TinyModel::new(Architecture::Llama).config_json();
        config["tie_word_embeddings"] = json!(false);
        fs::write(directory.join("config.json"), config.to_string()).expect("write");
    };
    check_directory(
        Architecture::Llama,
        1,
        change,
        "DIR: tensor 'output.weight' is missing; llama needs it in shape [272, 64]",
    );
}

#[test]
fn broken_safetensors_files() {
    let tensor = |dtype: &str, shape: Value, offsets: [u64; 2]| {
        json!({"x": {"dtype": dtype, "shape": shape, "data_offsets": offsets}}).to_string()
    };
    let check = |bytes: &[u8], expected: &str| {
        check_safetensors(bytes, &format!("model.safetensors: {expected}"));
    };
    check(b"", "the file is empty; was its download cut?");
    check(
        b"1234567",
        "truncated: a safetensors file begins with an 8-byte length, but there are 7 bytes",
    );
    let huge = [&(1u64 << 60).to_le_bytes()[..], b"{}"].concat();
    check(
        &huge,
        "the header's length says 1152921504606846976 bytes, but only 2 follow (and 100000000 are allowed)",
    );
    check(
        &with_header("[]", &[]),
        "the header is broken: invalid type: sequence, expected a JSON object of tensors at line 1 column 0",
    );
    check(
        &with_header(&tensor("F31", json!([1]), [0, 4]), &[0; 4]),
        "the header is broken: tensor 'x': unknown variant `F31`, expected one of `BOOL`, `F4`, `F6_E2M3`, `F6_E3M2`, `U8`, `I8`, `F8_E5M2`, `F8_E4M3`, `F8_E8M0`, `F8_E4M3FNUZ`, `F8_E5M2FNUZ`, `I16`, `U16`, `F16`, `BF16`, `I32`, `U32`, `F32`, `C64`, `F64`, `I64`, `U64` at line 1 column 40",
    );
    check(
        &with_header(&tensor("F32", json!([3]), [0, 8]), &[0; 8]),
        "tensor 'x' of type F32 and shape [3] has 8 bytes",
    );
    check(
        &with_header(&tensor("F32", json!([1u64 << 62, 8]), [0, 0]), &[]),
        "tensor 'x' of type F32 and shape [4611686018427387904, 8] has 0 bytes",
    );
    check(
        &with_header(&tensor("F32", json!([2]), [0, 8]), &[0; 4]),
        "truncated: the table describes 8 bytes of data, but 4 follow the header",
    );
    check(
        &with_header(&tensor("F32", json!([1]), [0, 4]), &[0; 8]),
        "trailing bytes: the table describes 4 bytes of data, but 8 follow the header",
    );
    check(
        &with_header(&tensor("F32", json!([1]), [4, 8]), &[0; 8]),
        "the header is broken: tensor 'x' begins at byte 4 of the data, but the one before ends at 0",
    );
    check(
        &with_header(&tensor("U8", json!([u64::MAX]), [0, u64::MAX]), &[0; 8]),
        "tensor 'x' of type U8 and shape [18446744073709551615] has 18446744073709551615 bytes",
    );
    let entry = r#"{"dtype":"F32","shape":[1],"data_offsets":[0,4]}"#;
    check(
        &with_header(&format!("{{\"x\":{entry},\"x\":{entry}}}"), &[0; 4]),
        "the header is broken: tensor 'x' is in the table twice at line 1 column 107",
    );
    // A sum of header and data that overflows must not panic either.
    let wrapped = r#"{"x":{"dtype":"U8","shape":[18446744073709551615],"data_offsets":[0,18446744073709551615]}}"#;
    assert!(SafetensorsTable::parse(&with_header(wrapped, &[])).is_err());
}

#[test]
fn tensors_that_a_directory_must_not_have() {
    let mut tensors = TinyModel::new(Architecture::Gpt2).safetensors();
    let extra = Stored {
        name: "transformer.h.0.crossattention.q_attn.weight".into(),
        dtype: "F32".into(),
        shape: vec![1],
        data: vec![0; 4],
    };
    tensors.push(extra);
    let write = |tensors: &[Stored]| {
        let bytes = to_bytes(tensors);
        move |directory: &Path| {
            fs::write(directory.join("model.safetensors"), &bytes).expect("write");
        }
    };
    check_directory(
        Architecture::Gpt2,
        1,
        write(&tensors),
        "model.safetensors: tensor 'transformer.h.0.crossattention.q_attn.weight' is not part of a gpt2 model of 2 layers; without it the model would compute something else than it was trained for",
    );
    tensors.pop();
    let mut again = tensors[0].clone();
    again.name = again.name.replace("transformer.", "");
    tensors.push(again);
    check_directory(
        Architecture::Gpt2,
        1,
        write(&tensors),
        "model.safetensors: tensor 'token_embd.weight' is there twice (as 'transformer.wte.weight' and as 'wte.weight')",
    );
    tensors.pop();
    tensors[0].dtype = "I32".into();
    check_directory(
        Architecture::Gpt2,
        1,
        write(&tensors),
        "model.safetensors: tensor 'transformer.wte.weight' has type I32; supported are F32, F16, BF16",
    );
}

#[test]
fn missing_and_lying_shards() {
    let second = "model-00002-of-00003.safetensors";
    let index = "model.safetensors.index.json";
    let edit = |directory: &Path, change: &dyn Fn(&mut Value)| {
        let text = fs::read_to_string(directory.join(index)).expect("read");
        let mut json: Value = serde_json::from_str(&text).expect("JSON");
        change(&mut json["weight_map"]);
        fs::write(directory.join(index), json.to_string()).expect("write");
    };
    check_directory(
        Architecture::Llama,
        3,
        |directory| fs::remove_file(directory.join(second)).expect("remove"),
        "model-00002-of-00003.safetensors: the shard is missing; model.safetensors.index.json names it for tensor 'model.layers.0.mlp.down_proj.weight'",
    );
    check_directory(
        Architecture::Llama,
        3,
        |directory| edit(directory, &|map| map["ghost"] = json!(second)),
        "model-00002-of-00003.safetensors: has no tensor 'ghost', which model.safetensors.index.json says it holds",
    );
    for outside in ["../secret.safetensors", "/etc/passwd", "", ".."] {
        check_directory(
            Architecture::Llama,
            3,
            |directory| edit(directory, &|map| map["ghost"] = json!(outside)),
            &format!(
                "model.safetensors.index.json: tensor 'ghost' lies in '{outside}', which is not the name of a file beside the index"
            ),
        );
    }
    check_directory(
        Architecture::Llama,
        3,
        |directory| fs::write(directory.join(index), "{}").expect("write"),
        "model.safetensors.index.json: not a valid index of tensors: missing field `weight_map` at line 1 column 2",
    );
    check_directory(
        Architecture::Llama,
        3,
        |directory| edit(directory, &|map| *map = json!({})),
        "model.safetensors.index.json: the weight_map is empty",
    );
}

#[test]
fn a_directory_without_safetensors() {
    let remove = |directory: &Path| {
        fs::remove_file(directory.join("model.safetensors")).expect("remove");
    };
    check_directory(
        Architecture::Gpt2,
        1,
        remove,
        "DIR: the directory has no *.safetensors file; a Hugging Face model directory has config.json and model.safetensors",
    );
    check_directory(
        Architecture::Gpt2,
        1,
        |directory| {
            remove(directory);
            fs::write(directory.join("pytorch_model.bin"), "x").expect("write");
        },
        "DIR: the directory has no *.safetensors file; it has pytorch_model.bin: convert it with transformers' save_pretrained",
    );
}
