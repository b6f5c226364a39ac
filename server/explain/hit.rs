//! Answers that are in memory, told at once: without a prompt, a place in the queue, or a flight. And what is remembered of
//! snippets, so that their answers have a name before there is a prompt.

use std::ops::ControlFlow;
use std::sync::Arc;

use code_explainer_cache::{CachedAnswer, Level, Name, Policy, Store, StoreLimits, Terms};
use code_explainer_code::prompt::Strategy;
use code_explainer_code::prompt::detect::Detection;
use code_explainer_code::prompt::normal::{Normalize, normal_form};
use code_explainer_host::cpu::{Budget, Limit};

use crate::error::Error;
use crate::explain::log::AnswerLog;
use crate::explain::reader::Reader;
use crate::explain::{Explainer, now};
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
    /// Grammars were given up, because parsing the code takes too long: the language was told without them.
    pub(super) unparsed: bool,
    /// A clock decided what was found out: another time it may be something else.
    pub(super) cut_short: bool,
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
    pub(super) fn kept_answer(
        &self,
        request: &ValidRequest,
        salt: &[u8],
    ) -> Option<Arc<CachedAnswer>> {
        let looks = matches!(request.cache_mode, CacheMode::Default | CacheMode::Only);
        let paced = request.replay == Replay::Paced;
        // What is known can have changed since: the search for it makes the key.
        let searches = request.strategy == Strategy::RetrievalAugmented;
        if !looks || searches || request.include_prompt || paced || request.keep_at_deadline {
            return None;
        }
        let snippet = self.known(request, salt)?;
        let key = self.answer_key(request, &snippet, None, salt)?;
        self.cache.peek(&key)
    }

    /// What an answer's name needs to be known of its snippet: looked up, or found out. With the code it makes the prompt.
    pub(super) async fn describe_snippet(
        &self,
        request: &Arc<ValidRequest>,
        salt: &[u8],
        budget: &Budget,
    ) -> Result<Snippet, Error> {
        if let Some(snippet) = self.known(request, salt) {
            return Ok(snippet);
        }
        let mut describe_snippet = Survey::new(request.clone(), self.normalize);
        let pass = move |limit: &Limit| describe_snippet.pass(limit);
        let snippet = self.work_in_passes(salt, budget, pass).await?;
        if !snippet.cut_short {
            let name = name(request, salt);
            // A salt is a keyed hash: its beginning tells tenants apart.
            let owner = salt.first_chunk().copied().map_or(0, u64::from_le_bytes);
            let terms = Terms {
                owner,
                bytes: 1,
                expires: u64::MAX,
            };
            (self.snippets.0).put(name, snippet.clone(), terms, 0);
        }
        Ok(snippet)
    }

    fn known(&self, request: &ValidRequest, salt: &[u8]) -> Option<Snippet> {
        let given = request.language.as_deref();
        if given.is_some() && self.normalize == Normalize::Off {
            return Some(Snippet {
                language: given.map(Arc::from),
                normal: None,
                unparsed: false,
                cut_short: false,
            });
        }
        self.snippets.0.get(&name(request, salt), 0)
    }
}

/// Finds out about a snippet, a pass at a time: by its words, then by one grammar after the other, then its normal form.
struct Survey {
    request: Arc<ValidRequest>,
    normalize: Normalize,
    detection: Option<Detection>,
    /// Once it is known.
    language: Option<Option<Arc<str>>>,
    cut_short: bool,
}

impl Survey {
    fn new(request: Arc<ValidRequest>, normalize: Normalize) -> Self {
        let given = request.language.as_deref().map(Arc::from);
        Self {
            request,
            normalize,
            detection: None,
            language: given.map(Some),
            cut_short: false,
        }
    }

    fn pass(&mut self, limit: &Limit) -> ControlFlow<Snippet> {
        let code = &self.request.code;
        let Some(language) = &self.language else {
            match &mut self.detection {
                None => self.detection = Some(Detection::new(code)),
                Some(detection) => {
                    if let ControlFlow::Break(found) = detection.try_next(code, limit) {
                        self.language = Some(found.map(|found| Arc::from(found.name)));
                    }
                }
            }
            self.cut_short |= limit.was_reached();
            return ControlFlow::Continue(());
        };
        let normal = normal_form(code, language.as_deref(), self.normalize, limit);
        self.cut_short |= limit.was_reached();
        let unparsed = (self.detection.as_ref()).is_some_and(Detection::left_out_grammars);
        ControlFlow::Break(Snippet {
            language: language.clone(),
            normal,
            unparsed,
            cut_short: self.cut_short,
        })
    }
}

/// An answer that is in memory, with a place at its beginning. It is shared with the cache: what is told of it is made when
/// there is room for it, and nothing before.
pub(super) fn replay_kept(answer: Arc<CachedAnswer>) -> Reader {
    let at = now();
    Reader::of_whole(AnswerLog::stored(at, Level::Memory, answer), at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::explain::Record;
    use crate::explain::reader::Next;
    use code_explainer_cache::{CachedDelta, FinishReason, Timings};

    /// Bytes that are kept for an item that waits to tell an answer, beside its request and its task.
    const WAITING: usize = 1024;

    #[tokio::test]
    async fn who_waits_to_tell_an_answer_has_none_of_its_own() {
        let deltas = (0..1024).map(|n| CachedDelta {
            text: format!("{n} "),
            at_us: n,
        });
        let answer = Arc::new(CachedAnswer {
            deltas: deltas.collect(),
            finish_reason: FinishReason::Length,
            prompt_tokens: 7,
            generated_tokens: 1024,
            seed: 0,
            notes: vec!["a note".into()],
            language: "rust".into(),
            timings: Timings::default(),
        });
        let mut waiting: Vec<Reader> = (0..1000).map(|_| replay_kept(answer.clone())).collect();
        assert_eq!(Arc::strong_count(&answer), 1001, "all of them share it");
        let bytes = size_of::<Reader>() + size_of::<AnswerLog>();
        assert!(bytes <= WAITING, "{bytes} bytes for each");
        let reader = &mut waiting[0];
        let record = Record::default();
        let next = reader.next(&record).await.expect("it is there");
        assert_eq!(next, Next::Accepted(0));
        reader.told(0);
        for delta in 0..3 {
            assert_eq!(reader.next(&record).await.expect("text"), Next::Text);
            assert_eq!(reader.text(false), format!("{delta} "));
        }
        assert_eq!(reader.text(true), answer.text()["0 1 2 ".len()..]);
        assert_eq!(reader.next(&record).await.expect("its end"), Next::End);
        let about = reader.about();
        assert_eq!(about.language.as_deref(), Some("rust"));
        assert_eq!((about.prompt_tokens, about.notes.len()), (7, 1));
        // What is kept of it for a client that may come back is the same answer.
        let kept = reader.kept(true);
        assert_eq!(kept.rest(0), answer.text());
        assert_eq!(Arc::strong_count(&answer), 1002);
    }
}
