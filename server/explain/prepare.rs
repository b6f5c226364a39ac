//! From a request to a prompt.

use std::sync::Arc;

use crate::cache::{CacheKey, KeyParts};
use crate::error::Error;
use crate::explain::Explainer;
use crate::prompt::{self, PROMPT_REVISION};
use crate::request::ValidRequest;
use crate::text::Text;

/// A prompt, tokenized.
pub(super) struct Prepared {
    pub(super) tokens: Vec<u32>,
    pub(super) text: String,
    pub(super) language: Option<String>,
    pub(super) notes: Vec<String>,
}

impl Explainer {
    /// Parsing and tokenizing take milliseconds on long code: not on the threads that serve the network, and not more
    /// at once than there are cores.
    pub(super) async fn prepare(&self, request: &Arc<ValidRequest>) -> Result<Prepared, Error> {
        self.metrics.access.redacted(request.redacted);
        let turn = self.preparing.clone().acquire_owned().await;
        let turn = turn.map_err(|_| Error::ShuttingDown)?;
        let (request, text) = (request.clone(), self.text.clone());
        let prepared = tokio::task::spawn_blocking(move || {
            // Held to the end of the work, also when the item has been cancelled meanwhile.
            let _turn = turn;
            prepare(&request, &text)
        })
        .await;
        let prepared = prepared.unwrap_or_else(|panic| {
            tracing::error!(%panic, "a prompt could not be made");
            Err(Error::Internal)
        })?;
        let (tokens, context) = (prepared.tokens.len(), self.model.context_length);
        if tokens >= context {
            let problem = format!(
                "makes a prompt of {tokens} tokens, but the model's context of {context} must hold prompt and answer"
            );
            return Err(Error::invalid("code", problem));
        }
        Ok(prepared)
    }

    /// What names the answer, for the cache and for those who ask for the same meanwhile; `None` where the request alone
    /// does not make the answer.
    pub(super) fn answer_key(
        &self,
        request: &ValidRequest,
        language: Option<&str>,
        salt: &[u8],
    ) -> Option<CacheKey> {
        request.reproducible.then(|| {
            CacheKey::new(&KeyParts {
                salt,
                code: request.code.as_bytes(),
                language: language.unwrap_or_default(),
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

fn prepare(request: &ValidRequest, text: &Text) -> Result<Prepared, Error> {
    let parts = prompt::build(request.strategy, &request.code, request.language.as_deref());
    let prompt = text
        .encode_prompt(parts.system.as_deref(), &parts.user)
        .map_err(|error| {
            tracing::error!(%error, "a prompt could not be tokenized");
            Error::Internal
        })?;
    Ok(Prepared {
        tokens: prompt.tokens,
        text: prompt.text,
        language: parts.language,
        notes: request.notes.iter().cloned().chain(parts.notes).collect(),
    })
}
