//! From a request to a prompt.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Instant;

use code_explainer_cache::{CacheKey, KeyParts};
use code_explainer_code::prompt::{self, PROMPT_REVISION, PromptParts, Reference, Strategy};
use code_explainer_host::cpu::{Budget, Limit};
use code_explainer_text::{EncodedPrompt, Text};

use crate::error::Error;
use crate::explain::hit::Snippet;
use crate::explain::log::About;
use crate::explain::{Explainer, Source, now};
use crate::request::ValidRequest;
use crate::retrieval::fit::{HEADING_TOKENS, fit};
use crate::retrieval::{Found, Retrieved};

/// Precedes the hash of a normal form where a key otherwise has the code. It is no UTF-8, so that no code begins with it.
const NORMAL: &[u8] = b"\xff normal form ";
/// The same before the hash of what the prompt quotes, which the code follows.
const QUOTED: &[u8] = b"\xff quotes ";

/// A prompt, tokenized.
pub(super) struct Prepared {
    pub(super) tokens: Vec<u32>,
    text: String,
    pub(super) language: Option<String>,
    pub(super) notes: Vec<String>,
    /// What the prompt quotes.
    pub(super) sources: Vec<Source>,
    /// Names what the prompt quotes, if anything.
    pub(super) quoted: Option<blake3::Hash>,
    /// A clock decided what is in it: another time it may be another.
    pub(super) cut_short: bool,
    /// When its making began and ended.
    made: (Instant, Instant),
}

impl Prepared {
    /// What a client is told of it.
    pub(super) fn about(&self, include_prompt: bool) -> About {
        About {
            language: self.language.clone(),
            prompt_tokens: self.tokens.len(),
            prompt: include_prompt.then(|| self.text.clone()),
            notes: self.notes.clone(),
            sources: self.sources.clone(),
            made: Some(self.made),
        }
    }
}

impl Explainer {
    /// Makes the prompt.
    pub(super) async fn prepare(
        &self,
        request: &Arc<ValidRequest>,
        snippet: &Snippet,
        salt: &[u8],
        budget: &Budget,
    ) -> Result<Prepared, Error> {
        let began = now();
        let (retrieved, quota) = self.retrieve(request, salt).await;
        let mut making = Making {
            request: request.clone(),
            snippet: snippet.clone(),
            text: self.text.clone(),
            retrieved,
            quota,
            plain: None,
            cut_short: false,
        };
        let pass = move |limit: &Limit| making.pass(limit);
        let mut prepared = self.work_in_passes(salt, budget, pass).await??;
        prepared.made = (began, now());
        self.metrics.prompts.made(prepared.made.1 - began);
        let (tokens, context) = (prepared.tokens.len(), self.model.context_length);
        if tokens >= context {
            let problem = format!(
                "makes a prompt of {tokens} tokens, but the model's context of {context} must hold prompt and answer"
            );
            return Err(Error::invalid("code", problem));
        }
        Ok(prepared)
    }

    /// What is known that is near the code, and the tokens of the prompt that it may take beside the code and the answer.
    async fn retrieve(&self, request: &ValidRequest, salt: &[u8]) -> (Retrieved, Quota) {
        let options = self.retrieval.config().options.with(&request.retrieval);
        let quota = Quota {
            tokens: options.tokens,
            context: self
                .model
                .context_length
                .saturating_sub(request.max_new_tokens),
        };
        if request.strategy != Strategy::RetrievalAugmented {
            return (Retrieved::default(), quota);
        }
        let retrieved = self.retrieval.retrieve(salt, &request.code, &options).await;
        (retrieved, quota)
    }

    /// What names the answer, for the cache and for those who ask for the same meanwhile; `None` where the request alone
    /// does not make the answer.
    pub(super) fn answer_key(
        &self,
        request: &ValidRequest,
        snippet: &Snippet,
        quoted: Option<blake3::Hash>,
        salt: &[u8],
    ) -> Option<CacheKey> {
        let normal = snippet.normal.map(|hash| [NORMAL, &hash].concat());
        let code = normal.as_deref().unwrap_or(request.code.as_bytes());
        // Other quotations make another prompt.
        let quoting = quoted.map(|hash| [QUOTED, hash.as_bytes(), code].concat());
        request.reproducible.then(|| {
            CacheKey::new(&KeyParts {
                secret: self.cache_secret.as_bytes(),
                salt,
                code: quoting.as_deref().unwrap_or(code),
                language: snippet.language.as_deref().unwrap_or_default(),
                strategy: request.strategy.as_str(),
                prompt_revision: PROMPT_REVISION,
                model_digest: self.model_digest.as_bytes(),
                precision: self.model.precision.as_str(),
                temperature: request.sampling.temperature,
                top_p: request.sampling.top_p,
                top_k: request.sampling.top_k,
                repetition_penalty: request.sampling.repetition_penalty,
                seed: request.sampling.seed,
                stops: &request.stops,
                ignore_eos: request.ignore_eos,
                max_new_tokens: request.max_new_tokens,
                min_new_tokens: request.min_new_tokens,
            })
        })
    }
}

/// Tokens that what is quoted may take.
#[derive(Clone, Copy)]
struct Quota {
    /// As is wished for.
    tokens: usize,
    /// With all else that is in the prompt.
    context: usize,
}

/// A prompt on its way, a pass at a time: first what it says, with an outline if one is asked for, then its tokens.
struct Making {
    request: Arc<ValidRequest>,
    snippet: Snippet,
    text: Arc<Text>,
    retrieved: Retrieved,
    quota: Quota,
    /// Without quotations.
    plain: Option<PromptParts>,
    cut_short: bool,
}

impl Making {
    fn pass(&mut self, limit: &Limit) -> ControlFlow<Result<Prepared, Error>> {
        let Some(plain) = self.plain.take() else {
            self.plain = Some(self.parts(&[], limit));
            self.cut_short = self.snippet.cut_short || limit.was_reached();
            return ControlFlow::Continue(());
        };
        if limit.is_abandoned() {
            // Nobody hears of it.
            return ControlFlow::Break(Err(Error::Internal));
        }
        ControlFlow::Break(self.prepared(plain, limit))
    }

    fn prepared(&mut self, plain: PromptParts, limit: &Limit) -> Result<Prepared, Error> {
        let text = self.text.clone();
        let plain_prompt = encoded(&text, &plain)?;
        let Retrieved { passages, notes } = std::mem::take(&mut self.retrieved);
        let left = (self.quota.context).saturating_sub(plain_prompt.tokens.len());
        let tokens = self.quota.tokens.min(left);
        let count = |passage: &str| {
            let tokens = text.tokenizer().encode(passage, false);
            tokens.map_or(self.quota.context, |tokens| tokens.len())
        };
        let (mut passages, mut less) = fit(passages, tokens.saturating_sub(HEADING_TOKENS), count);
        let (mut parts, mut prompt) = (plain, plain_prompt.clone());
        // Tokens are counted passage by passage; together they can come to a few more.
        while !passages.is_empty() {
            parts = self.parts(&passages, limit);
            prompt = encoded(&text, &parts)?;
            if prompt.tokens.len() <= plain_prompt.tokens.len() + tokens {
                break;
            }
            less += 1;
            passages.pop();
            prompt = plain_prompt.clone();
        }
        if self.snippet.unparsed {
            let note = "parsing the code takes too long; its language was told without it";
            parts.notes.push(note.to_owned());
        }
        parts.notes.extend(notes);
        if less > 0 {
            let note = format!(
                "{less} of the passages that were found did not fit into the prompt as a whole"
            );
            parts.notes.push(note);
        }
        Ok(Prepared {
            quoted: (!passages.is_empty()).then(|| name(&passages)),
            sources: passages.into_iter().map(Source::from).collect(),
            tokens: prompt.tokens,
            text: prompt.text,
            language: parts.language,
            notes: parts.notes,
            cut_short: self.cut_short,
            made: (now(), now()),
        })
    }

    fn parts(&self, passages: &[Found], limit: &Limit) -> PromptParts {
        let references = passages.iter().map(|passage| Reference {
            title: &passage.title,
            text: &passage.text,
        });
        let references: Vec<Reference<'_>> = references.collect();
        let request = &self.request;
        let language = self.snippet.language.as_deref().map(str::to_owned);
        prompt::build_known(
            request.strategy,
            &request.code,
            language,
            &references,
            limit,
        )
    }
}

fn encoded(text: &Text, parts: &PromptParts) -> Result<EncodedPrompt, Error> {
    let prompt = text.encode_prompt(parts.system.as_deref(), &parts.user);
    prompt.map_err(|error| {
        tracing::error!(%error, "a prompt could not be tokenized");
        Error::Internal
    })
}

/// The same for the same quotations, and for no others.
fn name(passages: &[Found]) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    for text in passages
        .iter()
        .flat_map(|passage| [&passage.title, &passage.text])
    {
        hasher.update(&(text.len() as u64).to_le_bytes());
        hasher.update(text.as_bytes());
    }
    hasher.finalize()
}
