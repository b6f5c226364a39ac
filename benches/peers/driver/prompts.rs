//! Snippets become the very prompts that the server makes of them, so that other engines get the same tokens.

use std::path::Path;

use code_explainer_code::prompt::{self, Strategy};
use code_explainer_text::Text;
use code_explainer_weights::Checkpoint;
use serde::{Deserialize, Serialize};

use crate::jobs;

/// Code that is to become prompts.
#[derive(Deserialize)]
struct Job {
    codes: Vec<String>,
    language: String,
    /// Cut each snippet so that its prompt has exactly this many tokens; those that cannot be are left out.
    exactly: Option<usize>,
}

#[derive(Serialize)]
struct Prompt {
    code: String,
    tokens: Vec<u32>,
}

/// Answers each job with its prompts.
pub(crate) fn work(model: &Path) -> anyhow::Result<()> {
    let text = Text::from_checkpoint(&Checkpoint::open(model)?)?;
    jobs::answer(|job: Job| {
        let mut prompts = Vec::new();
        for code in &job.codes {
            let made = match job.exactly {
                Some(tokens) => cut_to(&text, code, &job.language, tokens)?,
                None => Some(make(&text, code, &job.language)?),
            };
            prompts.extend(made);
        }
        Ok(prompts)
    })
}

fn make(text: &Text, code: &str, language: &str) -> anyhow::Result<Prompt> {
    let parts = prompt::build(Strategy::Vanilla, code, Some(language));
    let tokens = text
        .encode_prompt(parts.system.as_deref(), &parts.user)?
        .tokens;
    Ok(Prompt {
        code: code.to_owned(),
        tokens,
    })
}

/// The longest beginning of `code` whose prompt has exactly `wanted` tokens.
fn cut_to(
    text: &Text,
    code: &str,
    language: &str,
    wanted: usize,
) -> anyhow::Result<Option<Prompt>> {
    let cuts: Vec<usize> = code.char_indices().map(|(i, c)| i + c.len_utf8()).collect();
    // More characters give more tokens, but for a few where a token's end is cut off.
    let (mut low, mut high) = (0, cuts.len());
    while low < high {
        let middle = low.midpoint(high);
        match make(text, &code[..cuts[middle]], language)?.tokens.len() <= wanted {
            true => low = middle + 1,
            false => high = middle,
        }
    }
    for &cut in cuts[low.saturating_sub(8)..low].iter().rev() {
        let prompt = make(text, &code[..cut], language)?;
        if prompt.tokens.len() == wanted {
            return Ok(Some(prompt));
        }
    }
    Ok(None)
}
