//! Tokenizers come from every kind of model file, and broken files are told by key and name.

use std::fs;
use std::path::Path;

use code_explainer_text::{Text, TextError};
use code_explainer_weights::{Architecture, Gguf};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::common::model_files::gguf::{GgufFile, Meta};
use crate::common::model_files::tokenizer::TinyTokenizer;

fn gguf(edit: impl FnOnce(&mut GgufFile)) -> Result<Text, TextError> {
    let mut file = GgufFile::default();
    TinyTokenizer::new().add_to_gguf(&mut file, Architecture::Llama);
    edit(&mut file);
    Text::from_gguf(
        &Gguf::parse(&file.to_bytes())
            .expect("a good container")
            .metadata,
        &[],
    )
}

#[track_caller]
fn check_gguf(edit: impl FnOnce(&mut GgufFile), parts: &[&str]) {
    check_message(&gguf(edit).expect_err("it must be refused"), parts);
}

#[track_caller]
fn check_message(error: &TextError, parts: &[&str]) {
    let message = error.to_string();
    for part in parts {
        assert!(message.contains(part), "{part:?} is not in {message:?}");
    }
}

fn directory() -> TempDir {
    let directory = tempfile::tempdir().expect("a temporary directory");
    TinyTokenizer::new().write_hugging_face(directory.path(), Architecture::Llama);
    directory
}

fn read(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).expect("the file is there")).expect("it is JSON")
}

#[track_caller]
fn check_directory(file: &str, edit: impl FnOnce(&mut Value), parts: &[&str]) {
    let directory = directory();
    let path = directory.path().join(file);
    let mut value = read(&path);
    edit(&mut value);
    fs::write(&path, value.to_string()).expect("may write");
    let error = Text::from_directory(directory.path(), &[]).expect_err("it must be refused");
    check_message(&error, &[&[file], parts].concat());
}

#[test]
fn all_sources_of_a_tokenizer_agree() {
    let from_gguf = gguf(|_| ()).expect("a good file");
    let directory = directory();
    let from_json = Text::from_directory(directory.path(), &[2, 5]).expect("a good directory");
    let code = "def f(x):\n    return the  x1<|im_end|>½ é";
    let prompt = from_gguf
        .encode_prompt(Some("s"), code)
        .expect("a good prompt");
    assert_eq!(
        from_json
            .encode_prompt(Some("s"), code)
            .expect("a good prompt"),
        prompt
    );
    assert_eq!(from_gguf.eos(), [2, 0]);
    assert_eq!(from_json.eos(), [2, 5, 0]);
    assert_eq!(from_json.vocabulary_size(), from_gguf.vocabulary_size());

    // The template's own file comes before the one in the configuration.
    let template = "{% for m in messages %}<{{ m.content }}>{{ eos_token }}{% endfor %}";
    fs::write(directory.path().join("chat_template.jinja"), template).expect("may write");
    let text = Text::from_directory(directory.path(), &[]).expect("a good directory");
    assert_eq!(
        text.encode_prompt(None, "u").expect("a good prompt").text,
        "<u><|im_end|>"
    );
}

#[test]
fn an_empty_template_in_a_configuration_is_none() {
    let directory = directory();
    let path = directory.path().join("tokenizer_config.json");
    let mut config = read(&path);
    config["chat_template"] = json!("");
    fs::write(&path, config.to_string()).expect("may write");
    let text = Text::from_directory(directory.path(), &[]).expect("a good directory");
    let prompt = text.encode_prompt(Some("s"), "u").expect("a good prompt");
    assert_eq!(prompt.text, "s\n\nu\n");
}

/// A signed integer, as converters write an id that is none.
fn i32(id: i32) -> Meta {
    const INT32: u32 = 5;
    Meta::Raw(INT32, id.to_le_bytes().to_vec())
}

#[test]
fn tokens_that_nobody_needs_may_be_none() {
    let expected = gguf(|_| ()).expect("a good file").encode_prompt(None, "x");
    for key in ["padding", "unknown"] {
        let key = format!("tokenizer.ggml.{key}_token_id");
        for id in [
            i32(-1),
            Meta::U32(u32::MAX),
            Meta::U32(100_000),
            i32(-7),
            Meta::str("none"),
        ] {
            let text = gguf(|file| file.set(&key, id)).expect("it is not needed");
            assert_eq!(
                text.encode_prompt(None, "x").ok(),
                expected.as_ref().ok().cloned()
            );
        }
    }
    // One that ends answers may be none, but not another than there is.
    let text = gguf(|file| file.set("tokenizer.ggml.eot_token_id", i32(-1)));
    assert_eq!(text.expect("there is none").eos(), [2, 0]);
    check_gguf(
        |file| file.set("tokenizer.ggml.eot_token_id", Meta::U32(100_000)),
        &["eot_token_id", "100000"],
    );
}

#[test]
fn the_names_that_llama_cpp_treats_alike_are_one() {
    let words = "it's 1234 x_y\n\n  don't\tgo\u{301}";
    let encoded = |pre: &str| {
        let text = gguf(|file| file.set("tokenizer.ggml.pre", Meta::str(pre)));
        let text = text.unwrap_or_else(|error| panic!("{pre}: {error}"));
        text.tokenizer().encode(words, false).expect("takes all")
    };
    for (name, aliases) in [
        (
            "smollm",
            &["starcoder", "refact", "command-r", "codeshell"][..],
        ),
        ("gpt-2", &["mpt", "olmo", "jais", "phi-2"]),
        ("llama-bpe", &["llama3", "llama-v3", "falcon3", "pixtral"]),
        ("qwen2", &["deepseek-r1-qwen", "megrez"]),
    ] {
        let expected = encoded(name);
        for alias in aliases {
            assert_eq!(encoded(alias), expected, "{alias}");
        }
    }
    check_gguf(
        |file| file.set("tokenizer.ggml.pre", Meta::str("tekken")),
        &["tekken", "smollm"],
    );
}

/// Tokens that a tokenizer lists without calling them special.
fn with_added(added: &[&str]) -> Text {
    let directory = directory();
    let path = directory.path().join("tokenizer.json");
    let mut parts = read(&path);
    let next = parts["model"]["vocab"]
        .as_object()
        .expect("a vocabulary")
        .len();
    let listed = parts["added_tokens"].as_array_mut().expect("a list");
    for (id, content) in (next..).zip(added) {
        listed.push(
            json!({"id": id, "content": content, "single_word": false, "lstrip": false,
                           "rstrip": false, "normalized": false, "special": false}),
        );
    }
    fs::write(&path, parts.to_string()).expect("may write");
    Text::from_directory(directory.path(), &[]).expect("a good directory")
}

#[test]
fn what_a_client_writes_is_no_marker_whatever_its_tokenizer_calls_it() {
    let text = with_added(&["<|fim_middle|>", "<fim_suffix>", "    x"]);
    for marker in ["<|fim_middle|>", "<fim_suffix>"] {
        let tokens = |code: &str| {
            text.encode_prompt(None, code)
                .expect("a good prompt")
                .tokens
        };
        let id = text.tokenizer().token_id(marker).expect("it is there");
        assert!(!tokens(&format!("a{marker}b")).contains(&id), "{marker}");
        // The template's own are.
        let own = text.tokenizer().encode(marker, true).expect("takes all");
        assert_eq!(own, [id]);
    }
    // What is no marker is a word as before.
    let word = text.tokenizer().token_id("    x").expect("it is there");
    let prompt = text.encode_prompt(None, "    x").expect("a good prompt");
    assert!(prompt.tokens.contains(&word));
}

#[test]
fn an_answer_ends_where_another_file_would_begin() {
    let text = with_added(&["<|file_sep|>", "<|repo_name|>", "<|other|>"]);
    let id = |token| text.tokenizer().token_id(token).expect("it is there");
    assert!(text.eos().contains(&id("<|file_sep|>")) && text.eos().contains(&id("<|repo_name|>")));
    assert!(!text.eos().contains(&id("<|other|>")));
    assert_eq!(text.tokenizer().decode(&[id("<|file_sep|>")]), "");
}

#[test]
fn named_templates_have_a_default() {
    let directory = directory();
    let path = directory.path().join("tokenizer_config.json");
    let mut config = read(&path);
    let named = |name: &str| json!([{"name": name, "template": "{{ messages[-1].content }}!"}]);
    config["chat_template"] = named("default");
    config["bos_token"] = json!({"content": "<|im_start|>", "special": true});
    fs::write(&path, config.to_string()).expect("may write");
    let text = Text::from_directory(directory.path(), &[]).expect("a good directory");
    assert_eq!(
        text.encode_prompt(None, "u").expect("a good prompt").text,
        "u!"
    );
    check_directory(
        "tokenizer_config.json",
        |config| config["chat_template"] = named("tool_use"),
        &["default"],
    );
}

#[test]
fn vocabulary_and_merges_make_a_tokenizer() {
    let directory = directory();
    let at = |name: &str| directory.path().join(name);
    let model = read(&at("tokenizer.json"))["model"].take();
    let reference = Text::from_directory(directory.path(), &[]).expect("a good directory");
    fs::remove_file(at("tokenizer.json")).expect("may remove");
    let mut config = read(&at("tokenizer_config.json"));
    let error = Text::from_directory(directory.path(), &[]).expect_err("no vocabulary");
    check_message(&error, &["tokenizer.json", "merges.txt"]);
    config["tokenizer_class"] = json!("GPT2Tokenizer");
    fs::write(at("tokenizer_config.json"), config.to_string()).expect("may write");
    fs::write(at("vocab.json"), model["vocab"].to_string()).expect("may write");
    let merges: Vec<String> = model["merges"]
        .as_array()
        .expect("merges")
        .iter()
        .map(|m| {
            format!(
                "{} {}",
                m[0].as_str().unwrap_or(""),
                m[1].as_str().unwrap_or("")
            )
        })
        .collect();
    fs::write(
        at("merges.txt"),
        format!("#version: 0.2\n{}\n", merges.join("\n")),
    )
    .expect("may write");
    let next = reference.vocabulary_size();
    fs::write(at("added_tokens.json"), format!("{{\"<new>\": {next}}}")).expect("may write");

    let text = Text::from_directory(directory.path(), &[]).expect("a good directory");
    let code = "def the():  return\n";
    let ids = |text: &Text| text.tokenizer().encode(code, true).expect("takes all");
    assert_eq!(ids(&text), ids(&reference));
    let prompt = text.encode_prompt(None, "u").expect("a good prompt");
    assert_eq!(
        prompt.tokens,
        reference.encode_prompt(None, "u").expect("a prompt").tokens
    );
    let added = text.tokenizer().encode("a<new>", true).expect("takes all");
    assert_eq!(added[1] as usize, next);

    fs::write(at("added_tokens.json"), "{\"<new>\": 9999}").expect("may write");
    let error = Text::from_directory(directory.path(), &[]).expect_err("a gap");
    check_message(&error, &["added_tokens.json", "<new>", "9999"]);
    fs::write(at("merges.txt"), "a b c\n").expect("may write");
    let error = Text::from_directory(directory.path(), &[]).expect_err("three parts");
    check_message(&error, &["merges.txt", "line 1"]);
    fs::remove_file(at("merges.txt")).expect("may remove");
    let error = Text::from_directory(directory.path(), &[]).expect_err("no merges");
    assert!(matches!(error, TextError::NoTokenizer { .. }));
    check_message(&error, &["tokenizer.json", "merges.txt"]);
}

#[test]
fn sentencepiece_like_tokenizers_decode_as_their_decoder() {
    let tokens = [
        "<unk>", "<s>", "</s>", "▁", "▁a", "a", "▁▁", "b", "<0x0A>", "é",
    ];
    let mut vocabulary: serde_json::Map<String, Value> = tokens
        .iter()
        .enumerate()
        .map(|(id, token)| ((*token).to_owned(), id.into()))
        .collect();
    let bytes = [0xE2u8, 0x82, 0xAC];
    for (index, byte) in bytes.iter().enumerate() {
        vocabulary.insert(format!("<0x{byte:02X}>"), (tokens.len() + index).into());
    }
    let llama = json!({"type": "Sequence", "decoders": [
        {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
        {"type": "ByteFallback"}, {"type": "Fuse"},
        {"type": "Strip", "content": " ", "start": 1, "stop": 0},
    ]});
    let metaspace =
        json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true});
    for decoder in [llama, metaspace] {
        let special = |id: u32, content: &str| {
            json!({"id": id, "content": content, "single_word": false, "lstrip": false,
                   "rstrip": false, "normalized": false, "special": true})
        };
        let file = json!({
            "version": "1.0", "truncation": {"direction": "Right", "max_length": 2,
            "strategy": "LongestFirst", "stride": 0}, "padding": null,
            "added_tokens": [special(1, "<s>"), special(2, "</s>")],
            "normalizer": {"type": "Sequence", "normalizers": [
                {"type": "Prepend", "prepend": "▁"},
                {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]},
            "pre_tokenizer": null, "decoder": decoder,
            "post_processor": {"type": "TemplateProcessing",
                "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}},
                           {"Sequence": {"id": "A", "type_id": 0}}],
                "pair": [{"Sequence": {"id": "A", "type_id": 0}},
                         {"Sequence": {"id": "B", "type_id": 1}}],
                "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}},
            "model": {"type": "BPE", "dropout": null, "unk_token": "<unk>",
                "continuing_subword_prefix": null, "end_of_word_suffix": null, "fuse_unk": true,
                "byte_fallback": true, "ignore_merges": false, "vocab": vocabulary,
                "merges": ["▁ a", "▁ ▁"]},
        });
        let directory = tempfile::tempdir().expect("a temporary directory");
        fs::write(directory.path().join("tokenizer.json"), file.to_string()).expect("may write");
        let text = Text::from_directory(directory.path(), &[]).expect("a good directory");
        let reference: tokenizers::Tokenizer = file.to_string().parse().expect("a good tokenizer");

        // A plain prompt begins with the begin-of-sequence token; the file's truncation is not
        // for prompts.
        let prompt = text.encode_prompt(None, "a a</s>").expect("a good prompt");
        assert_eq!(prompt.tokens[..3], [1, 4, 4]);
        assert!(!prompt.tokens.contains(&2));

        let euro = [10, 11, 12];
        let answers: [&[u32]; 9] = [
            &[4, 4],
            &[3, 5],
            &[6, 7],
            &[3, 3, 4],
            &[1, 4, 2],
            &euro,
            &[3, 10, 11, 12, 3],
            &[9, 4],
            &[],
        ];
        for ids in answers {
            let expected = reference.decode(ids, true).expect("it decodes all");
            // Metaspace leaves byte tokens as they are written, like its reference.
            assert_eq!(text.tokenizer().decode(ids), expected, "{ids:?}");
            let mut detokenizer = text.detokenizer(&["never"]);
            let mut streamed: String = ids
                .iter()
                .map(|&id| detokenizer.push(id, true).text)
                .collect();
            streamed += &detokenizer.finish();
            assert_eq!(streamed, expected, "{ids:?}");
        }
    }
}

#[test]
fn broken_gguf_keys_are_named() {
    use Meta::{Bool, F32, I32s, Strings, U32};
    for key in ["model", "pre", "tokens", "merges"] {
        let key = format!("tokenizer.ggml.{key}");
        check_gguf(|file| file.unset(&key), &[&key]);
        check_gguf(|file| file.set(&key, F32(1.0)), &[&key, "is not"]);
    }
    let set = |key: &'static str, value: Meta| {
        move |file: &mut GgufFile| file.set(&format!("tokenizer.ggml.{key}"), value)
    };
    check_gguf(
        set("model", Meta::str("llama")),
        &["tokenizer.ggml.model", "llama", "gpt2"],
    );
    check_gguf(
        set("pre", Meta::str("viking")),
        &["ggml.pre", "viking", "smollm, gpt-2"],
    );
    check_gguf(
        set("tokens", Strings(vec![])),
        &["ggml.tokens", "no tokens"],
    );
    check_gguf(set("tokens", I32s(vec![1])), &["ggml.tokens", "strings"]);
    check_gguf(
        set("token_type", I32s(vec![1, 1])),
        &["ggml.token_type", "2 entries"],
    );
    check_gguf(
        set("token_type", Strings(vec![])),
        &["ggml.token_type", "integers"],
    );
    check_gguf(
        set("merges", Strings(vec!["ab".into()])),
        &["ggml.merges", "entry 0"],
    );
    check_gguf(
        set("merges", Strings(vec!["a b c".into()])),
        &["ggml.merges", "entry 0"],
    );
    check_gguf(
        set("merges", Strings(vec!["h zzz".into()])),
        &["ggml.merges", "\"zzz\""],
    );
    let long = "<|im_start|> <|endoftext|>";
    check_gguf(
        set("merges", Strings(vec![long.into()])),
        &["ggml.merges", "no token"],
    );
    check_gguf(
        set("eos_token_id", U32(70_000)),
        &["ggml.eos_token_id", "70000"],
    );
    check_gguf(set("bos_token_id", Bool(true)), &["ggml.bos_token_id"]);
    check_gguf(
        set("add_bos_token", U32(1)),
        &["ggml.add_bos_token", "boolean"],
    );
    check_gguf(
        |file| file.set("tokenizer.chat_template", U32(1)),
        &["tokenizer.chat_template", "string"],
    );
}

#[test]
fn broken_files_are_named() {
    let empty = tempfile::tempdir().expect("a temporary directory");
    let error = Text::from_directory(empty.path(), &[]).expect_err("nothing there");
    assert!(matches!(error, TextError::NoTokenizer { .. }));

    let broken = directory();
    fs::write(broken.path().join("tokenizer.json"), "{\"model\":").expect("may write");
    let error = Text::from_directory(broken.path(), &[]).expect_err("half a file");
    check_message(&error, &["tokenizer.json", "EOF"]);

    let file = "tokenizer.json";
    check_directory(
        file,
        |json| json["model"] = json!({"type": "BPE"}),
        &["vocab"],
    );
    check_directory(
        file,
        |json| json["model"]["vocab"]["a"] = json!(-1),
        &["\"a\""],
    );
    check_directory(
        file,
        |json| json["model"]["vocab"]["new"] = json!(4_000_000_000u32),
        &["id"],
    );
    check_directory(
        file,
        |json| json["model"]["merges"] = json!([["h", "zzz"]]),
        &["zzz"],
    );
    check_directory(
        file,
        |json| json["model"]["merges"] = json!([7]),
        &["merges"],
    );
    check_directory(file, |json| json["decoder"] = json!(null), &["decoder"]);
    check_directory(
        file,
        |json| json["decoder"] = json!({"type": "BPEDecoder", "suffix": "_"}),
        &["decoder"],
    );
    check_directory(
        file,
        |json| json["pre_tokenizer"] = json!({"type": "Magic"}),
        &[],
    );
    check_directory(file, |json| *json = json!([]), &[]);
    check_directory(
        "tokenizer_config.json",
        |json| json["chat_template"] = json!(3),
        &["default"],
    );
}
