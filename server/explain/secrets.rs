//! Secrets in code go before anything looks at it: what follows (cache, retrieval, prompt, trace) has never had them.

use code_explainer_code::redact::redact;
use code_explainer_host::cpu::{Budget, Limit};

use crate::error::Error;
use crate::explain::Explainer;
use crate::request::ValidRequest;

/// Shorter code is read where it is: that takes less than to hand it to another thread and back.
const SHORT_BYTES: usize = 4096;

impl Explainer {
    /// The request without the secrets of its code, where they are to be taken out.
    pub(super) async fn without_secrets(
        &self,
        mut request: ValidRequest,
        salt: &[u8],
        budget: &Budget,
    ) -> Result<ValidRequest, Error> {
        if !self.redact_secrets {
            return Ok(request);
        }
        let code = std::mem::take(&mut request.code);
        let (code, redacted) = if code.len() <= SHORT_BYTES {
            let redacted = redact(&code);
            (code, redacted)
        } else {
            let scan = move |_: &Limit| {
                let redacted = redact(&code);
                (code, redacted)
            };
            self.work(salt, budget, scan).await?
        };
        if let Some(redacted) = &redacted {
            self.metrics.access.redacted(redacted.count());
            request.notes.push(redacted.note());
        }
        request.code = redacted.map_or(code, |redacted| redacted.text);
        Ok(request)
    }
}
