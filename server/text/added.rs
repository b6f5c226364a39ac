//! Finding added tokens in a text: the ones that are matched before anything is cut into words.
//!
//! The semantics are those of Hugging Face's `AddedVocabulary` (leftmost, then longest; `lstrip`,
//! `rstrip`, `single_word`), with one thing more: special tokens can be left alone at places that
//! the caller names, so that what a client writes never becomes a control token.

use std::ops::Range;

use tokenizers::{AddedToken, NormalizedString, Normalizer};

/// Where special tokens are recognized in a text.
#[derive(Debug, Clone, Copy)]
pub(super) enum Specials<'a> {
    /// Everywhere.
    Everywhere,
    /// Nowhere: they are ordinary text.
    Nowhere,
    /// Everywhere but where they would contain the character at one of these byte offsets, which
    /// ascend.
    Except(&'a [usize]),
}

impl Specials<'_> {
    /// Whether a special token may take these bytes of the text.
    pub(super) fn allowed(self, range: Range<usize>) -> bool {
        match self {
            Self::Everywhere => true,
            Self::Nowhere => false,
            Self::Except(offsets) => {
                let next = offsets.partition_point(|&offset| offset < range.start);
                offsets.get(next).is_none_or(|&offset| offset >= range.end)
            }
        }
    }
}

/// A set of added tokens, ready to be looked for.
#[derive(Debug, Default)]
pub(super) struct AddedTokens {
    /// By first byte, then the longest first.
    tokens: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    pattern: String,
    id: u32,
    token: AddedToken,
}

/// An added token found in a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) id: u32,
    /// Bytes that it takes, stripped white space included.
    pub(super) range: Range<usize>,
}

impl AddedTokens {
    /// Those of `tokens` that are matched in the text as it was given (`normalized == false`) or
    /// after normalization.
    pub(super) fn new<'a, N: Normalizer>(
        tokens: impl IntoIterator<Item = (u32, &'a AddedToken)>,
        normalized: bool,
        normalizer: Option<&N>,
    ) -> tokenizers::Result<Self> {
        let mut entries = Vec::new();
        for (id, token) in tokens {
            if token.normalized != normalized || token.content.is_empty() {
                continue;
            }
            let mut pattern = NormalizedString::from(token.content.as_str());
            if let Some(normalizer) = normalizer.filter(|_| normalized) {
                normalizer.normalize(&mut pattern)?;
            }
            let pattern = pattern.get().to_owned();
            if !pattern.is_empty() {
                entries.push(Entry {
                    pattern,
                    id,
                    token: token.clone(),
                });
            }
        }
        entries.sort_by(|a, b| {
            let key = |entry: &Entry| {
                (
                    entry.pattern.as_bytes()[0],
                    usize::MAX - entry.pattern.len(),
                )
            };
            key(a).cmp(&key(b)).then_with(|| a.pattern.cmp(&b.pattern))
        });
        Ok(Self { tokens: entries })
    }

    /// Whether there is none to find.
    pub(super) fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// Every token in `text`, from left to right, without overlap. `allowed` says whether a special
    /// token may take a range of bytes.
    pub(super) fn find(&self, text: &str, allowed: impl Fn(Range<usize>) -> bool) -> Vec<Found> {
        let mut found = Vec::new();
        let first = self.first_bytes();
        // Where the search goes on, and up to where the text is taken.
        let (mut at, mut taken) = (0, 0);
        while at < text.len() {
            let candidates = first[usize::from(text.as_bytes()[at])].clone();
            let entry = self.tokens[candidates].iter().find(|entry| {
                text.as_bytes()[at..].starts_with(entry.pattern.as_bytes())
                    && (!entry.token.special || allowed(at..at + entry.pattern.len()))
                    && (!entry.token.single_word || is_single_word(text, at, entry.pattern.len()))
            });
            let Some(entry) = entry else {
                at += 1;
                continue;
            };
            let (mut start, mut end) = (at, at + entry.pattern.len());
            at = end;
            if entry.token.lstrip {
                start = text[..start].trim_end().len().max(taken);
            }
            if entry.token.rstrip {
                end = text.len() - text[end..].trim_start().len();
            }
            taken = end;
            at = at.max(end);
            found.push(Found {
                id: entry.id,
                range: start..end,
            });
        }
        found
    }

    /// For each first byte, its entries.
    fn first_bytes(&self) -> Vec<Range<usize>> {
        let mut ranges = vec![0..0; 256];
        for (index, entry) in self.tokens.iter().enumerate() {
            let range = &mut ranges[usize::from(entry.pattern.as_bytes()[0])];
            if range.end == 0 {
                *range = index..index;
            }
            range.end = index + 1;
        }
        ranges
    }
}

fn is_single_word(text: &str, at: usize, length: usize) -> bool {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    !text[..at].ends_with(is_word) && !text[at + length..].starts_with(is_word)
}
