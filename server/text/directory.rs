//! A tokenizer and a chat template from the files of a Hugging Face directory.

use std::path::{Path, PathBuf};

use code_explainer_weights::{model_files, model_json};
use serde_json::Value;
use tokenizers::AddedToken;
use tokenizers::models::bpe::{Merges, Vocab};

use super::bpe::{ByteLevelBpe, check_merges};
use super::error::TextError;
use super::family::Family;
use super::tokenizer::{SpecialTokens, Tokenizer};

const TOKENIZER: &str = "tokenizer.json";
const CONFIG: &str = "tokenizer_config.json";
const SPECIAL: &str = "special_tokens_map.json";
const TEMPLATE: &str = "chat_template.jinja";
const VOCABULARY: &str = "vocab.json";
const MERGES: &str = "merges.txt";
const ADDED: &str = "added_tokens.json";

/// The directory, with its smaller files read.
pub(super) struct TokenizerFiles {
    directory: PathBuf,
    /// `tokenizer_config.json` and `special_tokens_map.json`; null where there is none.
    config: Value,
    special: Value,
}

impl TokenizerFiles {
    pub(super) fn open(directory: &Path) -> Result<Self, TextError> {
        let read = |name| Ok(json(directory, name)?.unwrap_or_default());
        Ok(Self {
            directory: directory.to_owned(),
            config: read(CONFIG)?,
            special: read(SPECIAL)?,
        })
    }

    pub(super) fn tokenizer(&self) -> Result<Tokenizer, TextError> {
        let path = self.directory.join(TOKENIZER);
        let (path, inner) = match json(&self.directory, TOKENIZER)? {
            Some(parts) => (
                path.clone(),
                from_parts(parts).map_err(|problem| file(&path, problem))?,
            ),
            None => self.vocabulary_tokenizer()?,
        };
        let problem = |error: tokenizers::Error| file(&path, error.to_string());
        let prefix = prefix(&inner).map_err(problem)?;
        let id = |name| inner.token_to_id(self.special_token(name)?);
        let special = SpecialTokens {
            bos: id("bos_token"),
            eos: id("eos_token"),
            unknown: id("unk_token"),
            padding: id("pad_token"),
            end_of_turn: Vec::new(),
        };
        Tokenizer::new(inner, prefix, special).map_err(|problem| file(&path, problem))
    }

    /// The template's text and where it was found.
    pub(super) fn chat_template(&self) -> Result<Option<(String, String)>, TextError> {
        let path = self.directory.join(TEMPLATE);
        if let Some(bytes) = read(&self.directory, TEMPLATE)? {
            let source = String::from_utf8(bytes);
            let source = source.map_err(|_| file(&path, "is not UTF-8".to_owned()))?;
            return Ok(Some((source, path.display().to_string())));
        }
        let path = self.directory.join(CONFIG);
        let source = match &self.config["chat_template"] {
            Value::Null => return Ok(None),
            Value::String(source) => Some(source.as_str()),
            Value::Array(named) => named
                .iter()
                .find(|entry| entry["name"] == "default")
                .and_then(|entry| entry["template"].as_str()),
            _ => None,
        };
        let Some(source) = source else {
            let problem = "chat_template is neither a string nor a list with one named \"default\"";
            return Err(file(&path, problem.to_owned()));
        };
        Ok(Some((source.to_owned(), path.display().to_string())))
    }

    /// The text of a special token that the files name by its role.
    fn special_token(&self, role: &str) -> Option<&str> {
        let text = |value: &'_ Value| value.as_str().is_some() || value["content"].is_string();
        let value = [&self.config[role], &self.special[role]]
            .into_iter()
            .find(|value| text(value))?;
        value.as_str().or_else(|| value["content"].as_str())
    }

    /// Byte-level BPE from the files that GPT-2's and Qwen2's first tokenizers had.
    fn vocabulary_tokenizer(&self) -> Result<(PathBuf, tokenizers::Tokenizer), TextError> {
        let path = self.directory.join(VOCABULARY);
        let merges_path = self.directory.join(MERGES);
        let vocabulary = json(&self.directory, VOCABULARY)?;
        let (Some(vocabulary), Some(merges)) = (vocabulary, read(&self.directory, MERGES)?) else {
            return Err(TextError::NoTokenizer {
                directory: self.directory.clone(),
            });
        };
        let vocabulary = vocabulary_of(&vocabulary).map_err(|problem| file(&path, problem))?;
        let merges = merges_of(&merges).map_err(|problem| file(&merges_path, problem))?;
        let added = self.added_tokens(&vocabulary)?;
        let bpe = ByteLevelBpe {
            vocabulary,
            merges,
            family: self.family()?,
            added,
        };
        let inner = bpe.build().map_err(|problem| file(&merges_path, problem))?;
        Ok((path, inner))
    }

    fn family(&self) -> Result<Family, TextError> {
        let unsupported = |field: &str, found: &str, supported: &str| TextError::Unsupported {
            place: format!(
                "{field} in {} without a {TOKENIZER}",
                self.directory.join(CONFIG).display()
            ),
            found: found.to_owned(),
            supported: supported.to_owned(),
        };
        if self.config["add_prefix_space"] == true {
            return Err(unsupported("add_prefix_space", "true", "false"));
        }
        match self.config["tokenizer_class"].as_str() {
            None | Some("GPT2Tokenizer" | "GPT2TokenizerFast") => Ok(Family::Gpt2),
            Some("Qwen2Tokenizer" | "Qwen2TokenizerFast") => Ok(Family::Qwen2),
            Some(class) => Err(unsupported(
                "tokenizer_class",
                class,
                "GPT2Tokenizer, Qwen2Tokenizer",
            )),
        }
    }

    /// Tokens that are matched as a whole: those of `added_tokens.json`, whose ids follow the
    /// vocabulary's, and the special ones.
    fn added_tokens(&self, vocabulary: &Vocab) -> Result<Vec<AddedToken>, TextError> {
        let path = self.directory.join(ADDED);
        let roles = ["bos_token", "eos_token", "unk_token", "pad_token"];
        let more = self.special["additional_special_tokens"]
            .as_array()
            .into_iter()
            .flatten();
        let special: Vec<&str> = roles
            .into_iter()
            .filter_map(|role| self.special_token(role))
            .chain(more.filter_map(|token| token.as_str().or_else(|| token["content"].as_str())))
            .collect();

        let listed =
            json(&self.directory, ADDED)?.unwrap_or_else(|| Value::Object(Default::default()));
        let listed = vocabulary_of(&listed).map_err(|problem| file(&path, problem))?;
        let mut listed: Vec<(String, u32)> = listed.into_iter().collect();
        listed.sort_by_key(|(_, id)| *id);
        let mut next = vocabulary.len();
        for (token, id) in &listed {
            let known = vocabulary.get(token);
            if known.map_or(*id as usize != next, |known| known != id) {
                let problem =
                    format!("{token:?} has id {id}, which does not follow the vocabulary");
                return Err(file(&path, problem));
            }
            next += usize::from(known.is_none());
        }
        let is_special = |token: &str| special.contains(&token);
        let added = listed
            .iter()
            .map(|(token, _)| AddedToken::from(token, is_special(token)));
        let named = special.iter().map(|&token| AddedToken::from(token, true));
        Ok(added
            .chain(named)
            .map(|token| token.normalized(false))
            .collect())
    }
}

/// A tokenizer from a parsed `tokenizer.json`, without the truncation and padding it may ask for.
fn from_parts(parts: Value) -> Result<tokenizers::Tokenizer, String> {
    let model = &parts["model"];
    if model["type"] == "BPE" || model["merges"].is_array() {
        let prefix = model["continuing_subword_prefix"]
            .as_str()
            .unwrap_or_default();
        if !prefix.is_empty() {
            return Err("model.continuing_subword_prefix is not supported".to_owned());
        }
        let vocabulary =
            vocabulary_of(&model["vocab"]).map_err(|error| format!("model.vocab {error}"))?;
        let merges = model["merges"].as_array().map_or(&[][..], Vec::as_slice);
        let merges = merges.iter().map(merge_of).collect::<Result<Merges, _>>()?;
        check_merges(&vocabulary, &merges)?;
    }
    let mut tokenizer: tokenizers::Tokenizer =
        serde_json::from_value(parts).map_err(|error| error.to_string())?;
    tokenizer.with_padding(None);
    tokenizer
        .with_truncation(None)
        .map_err(|error| error.to_string())?;
    Ok(tokenizer)
}

/// What the tokenizer puts before a text: its begin-of-sequence token or nothing.
fn prefix(tokenizer: &tokenizers::Tokenizer) -> tokenizers::Result<Vec<u32>> {
    let whole = tokenizer.encode_fast("a", true)?;
    let text = tokenizer.encode_fast("a", false)?;
    let (whole, text) = (whole.get_ids(), text.get_ids());
    let before = (0..whole.len()).find(|&at| !text.is_empty() && whole[at..].starts_with(text));
    Ok(whole[..before.unwrap_or(0)].to_vec())
}

fn vocabulary_of(value: &Value) -> Result<Vocab, String> {
    let entries = value
        .as_object()
        .ok_or("is not an object of tokens and ids")?;
    entries
        .iter()
        .map(|(token, id)| {
            let id = id.as_u64().and_then(|id| u32::try_from(id).ok());
            let id = id.ok_or_else(|| format!("token {token:?} has no id of 32 bits"))?;
            Ok((token.clone(), id))
        })
        .collect()
}

/// A merge as `tokenizer.json` has it: two strings, or formerly one with a space between.
fn merge_of(value: &Value) -> Result<(String, String), String> {
    let pair = match value {
        Value::String(merge) => merge.split_once(' '),
        Value::Array(pair) => match pair.as_slice() {
            [Value::String(left), Value::String(right)] => Some((left.as_str(), right.as_str())),
            _ => None,
        },
        _ => None,
    };
    let (left, right) = pair.ok_or_else(|| format!("model.merges: {value} is not two tokens"))?;
    Ok((left.to_owned(), right.to_owned()))
}

fn merges_of(bytes: &[u8]) -> Result<Merges, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "is not UTF-8".to_owned())?;
    let lines = text
        .lines()
        .enumerate()
        .filter(|(_, line)| !line.starts_with("#version") && !line.trim().is_empty());
    lines
        .map(|(index, line)| match line.split_once(' ') {
            Some((left, right)) if !right.contains(' ') => Ok((left.to_owned(), right.to_owned())),
            _ => Err(format!("line {}, {line:?}, is not two tokens", index + 1)),
        })
        .collect()
}

fn json(directory: &Path, name: &str) -> Result<Option<Value>, TextError> {
    let Some(bytes) = read(directory, name)? else {
        return Ok(None);
    };
    model_json::parse(&bytes)
        .map(Some)
        .map_err(|problem| file(&directory.join(name), problem))
}

/// The file's bytes; `None` if there is none.
fn read(directory: &Path, name: &str) -> Result<Option<Vec<u8>>, TextError> {
    let path = directory.join(name);
    let bytes = model_files::read(directory, name).map_err(|source| TextError::Read {
        path: path.clone(),
        source,
    })?;
    match bytes {
        Some(bytes) if model_json::is_lfs_pointer(&bytes) => {
            Err(file(&path, model_json::POINTER_PROBLEM.to_owned()))
        }
        bytes => Ok(bytes),
    }
}

fn file(path: &Path, problem: String) -> TextError {
    TextError::File {
        path: path.to_owned(),
        problem,
    }
}
