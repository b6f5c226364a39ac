//! What an item's answer has to be, worked out from the fake engine's rule alone.

use code_explainer_client::proto::{ExplainRequest, FinishReason};
use code_explainer_code::prompt::{self, Strategy};
use code_explainer_engine::fake::FakeBackend;

use crate::smollm::text;

/// Tokens of a sequence at most.
pub(crate) const CONTEXT: usize = 512;

/// What an item's answer has to be.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Expected {
    pub(crate) text: String,
    pub(crate) reason: FinishReason,
    pub(crate) prompt_tokens: u32,
    pub(crate) generated_tokens: u32,
}

/// The answer to a request that is greedy or has a seed.
pub(crate) fn expected(request: &ExplainRequest) -> Expected {
    let text = text();
    let parts = prompt::build(Strategy::default(), &request.code, Some(&request.language));
    let prompt = text.encode_prompt(parts.system.as_deref(), &parts.user);
    let mut tokens = prompt.expect("a prompt").tokens;
    let prompt_tokens = tokens.len() as u32;
    let seed = match request.temperature {
        0.0 => 0,
        _ => request.seed.expect("an answer that can be known"),
    };
    let mut detokenizer = text.detokenizer(&request.stop);
    let (mut answer, mut generated) = (String::new(), 0);
    let reason = loop {
        let vocabulary = text.vocabulary_size();
        let mut next = FakeBackend::next_token(&tokens, seed, vocabulary);
        while generated < request.min_new_tokens && text.eos().contains(&next) {
            next = (next + 1) % vocabulary as u32;
        }
        tokens.push(next);
        generated += 1;
        let step = detokenizer.push(next, generated >= request.min_new_tokens);
        answer.push_str(&step.text);
        if step.stopped {
            break FinishReason::Stop;
        } else if text.eos().contains(&next) && !request.ignore_eos {
            break FinishReason::Eos;
        } else if generated >= request.max_new_tokens {
            break FinishReason::Length;
        } else if tokens.len() >= CONTEXT {
            break FinishReason::Context;
        }
    };
    answer.push_str(&detokenizer.finish());
    Expected {
        text: answer,
        reason,
        prompt_tokens,
        generated_tokens: generated as u32,
    }
}
