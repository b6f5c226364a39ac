//! A tokenizer from the metadata of a GGUF file.
//!
//! Keys: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md#tokenizer>.

use tokenizers::AddedToken;
use tokenizers::models::bpe::Vocab;

use code_explainer_weights::{Metadata, StringArray};

use super::bpe::ByteLevelBpe;
use super::error::TextError;
use super::family::Family;
use super::tokenizer::{SpecialTokens, Tokenizer};

const MODEL: &str = "tokenizer.ggml.model";
const PRE: &str = "tokenizer.ggml.pre";
const TOKENS: &str = "tokenizer.ggml.tokens";
const MERGES: &str = "tokenizer.ggml.merges";
const TOKEN_TYPE: &str = "tokenizer.ggml.token_type";
const ADD_BOS: &str = "tokenizer.ggml.add_bos_token";
const BOS: &str = "tokenizer.ggml.bos_token_id";
const EOS: &str = "tokenizer.ggml.eos_token_id";
const EOT: &str = "tokenizer.ggml.eot_token_id";
const EOM: &str = "tokenizer.ggml.eom_token_id";
const UNKNOWN: &str = "tokenizer.ggml.unknown_token_id";
const PADDING: &str = "tokenizer.ggml.padding_token_id";
/// The key of the chat template.
pub(super) const CHAT_TEMPLATE: &str = "tokenizer.chat_template";

/// `tokenizer.ggml.token_type` of a token that steers the model and is not text.
const CONTROL: i64 = 3;
/// `tokenizer.ggml.token_type` of a token that is text and always kept whole.
const USER_DEFINED: i64 = 4;

/// Builds the tokenizer that the file describes.
///
/// `tokenizer.ggml.add_eos_token` is not read: it is for texts to train on, and a prompt is to be
/// continued.
pub(super) fn tokenizer(metadata: &Metadata) -> Result<Tokenizer, TextError> {
    let model = string(metadata, MODEL)?.ok_or(TextError::MissingKey { key: MODEL })?;
    if model != "gpt2" {
        return Err(unsupported(
            MODEL,
            model,
            "gpt2 (byte-level BPE)".to_owned(),
        ));
    }
    let pre = string(metadata, PRE)?.ok_or(TextError::MissingKey { key: PRE })?;
    let family = Family::from_name(pre).ok_or_else(|| unsupported(PRE, pre, Family::names()))?;
    let tokens = strings(metadata, TOKENS)?;
    if tokens.is_empty() {
        return Err(wrong(TOKENS, "has no tokens".to_owned()));
    }

    let special = SpecialTokens {
        bos: token_id(metadata, BOS, tokens)?,
        eos: token_id(metadata, EOS, tokens)?,
        unknown: unneeded_id(metadata, UNKNOWN, tokens),
        padding: unneeded_id(metadata, PADDING, tokens),
        end_of_turn: [
            token_id(metadata, EOT, tokens)?,
            token_id(metadata, EOM, tokens)?,
        ]
        .into_iter()
        .flatten()
        .collect(),
    };
    let added = added_tokens(metadata, tokens, &special)?;
    let merges = strings(metadata, MERGES)?
        .iter()
        .enumerate()
        .map(|(index, merge)| match merge.split_once(' ') {
            Some((left, right)) if !right.contains(' ') => Ok((left.to_owned(), right.to_owned())),
            _ => Err(wrong(
                MERGES,
                format!("entry {index}, {merge:?}, is not two tokens"),
            )),
        })
        .collect::<Result<_, _>>()?;
    let vocabulary: Vocab = tokens.iter().map(str::to_owned).zip(0..).collect();
    let inner = ByteLevelBpe {
        vocabulary,
        merges,
        family,
        added,
    }
    .build()
    .map_err(|problem| wrong(MERGES, problem))?;

    let add_bos = boolean(metadata, ADD_BOS)?.unwrap_or(family.adds_bos());
    let prefix = special.bos.filter(|_| add_bos).into_iter().collect();
    Tokenizer::new(inner, prefix, special).map_err(|problem| wrong(TOKENS, problem))
}

/// The chat template, if the file has one.
pub(super) fn chat_template(metadata: &Metadata) -> Result<Option<&str>, TextError> {
    string(metadata, CHAT_TEMPLATE)
}

fn added_tokens(
    metadata: &Metadata,
    tokens: &StringArray,
    special: &SpecialTokens,
) -> Result<Vec<AddedToken>, TextError> {
    let types = match metadata.get(TOKEN_TYPE) {
        None => &[],
        Some(_) => metadata
            .get_integers(TOKEN_TYPE)
            .ok_or_else(|| wrong(TOKEN_TYPE, "is not an array of integers".to_owned()))?,
    };
    if !types.is_empty() && types.len() != tokens.len() {
        return Err(wrong(
            TOKEN_TYPE,
            format!("has {} entries for {} tokens", types.len(), tokens.len()),
        ));
    }
    // Some converters mark the end-of-turn token as text; it must steer all the same.
    let ends: Vec<u32> = special
        .eos
        .iter()
        .chain(&special.bos)
        .chain(&special.end_of_turn)
        .copied()
        .collect();
    Ok(tokens
        .iter()
        .zip(0u32..)
        .filter_map(|(token, id)| {
            let kind = types.get(id as usize).copied();
            let control = kind == Some(CONTROL) || ends.contains(&id);
            (control || kind == Some(USER_DEFINED))
                .then(|| AddedToken::from(token, control).normalized(false))
        })
        .collect())
}

/// The id of a token that answers need; `None` where the file says that there is none, as converters do by -1.
fn token_id(
    metadata: &Metadata,
    key: &'static str,
    tokens: &StringArray,
) -> Result<Option<u32>, TextError> {
    if metadata.get(key).is_none() {
        return Ok(None);
    }
    let id = metadata
        .get_i64(key)
        .ok_or_else(|| wrong(key, "is not an integer of 32 bits".to_owned()))?;
    if id == -1 || id == i64::from(u32::MAX) {
        return Ok(None);
    }
    match u32::try_from(id) {
        Ok(found) if (found as usize) < tokens.len() => Ok(Some(found)),
        _ => {
            let problem = format!("{id} is no token: there are {}", tokens.len());
            Err(wrong(key, problem))
        }
    }
}

/// The id of a token that nothing but a template could ask for: where it is wrong, there is none.
fn unneeded_id(metadata: &Metadata, key: &'static str, tokens: &StringArray) -> Option<u32> {
    token_id(metadata, key, tokens).unwrap_or_else(|error| {
        tracing::warn!(%error, "a token that is not needed is left out");
        None
    })
}

fn strings<'a>(metadata: &'a Metadata, key: &'static str) -> Result<&'a StringArray, TextError> {
    if metadata.get(key).is_none() {
        return Err(TextError::MissingKey { key });
    }
    metadata
        .get_strings(key)
        .ok_or_else(|| wrong(key, "is not an array of strings".to_owned()))
}

fn string<'a>(metadata: &'a Metadata, key: &'static str) -> Result<Option<&'a str>, TextError> {
    match metadata.get(key) {
        None => Ok(None),
        Some(_) => metadata
            .get_str(key)
            .map(Some)
            .ok_or_else(|| wrong(key, "is not a string".to_owned())),
    }
}

fn boolean(metadata: &Metadata, key: &'static str) -> Result<Option<bool>, TextError> {
    match metadata.get(key) {
        None => Ok(None),
        Some(_) => metadata
            .get_bool(key)
            .map(Some)
            .ok_or_else(|| wrong(key, "is not a boolean".to_owned())),
    }
}

fn wrong(key: &'static str, problem: String) -> TextError {
    TextError::Metadata { key, problem }
}

fn unsupported(key: &str, found: &str, supported: String) -> TextError {
    TextError::Unsupported {
        place: format!("GGUF metadata {key}"),
        found: found.to_owned(),
        supported,
    }
}
