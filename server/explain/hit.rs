//! Answers that are in memory, told at once: without a prompt, a place in the queue, or a flight. And what is remembered of
//! snippets, so that their answers have a name before there is a prompt.

use std::sync::Arc;

use tokio::sync::watch;

use crate::cache::{CachedAnswer, Level, Name, Policy, Store, StoreLimits};
use crate::error::Error;
use crate::explain::log::{AnswerLog, Writer};
use crate::explain::reader::Reader;
use crate::explain::{Explainer, now};
use crate::prompt::normal::{Normalize, normal_form};
use crate::prompt::{Strategy, detect};
use crate::request::{CacheMode, Replay, ValidRequest};

/// Snippets that are remembered: about 3 MB.
const SNIPPETS: u64 = 16_384;
/// Separates these hashes from every other use of BLAKE3's key derivation.
const SNIPPET_CONTEXT: &str = "code-explainer 2026-11 known snippets";

/// What was found out about snippets before: an answer's key needs it, and it takes longer than all else that a hit does.
#[derive(Debug)]
pub struct Snippets(Store<Snippet>);

/// What is known of a snippet.
#[derive(Debug, Clone)]
pub(super) struct Snippet {
    /// As given or as detected; `None`: it cannot be told.
    pub(super) language: Option<Arc<str>>,
    /// Hash of its normal form, if it has one and answers are named by it.
    pub(super) normal: Option<[u8; 32]>,
}

impl Default for Snippets {
    fn default() -> Self {
        Self(Store::new(&StoreLimits {
            entries: SNIPPETS,
            bytes: u64::MAX,
            value_bytes: 1,
            policy: Policy::Lru,
        }))
    }
}

/// The snippet under the language that was asked for. Tenants have salts of their own, so that the time a request takes
/// says nothing about the snippets of others.
fn name(request: &ValidRequest, salt: &[u8]) -> Name {
    let mut hasher = blake3::Hasher::new_keyed(&blake3::derive_key(SNIPPET_CONTEXT, salt));
    let language = request.language.as_deref().unwrap_or_default();
    hasher.update(&(language.len() as u64).to_le_bytes());
    hasher.update(language.as_bytes());
    hasher.update(request.code.as_bytes());
    Name(*hasher.finalize().as_bytes())
}

impl Explainer {
    /// The answer, if it is in memory and can be told from there alone: not if the prompt or the original pace is wanted,
    /// or it may have to be cut.
    pub(super) fn at_hand(&self, request: &ValidRequest, salt: &[u8]) -> Option<Arc<CachedAnswer>> {
        let looks = matches!(request.cache_mode, CacheMode::Default | CacheMode::Only);
        let paced = request.replay == Replay::Paced;
        // What is known can have changed since: the search for it makes the key.
        let searches = request.strategy == Strategy::RetrievalAugmented;
        if !looks || searches || request.include_prompt || paced || request.keep_at_deadline {
            return None;
        }
        let snippet = self.known(request, salt)?;
        let key = self.answer_key(request, &snippet, None, salt)?;
        self.cache.at_hand(&key)
    }

    /// What an answer's name needs to be known of its snippet: looked up, or found out. With the code it makes the prompt.
    pub(super) async fn survey(
        &self,
        request: &Arc<ValidRequest>,
        salt: &[u8],
    ) -> Result<Snippet, Error> {
        if let Some(snippet) = self.known(request, salt) {
            return Ok(snippet);
        }
        let (surveyed, normalize) = (request.clone(), self.normalize);
        let snippet = self
            .work(salt, move || survey(&surveyed, normalize))
            .await?;
        let name = name(request, salt);
        (self.snippets.0).put(name, snippet.clone(), 1, u64::MAX, 0);
        Ok(snippet)
    }

    fn known(&self, request: &ValidRequest, salt: &[u8]) -> Option<Snippet> {
        let given = request.language.as_deref();
        if given.is_some() && self.normalize == Normalize::Off {
            return Some(Snippet {
                language: given.map(Arc::from),
                normal: None,
            });
        }
        self.snippets.0.get(&name(request, salt), 0)
    }
}

fn survey(request: &ValidRequest, normalize: Normalize) -> Snippet {
    let code = &request.code;
    let detect = || detect::detect(code).map(|found| found.name);
    let language = request.language.as_deref().or_else(detect);
    Snippet {
        language: language.map(Arc::from),
        normal: normal_form(code, language, normalize),
    }
}

/// An answer that is in memory, with a place at its beginning.
pub(super) fn told_again(answer: &CachedAnswer) -> Reader {
    let (log, reader) = watch::channel(AnswerLog::default());
    let at = now();
    Writer(log).replay(at, Level::Memory, answer);
    Reader::new(reader, at, false)
}
