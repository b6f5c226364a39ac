//! Prompts: a snippet of code becomes what the model is asked.
//!
//! Everything here is a pure function of the request. [`build`] writes the prompt by a [`Strategy`]; [`language`] knows
//! the languages' names, [`detect`] tells a language from code, and [`outline`] says what the code's syntax tree shows.
//! The texts that the model gets before the code are the same for every request of a strategy, so that their keys and
//! values can be shared in the KV cache.

pub mod detect;
pub mod language;
pub mod normal;
pub mod outline;
mod parse;
mod reference;

pub use reference::Reference;

use code_explainer_host::cpu::Limit;
use language::{Language, parse_language};
use std::fmt::{self, Display, Formatter};
use std::str::FromStr;

/// Names the prompts' wording, for keys of cached answers. It goes up whenever [`build`] or an outline would give
/// another text for the same request.
pub const PROMPT_REVISION: u32 = 1;

/// Who the model is told to be.
///
/// This wording and that of [`INSTRUCTION`] were picked among nine by reading the greedy answers of
/// SmolLM2-135M-Instruct to nine snippets. Longer ones ("step by step", "do not repeat the code") made it repeat itself
/// or the code.
const SYSTEM: &str = "You are a helpful assistant who explains code.";

const INSTRUCTION: &str = "Explain what this code does:";

/// What precedes the outline. Of seven forms and places, bullets before the code gave the fewest invented facts.
const OUTLINE_HEADING: &str = "Outline:";

/// How a prompt is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Strategy {
    /// An instruction and the code.
    #[default]
    Vanilla,
    /// An instruction, the code and an outline of its syntax tree.
    AstAugmented,
    /// An instruction, what is known that is near, and the code.
    RetrievalAugmented,
}

impl Strategy {
    /// All strategies, in the order in which they are named to people.
    pub const ALL: [Self; 3] = [Self::Vanilla, Self::AstAugmented, Self::RetrievalAugmented];

    /// The name used in requests and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Vanilla => "vanilla",
            Self::AstAugmented => "ast_augmented",
            Self::RetrievalAugmented => "retrieval_augmented",
        }
    }
}

impl Display for Strategy {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Strategy {
    type Err = PromptError;

    fn from_str(name: &str) -> Result<Self, PromptError> {
        Self::ALL
            .into_iter()
            .find(|strategy| strategy.as_str() == name)
            .ok_or_else(|| {
                // The name comes from outside and is shown in a message: neither long nor with line breaks.
                let name = name
                    .chars()
                    .take(64)
                    .map(|c| if c.is_control() { ' ' } else { c })
                    .collect();
                PromptError::UnknownStrategy { name }
            })
    }
}

/// A request that no prompt can be made for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PromptError {
    /// The strategy has no such name.
    #[error("unknown strategy '{name}': expected {}", known_strategies())]
    UnknownStrategy {
        /// The name, shortened.
        name: String,
    },
    /// The language's name is too long.
    #[error(
        "has {bytes} bytes, at most {} are allowed; leave it empty to have it detected",
        language::MAX_LANGUAGE_BYTES
    )]
    LanguageTooLong {
        /// Its length.
        bytes: usize,
    },
    /// The language's name has characters that a name does not have.
    #[error(
        "has characters that are not printable, or backticks; leave it empty to have it detected"
    )]
    LanguageNotPrintable,
}

fn known_strategies() -> String {
    let [rest @ .., last] = Strategy::ALL.map(Strategy::as_str);
    format!("{} or {last}", rest.join(", "))
}

/// Makes what is made once per process: tables over the grammars.
pub fn warm_up() {
    for language in Language::ALL {
        // The element makes it read as JSX, too, where a language has it.
        outline::outline(language, "x = <a></a>");
    }
}

/// What the model is asked, before the chat template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PromptParts {
    /// The system message; the same for every request of a strategy.
    pub system: Option<String>,
    /// The user's message: the instruction, the same for every request of a strategy, then the code.
    pub user: String,
    /// What the client should know about how the prompt was made.
    pub notes: Vec<String>,
    /// The language, as given or as detected, in canonical form; `None` if it could not be told.
    pub language: Option<String>,
}

/// Writes the prompt for a snippet.
///
/// `language` is the client's word for it; `None` and an empty one ask for detection. One that [`parse_language`]
/// refuses is taken for none, and a note says so: who wants to refuse the request calls that first.
pub fn build(strategy: Strategy, code: &str, language: Option<&str>) -> PromptParts {
    build_with(strategy, code, language, &[])
}

/// As [`build`], with what [`Strategy::RetrievalAugmented`] quotes.
pub fn build_with(
    strategy: Strategy,
    code: &str,
    language: Option<&str>,
    references: &[Reference<'_>],
) -> PromptParts {
    let mut notes = Vec::new();
    let given = parse_language(language.unwrap_or_default()).unwrap_or_else(|refused| {
        notes.push(format!("the language {refused}; it was ignored"));
        None
    });
    let language = given.or_else(|| detect::detect(code).map(|found| found.name.to_owned()));
    let parts = build_known(strategy, code, language, references, &Limit::none());
    notes.extend(parts.notes);
    PromptParts { notes, ..parts }
}

/// As [`build_with`], for a language that was told from the code before, in its canonical form; `None`: it cannot be told.
/// Where `limit` is over before the outline is there, the prompt has none.
pub fn build_known(
    strategy: Strategy,
    code: &str,
    language: Option<String>,
    references: &[Reference<'_>],
    limit: &Limit,
) -> PromptParts {
    let mut notes = Vec::new();
    let mut user = format!("{INSTRUCTION}\n\n");
    if strategy == Strategy::AstAugmented
        && let Some(outline) = outline_text(code, language.as_deref(), limit, &mut notes)
    {
        user.push_str(OUTLINE_HEADING);
        for line in outline.lines() {
            user.push_str("\n- ");
            user.push_str(line.trim_start());
        }
        user.push_str("\n\n");
    }
    if strategy == Strategy::RetrievalAugmented {
        reference::push_references(&mut user, references);
    }
    push_fenced(&mut user, code, language.as_deref().unwrap_or_default());
    PromptParts {
        system: Some(SYSTEM.to_owned()),
        user,
        notes,
        language,
    }
}

/// The outline's text. Without one, a note says why, and the prompt is the one of [`Strategy::Vanilla`].
fn outline_text(
    code: &str,
    language: Option<&str>,
    limit: &Limit,
    notes: &mut Vec<String>,
) -> Option<String> {
    let Some(name) = language else {
        notes.push(
            "the language could not be told from the code; explained without an outline".to_owned(),
        );
        return None;
    };
    let Some(language) = Language::from_name(name) else {
        notes.push(format!(
            "there are no outlines for {name}; explained without one"
        ));
        return None;
    };
    let Some(outline) = outline::outline_within(language, code, limit) else {
        notes.push("the code takes too long to parse; explained without an outline".to_owned());
        return None;
    };
    if let Some(line) = outline.error_line {
        notes.push(format!(
            "the code has syntax errors near line {line}; outlined what could be parsed"
        ));
    }
    if outline.cut {
        notes.push(format!(
            "only the first {} KiB were outlined",
            outline::MAX_SOURCE_BYTES / 1024
        ));
    }
    if outline.is_empty() {
        notes.push("nothing to outline in the code; explained without an outline".to_owned());
        return None;
    }
    Some(outline.to_string())
}

/// Appends code in a Markdown fence that is longer than any run of backticks inside.
fn push_fenced(text: &mut String, code: &str, language: &str) {
    let longest = code.split(|c| c != '`').map(str::len).max().unwrap_or(0);
    let fence = "`".repeat(longest.max(2) + 1);
    // The word after a fence ends at white space.
    let info = language.replace(char::is_whitespace, "-");
    text.push_str(&fence);
    text.push_str(&info);
    text.push('\n');
    text.push_str(code);
    if !code.ends_with('\n') {
        text.push('\n');
    }
    text.push_str(&fence);
}
