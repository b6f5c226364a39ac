//! Answers that are in memory: told at once, without a prompt, a place in the queue, or a flight.

use std::sync::Arc;

use tokio::sync::watch;

use crate::cache::{CachedAnswer, Level, Name, Policy, Store, StoreLimits};
use crate::explain::item::About;
use crate::explain::log::{AnswerLog, Writer};
use crate::explain::prepare::{Known, Prepared};
use crate::explain::reader::Reader;
use crate::explain::{Explainer, now};
use crate::prompt::Strategy;
use crate::prompt::normal::Normalize;
use crate::request::{CacheMode, Replay, ValidRequest};

/// Snippets that are remembered: about 3 MB.
const SNIPPETS: u64 = 16_384;
/// Separates these hashes from every other use of BLAKE3's key derivation.
const SNIPPET_CONTEXT: &str = "code-explainer 2026-11 known snippets";

/// What was found out about snippets before: an answer's key needs it, and it takes longer than all else that a hit does.
#[derive(Debug)]
pub struct Snippets(Store<Snippet>);

/// What is known of a snippet.
#[derive(Debug, Clone, Default)]
struct Snippet {
    /// As it was detected.
    language: Option<Arc<str>>,
    /// Hash of its normal form, if it has one.
    normal: Option<[u8; 32]>,
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
        let snippet = if self.knows_itself(request) {
            Snippet::default()
        } else {
            self.snippets.0.get(&name(request, salt), 0)?
        };
        let detected = snippet.language.as_deref();
        let known = Known {
            language: request.language.as_deref().or(detected),
            normal: snippet.normal,
            quoted: None,
        };
        let key = self.answer_key(request, known, salt)?;
        self.cache.at_hand(&key)
    }

    /// Remembers what was found out about a snippet.
    pub(super) fn learn(&self, request: &ValidRequest, salt: &[u8], prepared: &Prepared) {
        if self.knows_itself(request) {
            return;
        }
        let snippet = Snippet {
            language: prepared.language.as_deref().map(Arc::from),
            normal: prepared.normal,
        };
        let name = name(request, salt);
        self.snippets.0.put(name, snippet, 1, u64::MAX, 0);
    }

    /// The request has all that its answer's key needs.
    fn knows_itself(&self, request: &ValidRequest) -> bool {
        request.language.is_some() && self.normalize == Normalize::Off
    }
}

/// An answer that is in memory, with a place at its beginning.
pub(super) fn told_again(answer: &CachedAnswer) -> (Reader, About) {
    let (log, reader) = watch::channel(AnswerLog::default());
    let at = now();
    Writer(log).replay(at, Level::Memory, answer);
    let language = Some(&answer.language).filter(|language| !language.is_empty());
    let about = About {
        language: language.cloned(),
        prompt_tokens: answer.prompt_tokens as usize,
        prompt: None,
        notes: answer.notes.clone(),
        // Prompts that quote are searched for: they are not told from here.
        sources: Vec::new(),
    };
    (Reader::new(reader, at, false), about)
}
