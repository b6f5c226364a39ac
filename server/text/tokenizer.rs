//! Text to token ids and back.

use tokenizers::normalizer::Range as Span;
use tokenizers::{
    Model, ModelWrapper, NormalizedString, Normalizer, OffsetType, PreTokenizedString,
    PreTokenizer, Token,
};

use super::added::{AddedTokens, Specials};
use super::error::TextError;
use super::marker::steers;
use super::pieces::Pieces;

/// Words whose tokens are remembered. Each thread that encodes remembers its own, up to some
/// kilobytes a word if a client means it badly, and keeps them for good.
const CACHED_WORDS: usize = 512;

/// A model's tokenizer: the same ids as Hugging Face's `tokenizers` gives, text without surprises
/// back.
///
/// A byte that the vocabulary has no token for is left out, as in the reference (SmolLM2 has none
/// for six control characters and for bytes that UTF-8 hardly uses).
#[derive(Debug)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    /// Added tokens that are looked for before normalization, and after.
    raw: AddedTokens,
    normalized: AddedTokens,
    pieces: Pieces,
    /// What a text begins with where no chat template says so: the begin-of-sequence token or nothing.
    prefix: Vec<u32>,
    special: SpecialTokens,
}

/// Tokens with a role, as far as the model names them.
#[derive(Debug, Clone, Default)]
pub(super) struct SpecialTokens {
    pub(super) bos: Option<u32>,
    pub(super) eos: Option<u32>,
    pub(super) unknown: Option<u32>,
    pub(super) padding: Option<u32>,
    pub(super) end_of_turn: Vec<u32>,
}

impl Tokenizer {
    /// Wraps a tokenizer. The message of an error says what is wrong with it.
    pub(super) fn new(
        mut inner: tokenizers::Tokenizer,
        prefix: Vec<u32>,
        special: SpecialTokens,
    ) -> Result<Self, String> {
        if let ModelWrapper::BPE(bpe) = inner.get_model() {
            let mut bpe = bpe.clone();
            bpe.resize_cache(CACHED_WORDS);
            inner.with_model(bpe);
        }
        let mut added = inner
            .get_added_vocabulary()
            .get_added_tokens_decoder()
            .clone();
        for token in added.values_mut() {
            token.special |= steers(&token.content);
        }
        let tokens = |normalized| {
            let tokens = added.iter().map(|(&id, token)| (id, token));
            AddedTokens::new(tokens, normalized, inner.get_normalizer())
                .map_err(|error| error.to_string())
        };
        let (raw, normalized) = (tokens(false)?, tokens(true)?);
        let pieces = Pieces::new(&inner)?;
        Ok(Self {
            inner,
            raw,
            normalized,
            pieces,
            prefix,
            special,
        })
    }

    /// The ids of `text`, without a begin-of-sequence token.
    ///
    /// With `allow_special`, the text of a special token (`<|im_end|>`) becomes that token. Without,
    /// it is text like any other: this is how to encode what a client has written.
    ///
    /// # Errors
    /// [`TextError::Encode`] if the model of the tokenizer refuses the text; byte-level BPE refuses
    /// none.
    pub fn encode(&self, text: &str, allow_special: bool) -> Result<Vec<u32>, TextError> {
        self.encode_with(
            text,
            if allow_special {
                Specials::Everywhere
            } else {
                Specials::Nowhere
            },
        )
    }

    /// The ids of `text`, with special tokens recognized only where `specials` says so.
    pub(super) fn encode_with(
        &self,
        text: &str,
        specials: Specials<'_>,
    ) -> Result<Vec<u32>, TextError> {
        self.ids(text, specials).map_err(|error| TextError::Encode {
            problem: error.to_string(),
        })
    }

    /// The text of `ids`. Special tokens are no text; bytes that are no character become U+FFFD.
    ///
    /// The same as the reference decoder gives, but that one of a `<0xAB>` vocabulary drops a whole
    /// run of such tokens if one of its bytes is astray, and this drops that byte.
    pub fn decode(&self, ids: &[u32]) -> String {
        let mut bytes = Vec::new();
        let mut start = Start::default();
        for &id in ids {
            bytes.extend_from_slice(self.piece(id, &mut start));
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The id of a token, by its text in the vocabulary.
    pub fn token_id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// Whether the token steers the model and is no text.
    pub fn is_special(&self, id: u32) -> bool {
        self.pieces.is_special(id)
    }

    /// One more than the largest id. The model may have more rows, as padding.
    pub fn vocabulary_size(&self) -> usize {
        self.pieces.len()
    }

    /// The text of a special token, for the variables of a chat template.
    pub(super) fn token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    pub(super) fn special(&self) -> &SpecialTokens {
        &self.special
    }

    pub(super) fn prefix(&self) -> &[u32] {
        &self.prefix
    }

    /// The text of each special token.
    pub(super) fn special_tokens(&self) -> impl Iterator<Item = &str> {
        let added = self.inner.get_added_vocabulary().get_added_tokens_decoder();
        added
            .values()
            .filter(|token| token.special || steers(&token.content))
            .map(|token| token.content.as_str())
    }

    /// The bytes that `id` adds to a text that began at `start`.
    pub(super) fn piece(&self, id: u32, start: &mut Start) -> &[u8] {
        let piece = self.pieces.get(id);
        if start.over || self.is_special(id) {
            return piece;
        }
        let skip = self.pieces.skip(piece, start.tokens == 0, start.stripped);
        start.tokens += 1;
        start.stripped += skip;
        start.over = skip < piece.len();
        &piece[skip..]
    }

    fn ids(&self, text: &str, specials: Specials<'_>) -> tokenizers::Result<Vec<u32>> {
        let mut parts = PreTokenizedString::from(text);
        if !self.raw.is_empty() {
            parts.split(|_, part| cut(part, &self.raw, specials))?;
        }
        let normalizer = self.inner.get_normalizer();
        if normalizer.is_some() || !self.normalized.is_empty() {
            parts.split(|_, mut part| {
                if let Some(normalizer) = normalizer {
                    normalizer.normalize(&mut part)?;
                }
                cut(part, &self.normalized, specials)
            })?;
        }
        if let Some(pre_tokenizer) = self.inner.get_pre_tokenizer() {
            pre_tokenizer.pre_tokenize(&mut parts)?;
        }
        let model = self.inner.get_model();
        parts.tokenize(|part| model.tokenize(part.get()))?;
        Ok(parts
            .into_encoding(None, 0, OffsetType::None)?
            .get_ids()
            .to_vec())
    }
}

/// How far the beginning of a text has been decoded, for decoders that strip spaces there.
#[derive(Debug, Clone, Default)]
pub(super) struct Start {
    tokens: usize,
    stripped: usize,
    over: bool,
}

type Part = (NormalizedString, Option<Vec<Token>>);

/// Cuts a part of a text at the added tokens in it.
fn cut(
    part: NormalizedString,
    added: &AddedTokens,
    specials: Specials<'_>,
) -> tokenizers::Result<Vec<Part>> {
    let text = part.get();
    let (offset, _) = part.offsets_original();
    let found = added.find(text, |range| {
        let original = part.convert_offsets(Span::Normalized(range));
        original.is_some_and(|at| specials.allowed(offset + at.start..offset + at.end))
    });
    if found.is_empty() {
        return Ok(vec![(part, None)]);
    }
    let mut parts = Vec::with_capacity(2 * found.len() + 1);
    let slice = |range: std::ops::Range<usize>| {
        part.slice(Span::Normalized(range))
            .ok_or("an added token cuts a character")
    };
    let mut done = 0;
    for token in found {
        if done < token.range.start {
            parts.push((slice(done..token.range.start)?, None));
        }
        let matched = slice(token.range.clone())?;
        let text = matched.get().to_owned();
        let end = text.len();
        parts.push((matched, Some(vec![Token::new(token.id, text, (0, end))])));
        done = token.range.end;
    }
    if done < text.len() {
        parts.push((slice(done..text.len())?, None));
    }
    Ok(parts)
}
