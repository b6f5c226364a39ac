//! A byte-level BPE tokenizer of a few hundred tokens, in both formats.

use std::fs;
use std::path::Path;

use code_explainer_weights::Architecture;
use serde_json::{Map, Value, json};

use super::gguf::{GgufFile, Meta};

const SPECIAL: [&str; 3] = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"];
/// In order of rank; `Ġ` is how byte-level BPE writes a space.
const MERGES: [(&str, &str); 13] = [
    ("Ġ", "Ġ"),
    ("ĠĠ", "ĠĠ"),
    ("h", "e"),
    ("Ġ", "t"),
    ("Ġt", "he"),
    ("i", "n"),
    ("r", "e"),
    ("d", "e"),
    ("de", "f"),
    ("re", "t"),
    ("u", "r"),
    ("ur", "n"),
    ("ret", "urn"),
];
const CHATML: &str = "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] \
                      + '<|im_end|>' + '\n' }}{% endfor %}{% if add_generation_prompt %}\
                      {{ '<|im_start|>assistant\n' }}{% endif %}";
/// Qwen2's own pattern.
const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// Three special tokens, the 256 bytes, and the merges' results, in this order.
#[derive(Debug, Clone)]
pub(crate) struct TinyTokenizer {
    /// Tokens by id.
    pub(crate) tokens: Vec<String>,
    /// What the model speaks; `None` for a model without chat.
    pub(crate) chat_template: Option<String>,
}

impl TinyTokenizer {
    pub(crate) fn new() -> Self {
        let bytes = (0..=255).map(|byte| byte_char(byte).to_string());
        let merged = MERGES.iter().map(|(a, b)| format!("{a}{b}"));
        let tokens = SPECIAL
            .iter()
            .map(ToString::to_string)
            .chain(bytes)
            .chain(merged)
            .collect();
        Self {
            tokens,
            chat_template: Some(CHATML.to_owned()),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.tokens.len()
    }

    pub(crate) fn bos(&self) -> u32 {
        1
    }

    pub(crate) fn eos(&self) -> u32 {
        2
    }

    pub(crate) fn add_to_gguf(&self, file: &mut GgufFile, architecture: Architecture) {
        let pre = match architecture {
            Architecture::Llama => "smollm",
            Architecture::Qwen2 => "qwen2",
            Architecture::Gpt2 => "gpt-2",
        };
        let (control, normal) = (3, 1);
        let kinds = (0..self.len()).map(|id| if id < SPECIAL.len() { control } else { normal });
        let merges = MERGES.iter().map(|(a, b)| format!("{a} {b}")).collect();
        file.set("tokenizer.ggml.model", Meta::str("gpt2"));
        file.set("tokenizer.ggml.pre", Meta::str(pre));
        file.set("tokenizer.ggml.tokens", Meta::Strings(self.tokens.clone()));
        file.set("tokenizer.ggml.token_type", Meta::I32s(kinds.collect()));
        file.set("tokenizer.ggml.merges", Meta::Strings(merges));
        file.set("tokenizer.ggml.bos_token_id", Meta::U32(self.bos()));
        file.set("tokenizer.ggml.eos_token_id", Meta::U32(self.eos()));
        file.set("tokenizer.ggml.add_bos_token", Meta::Bool(false));
        if let Some(template) = &self.chat_template {
            file.set("tokenizer.chat_template", Meta::str(template));
        }
    }

    pub(crate) fn write_hugging_face(&self, directory: &Path, architecture: Architecture) {
        let write = |name: &str, value: Value| {
            fs::write(directory.join(name), value.to_string()).expect("write the tokenizer");
        };
        let byte_level = |use_regex: bool| json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": use_regex});
        let pre_tokenizers = match architecture {
            Architecture::Llama => {
                vec![
                    json!({"type": "Digits", "individual_digits": true}),
                    byte_level(true),
                ]
            }
            Architecture::Qwen2 => {
                let split = json!({"type": "Split", "pattern": {"Regex": QWEN2}, "behavior": "Isolated", "invert": false});
                vec![split, byte_level(false)]
            }
            Architecture::Gpt2 => vec![byte_level(true)],
        };
        let special = SPECIAL.iter().enumerate().map(|(id, content)| {
            json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true})
        });
        let vocabulary = self.tokens.iter().enumerate();
        let vocabulary: Map<_, _> = vocabulary.map(|(id, t)| (t.clone(), id.into())).collect();
        let normalizer = match architecture {
            Architecture::Qwen2 => json!({"type": "NFC"}),
            _ => Value::Null,
        };
        write(
            "tokenizer.json",
            json!({
                "version": "1.0",
                "truncation": null,
                "padding": null,
                "added_tokens": special.collect::<Vec<_>>(),
                "normalizer": normalizer,
                "pre_tokenizer": {"type": "Sequence", "pretokenizers": pre_tokenizers},
                "post_processor": null,
                "decoder": byte_level(true),
                "model": {
                    "type": "BPE",
                    "dropout": null,
                    "unk_token": null,
                    "continuing_subword_prefix": null,
                    "end_of_word_suffix": null,
                    "fuse_unk": false,
                    "byte_fallback": false,
                    "ignore_merges": false,
                    "vocab": vocabulary,
                    "merges": MERGES.map(|(a, b)| json!([a, b])),
                },
            }),
        );
        write(
            "tokenizer_config.json",
            json!({
                "bos_token": self.tokens[self.bos() as usize],
                "eos_token": self.tokens[self.eos() as usize],
                "chat_template": self.chat_template,
                "tokenizer_class": "PreTrainedTokenizerFast",
            }),
        );
    }
}

/// GPT-2's alphabet: printable Latin-1 bytes stand for themselves, the others for characters from U+0100 on.
fn byte_char(byte: u8) -> char {
    let printable = |b: u8| matches!(b, 0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF);
    if printable(byte) {
        return char::from(byte);
    }
    let before = (0..byte).filter(|&b| !printable(b)).count() as u32;
    char::from_u32(0x100 + before).unwrap_or(char::REPLACEMENT_CHARACTER)
}
