//! What an operator can set, and what an item can ask for in its place.

use crate::error::Error;
use crate::proto;

/// The most passages that a prompt may have.
pub const MOST_PASSAGES: usize = 32;
/// The most tokens of a prompt that passages may take.
pub const MOST_TOKENS: usize = 16_384;

/// Everything that retrieval needs; every value is valid.
#[derive(Debug, Clone, PartialEq)]
pub struct RetrievalConfig {
    /// For items that ask for nothing else.
    pub options: RetrievalOptions,
    /// Passages of documents, in all, at most.
    pub passages: usize,
    /// The largest document, in bytes.
    pub document_bytes: usize,
    /// Answers that are kept to be found, at most; 0: none are kept.
    pub answers: usize,
}

/// What is taken of what is found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RetrievalOptions {
    /// Passages at most.
    pub top_k: usize,
    /// The least cosine with the code.
    pub threshold: f32,
    /// 0: the best alone count. 1: the next is the one least like those before.
    pub diversity: f32,
    /// Tokens of the prompt that passages may take.
    pub tokens: usize,
    /// Look at documentation.
    pub documentation: bool,
    /// Look at the tenant's own explained snippets.
    pub explanations: bool,
}

impl Default for RetrievalOptions {
    fn default() -> Self {
        Self {
            top_k: 3,
            threshold: 0.3,
            diversity: 0.3,
            tokens: 512,
            documentation: true,
            explanations: true,
        }
    }
}

/// What an item asks for; what it does not ask for is the server's.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct RetrievalWish {
    top_k: Option<usize>,
    threshold: Option<f32>,
    diversity: Option<f32>,
    tokens: Option<usize>,
    /// Documentation, and explanations.
    kinds: Option<[bool; 2]>,
}

impl RetrievalWish {
    /// Checks every field.
    ///
    /// # Errors
    /// [`Error::Invalid`] names the first that is wrong.
    pub fn new(wire: &proto::Retrieval) -> Result<Self, Error> {
        let mut kinds = [false; 2];
        for kind in &wire.sources {
            match proto::SourceKind::try_from(*kind) {
                Ok(proto::SourceKind::Documentation) => kinds[0] = true,
                Ok(proto::SourceKind::Explanation) => kinds[1] = true,
                Ok(proto::SourceKind::Unspecified) | Err(_) => {
                    let problem = format!("has {kind}, which is no kind of source");
                    return Err(Error::invalid("retrieval.sources", problem));
                }
            }
        }
        Ok(Self {
            top_k: count("retrieval.top_k", wire.top_k, MOST_PASSAGES)?,
            threshold: share("retrieval.threshold", wire.threshold, -1.0)?,
            diversity: share("retrieval.diversity", wire.diversity, 0.0)?,
            tokens: count("retrieval.max_tokens", wire.max_tokens, MOST_TOKENS)?,
            kinds: (!wire.sources.is_empty()).then_some(kinds),
        })
    }
}

fn count(field: &'static str, value: Option<u32>, most: usize) -> Result<Option<usize>, Error> {
    let Some(value) = value else {
        return Ok(None);
    };
    let fits = usize::try_from(value).ok().filter(|value| *value <= most);
    let problem = || Error::invalid(field, format!("is {value}, expected 0 to {most}"));
    fits.map(Some).ok_or_else(problem)
}

fn share(field: &'static str, value: Option<f32>, least: f32) -> Result<Option<f32>, Error> {
    match value {
        Some(value) if !(least..=1.0).contains(&value) => Err(Error::invalid(
            field,
            format!("is {value}, expected {least} to 1"),
        )),
        value => Ok(value),
    }
}

impl RetrievalOptions {
    /// With what an item asks for in place of these.
    #[must_use]
    pub fn with(self, wish: &RetrievalWish) -> Self {
        let [documentation, explanations] = wish
            .kinds
            .unwrap_or([self.documentation, self.explanations]);
        Self {
            top_k: wish.top_k.unwrap_or(self.top_k),
            threshold: wish.threshold.unwrap_or(self.threshold),
            diversity: wish.diversity.unwrap_or(self.diversity),
            tokens: wish.tokens.unwrap_or(self.tokens),
            documentation,
            explanations,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(change: impl FnOnce(&mut proto::Retrieval)) -> Result<RetrievalOptions, Error> {
        let mut wire = proto::Retrieval::default();
        change(&mut wire);
        Ok(RetrievalOptions::default().with(&RetrievalWish::new(&wire)?))
    }

    #[test]
    fn what_is_not_asked_for_is_the_servers() {
        assert_eq!(with(|_| {}), Ok(RetrievalOptions::default()));
        assert_eq!(with(|w| w.top_k = Some(0)).expect("valid").top_k, 0);
        let own = with(|w| w.sources = vec![proto::SourceKind::Explanation.into()]).expect("valid");
        assert!(own.explanations && !own.documentation);
    }

    #[test]
    fn each_bad_field_is_named() {
        for (field, refused) in [
            ("retrieval.top_k", with(|w| w.top_k = Some(33))),
            ("retrieval.threshold", with(|w| w.threshold = Some(1.1))),
            (
                "retrieval.threshold",
                with(|w| w.threshold = Some(f32::NAN)),
            ),
            ("retrieval.diversity", with(|w| w.diversity = Some(-0.1))),
            (
                "retrieval.max_tokens",
                with(|w| w.max_tokens = Some(20_000)),
            ),
            ("retrieval.sources", with(|w| w.sources = vec![0])),
            ("retrieval.sources", with(|w| w.sources = vec![9])),
        ] {
            assert_eq!(refused.expect_err("refused").field(), field);
        }
    }
}
