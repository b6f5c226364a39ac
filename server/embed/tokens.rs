//! A text to the tokens of an encoder.

use std::path::Path;

use code_explainer_weights::EncoderConfig;
use code_explainer_weights::{model_files, model_json};
use serde::Deserialize;
use tokenizers::{TruncationDirection, TruncationParams, TruncationStrategy};

use super::config::EmbedError;

/// Texts that can be told apart need more than the model's own tokens around them.
const FEWEST_TOKENS: usize = 4;

/// An encoder's `tokenizer.json`, cut to what the model takes.
#[derive(Debug)]
pub struct TextTokenizer {
    inner: tokenizers::Tokenizer,
}

/// A text, tokenized.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tokenized {
    /// Begin, text and end.
    pub tokens: Vec<u32>,
    /// The text had more.
    pub truncated: bool,
}

/// `sentence_bert_config.json`
#[derive(Deserialize)]
struct Lengths {
    max_seq_length: Option<usize>,
}

/// `1_Pooling/config.json`
#[derive(Deserialize)]
struct Pooling {
    #[serde(default)]
    pooling_mode_mean_tokens: bool,
    #[serde(default)]
    pooling_mode_cls_token: bool,
    #[serde(default)]
    pooling_mode_max_tokens: bool,
}

impl TextTokenizer {
    /// Reads the tokenizer that lies beside a model's weights; with the length that the model was trained for, where a
    /// file says so, and not if it wants its tokens pooled otherwise than by their mean.
    ///
    /// # Errors
    /// [`EmbedError::File`] names the file.
    pub fn open(directory: &Path, config: &EncoderConfig) -> Result<Self, EmbedError> {
        let lengths: Option<Lengths> = json(directory, "sentence_bert_config.json")?;
        let longest = lengths
            .and_then(|lengths| lengths.max_seq_length)
            .unwrap_or(config.positions)
            .min(config.positions);
        let pooling: Option<Pooling> = json(directory, "1_Pooling/config.json")?;
        if pooling.is_some_and(|p| {
            !p.pooling_mode_mean_tokens || p.pooling_mode_cls_token || p.pooling_mode_max_tokens
        }) {
            return Err(EmbedError::File {
                path: directory.join("1_Pooling/config.json"),
                reason: "the model wants another pooling than the mean of its tokens, which alone is supported"
                    .into(),
            });
        }
        let path = directory.join("tokenizer.json");
        let wrong = |reason: String| EmbedError::File {
            path: path.clone(),
            reason,
        };
        let bytes = read(directory, "tokenizer.json")?
            .ok_or_else(|| wrong("the file is missing".into()))?;
        Self::from_bytes(&bytes, longest).map_err(wrong)
    }

    /// Reads a `tokenizer.json`, for texts of at most `longest` tokens.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn from_bytes(bytes: &[u8], longest: usize) -> Result<Self, String> {
        if longest < FEWEST_TOKENS {
            return Err(format!(
                "texts of {longest} tokens are too short to be told apart"
            ));
        }
        let mut inner = tokenizers::Tokenizer::from_bytes(bytes).map_err(|e| e.to_string())?;
        inner.with_padding(None);
        let truncation = TruncationParams {
            max_length: longest,
            strategy: TruncationStrategy::LongestFirst,
            direction: TruncationDirection::Right,
            stride: 0,
        };
        inner
            .with_truncation(Some(truncation))
            .map_err(|e| e.to_string())?;
        // What a client writes is text: `[SEP]` too.
        inner.set_encode_special_tokens(true);
        Ok(Self { inner })
    }

    /// One more than the largest token.
    pub fn vocabulary(&self) -> usize {
        let largest = self.inner.get_vocab(true).into_values().max();
        largest.map_or(0, |id| id as usize + 1)
    }

    /// A text's tokens, between those that the model wants around them.
    ///
    /// # Errors
    /// What the tokenizer says.
    pub fn encode(&self, text: &str) -> Result<Tokenized, String> {
        let encoding = self.inner.encode(text, true).map_err(|e| e.to_string())?;
        Ok(Tokenized {
            truncated: !encoding.get_overflowing().is_empty(),
            tokens: encoding.get_ids().to_vec(),
        })
    }
}

fn json<T: serde::de::DeserializeOwned>(
    directory: &Path,
    name: &str,
) -> Result<Option<T>, EmbedError> {
    let Some(bytes) = read(directory, name)? else {
        return Ok(None);
    };
    let parsed = model_json::parse(&bytes);
    parsed.map(Some).map_err(|e| EmbedError::File {
        path: directory.join(name),
        reason: format!("not what is expected: {e}"),
    })
}

/// A small file's bytes, if it is there.
fn read(directory: &Path, name: &str) -> Result<Option<Vec<u8>>, EmbedError> {
    model_files::read(directory, name).map_err(|e| EmbedError::File {
        path: directory.join(name),
        reason: e.to_string(),
    })
}
