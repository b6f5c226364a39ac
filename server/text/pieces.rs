//! What text each token stands for, as bytes, so that an answer can be decoded token by token.
//!
//! A tokenizer's decoder works on whole sequences. The ones in use by decoder-only models do the
//! same to every token wherever it stands, but for what they strip from the beginning. So each
//! token's bytes are worked out once, and decoding is a concatenation.

use tokenizers::decoders::DecoderWrapper;
use tokenizers::pre_tokenizers::metaspace::PrependScheme;
use tokenizers::{Decoder, Tokenizer};

use super::marker::is_marker;

/// The bytes of every token, in one allocation.
#[derive(Debug)]
pub(super) struct Pieces {
    bytes: Vec<u8>,
    /// Where each token's bytes end.
    ends: Vec<u32>,
    /// Whether each token is one that steers the model and is no text.
    special: Vec<bool>,
    pub(super) strip: Strip,
}

/// Spaces that a decoder drops from the beginning of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Strip {
    /// None.
    Nothing,
    /// At most so many.
    Spaces(usize),
    /// Those that the first token begins with.
    FirstToken,
}

/// No tokenizer has more tokens; an id beyond is a mistake that would cost memory.
const MOST_TOKENS: usize = 1 << 24;

impl Pieces {
    /// Works out the bytes of every token of `tokenizer`.
    pub(super) fn new(tokenizer: &Tokenizer) -> Result<Self, String> {
        let (steps, strip) = steps(tokenizer.get_decoder())?;
        let added = tokenizer.get_added_vocabulary();
        let ids = tokenizer.get_vocab(true);
        let size = ids.values().max().map_or(0, |&id| id as usize + 1);
        if size > MOST_TOKENS {
            return Err(format!(
                "has a token of id {}, which is out of all bounds",
                size - 1
            ));
        }
        let mut tokens = vec![None; size];
        for (token, id) in ids {
            tokens[id as usize] = Some(token);
        }

        let mut pieces = Self {
            bytes: Vec::new(),
            ends: Vec::with_capacity(size),
            special: Vec::new(),
            strip,
        };
        for (token, id) in tokens.into_iter().zip(0u32..) {
            let steers = |token: &String| {
                let is_added = added.get_added_tokens_decoder().contains_key(&id);
                added.is_special_token(token) || (is_added && is_marker(token))
            };
            let special = token.as_ref().is_some_and(steers);
            if let Some(token) = token.filter(|_| !special) {
                let token = added.simple_id_to_token(id).unwrap_or(token);
                pieces.bytes.extend(decode(&steps, token)?);
            }
            let end = u32::try_from(pieces.bytes.len())
                .map_err(|_| "has more than 4 GiB of tokens".to_owned())?;
            pieces.ends.push(end);
            pieces.special.push(special);
        }
        pieces.bytes.shrink_to_fit();
        Ok(pieces)
    }

    /// One more than the largest id.
    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether the token steers the model and is no text.
    pub(super) fn is_special(&self, id: u32) -> bool {
        self.special.get(id as usize).copied().unwrap_or(false)
    }

    /// The token's bytes, which need not be whole characters; none for a special token and for an
    /// id that is no token (models pad their vocabulary).
    pub(super) fn get(&self, id: u32) -> &[u8] {
        let Some(&end) = self.ends.get(id as usize) else {
            return &[];
        };
        let start = if id == 0 {
            0
        } else {
            self.ends[id as usize - 1]
        };
        &self.bytes[start as usize..end as usize]
    }

    /// How many bytes of `piece` are spaces that the decoder strips, if nothing but spaces came
    /// before it. `first` says that no token came before, `stripped` how many spaces were stripped.
    pub(super) fn skip(&self, piece: &[u8], first: bool, stripped: usize) -> usize {
        let spaces = || piece.iter().take_while(|&&byte| byte == b' ').count();
        match self.strip {
            Strip::Nothing => 0,
            Strip::Spaces(most) => spaces().min(most - stripped),
            Strip::FirstToken => {
                if first {
                    spaces()
                } else {
                    0
                }
            }
        }
    }
}

/// What a decoder does to one token.
enum Step<'a> {
    /// Each character stands for a byte, as in GPT-2.
    Bytes,
    /// `<0xAB>` stands for the byte.
    ByteFallback,
    /// The decoder itself can be asked; the token is not the first.
    Ask(&'a DecoderWrapper),
}

fn steps(decoder: Option<&DecoderWrapper>) -> Result<(Vec<Step<'_>>, Strip), String> {
    let parts = match decoder {
        None => return Err("has no decoder".to_owned()),
        Some(DecoderWrapper::Sequence(sequence)) => sequence.get_decoders(),
        Some(other) => std::slice::from_ref(other),
    };
    let (mut steps, mut strip, mut fused) = (Vec::new(), Strip::Nothing, false);
    for part in parts {
        match part {
            DecoderWrapper::ByteLevel(_) if !fused => {
                steps.push(Step::Bytes);
                fused = true;
            }
            DecoderWrapper::ByteFallback(_) if !fused => steps.push(Step::ByteFallback),
            DecoderWrapper::Replace(_) if !fused => steps.push(Step::Ask(part)),
            DecoderWrapper::Metaspace(metaspace) if !fused => {
                if metaspace.prepend_scheme != PrependScheme::Never {
                    strip = Strip::FirstToken;
                }
                steps.push(Step::Ask(part));
            }
            DecoderWrapper::Fuse(_) => fused = true,
            DecoderWrapper::Strip(part) if fused && part.content == ' ' && part.stop == 0 => {
                strip = Strip::Spaces(part.start);
            }
            _ => {
                return Err(
                    "has a decoder that is not supported; supported are ByteLevel, \
                            Metaspace, and sequences of Replace, ByteFallback, Fuse and Strip"
                        .to_owned(),
                );
            }
        }
    }
    Ok((steps, strip))
}

fn decode(steps: &[Step<'_>], mut token: String) -> Result<Vec<u8>, String> {
    for step in steps {
        match step {
            Step::Bytes => return Ok(bytes_of(&token)),
            Step::ByteFallback => {
                if let Some(byte) = fallback_byte(&token) {
                    return Ok(vec![byte]);
                }
            }
            Step::Ask(decoder) => {
                let decoded = decoder.decode_chain(vec![String::new(), token]);
                token = decoded.map_err(|error| error.to_string())?.concat();
            }
        }
    }
    Ok(token.into_bytes())
}

fn fallback_byte(token: &str) -> Option<u8> {
    let digits = token.strip_prefix("<0x")?.strip_suffix('>')?;
    (digits.len() == 2)
        .then(|| u8::from_str_radix(digits, 16).ok())
        .flatten()
}

/// The bytes that a byte-level token's characters stand for; a token with other characters, which
/// only an added one can have, stands for itself.
fn bytes_of(token: &str) -> Vec<u8> {
    token
        .chars()
        .map(byte_of)
        .collect::<Option<_>>()
        .unwrap_or_else(|| token.as_bytes().to_vec())
}

/// The byte that a character stands for in a byte-level vocabulary.
///
/// GPT-2 writes a byte as the Latin-1 character where that one is printable, and the 68 others, in
/// order, as the characters from U+0100 on.
fn byte_of(c: char) -> Option<u8> {
    match u32::from(c) {
        code @ (0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF) => u8::try_from(code).ok(),
        code @ 0x100..=0x120 => u8::try_from(code - 0x100).ok(),
        code @ 0x121..=0x142 => u8::try_from(code - 0x121 + 0x7F).ok(),
        0x143 => Some(0xAD),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_has_one_character() {
        let mut bytes: Vec<u8> = (0..0x200)
            .filter_map(char::from_u32)
            .filter_map(byte_of)
            .collect();
        bytes.sort_unstable();
        assert_eq!(bytes, (0..=255).collect::<Vec<u8>>());
        assert_eq!(bytes_of("Ġĉ"), b" \t");
        assert_eq!(bytes_of("<a b>"), b"<a b>");
    }

    #[test]
    fn fallback_tokens_are_bytes() {
        assert_eq!(fallback_byte("<0xE2>"), Some(0xE2));
        assert_eq!(fallback_byte("<0xE2"), None);
        assert_eq!(fallback_byte("<0x123>"), None);
    }
}
