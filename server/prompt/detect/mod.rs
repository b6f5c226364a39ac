//! Telling a snippet's language from the snippet.
//!
//! In this order: what the text itself declares ([`markers`]), then a score of the features that its lines have
//! ([`tables`], [`others`]), corrected for the best few candidates by how much of the text their grammars can parse. A
//! language is named only where something speaks for it; prose has none.

mod features;
mod markers;
mod others;
mod tables;

use super::language::{Language, canonical};
use super::parse::{self, Syntax, syntax_errors};
use features::{code_lines, score};

/// The most of a text that is looked at, in bytes.
pub const MAX_SAMPLE_BYTES: usize = 16 * 1024;

/// The most candidates whose grammars are tried.
const MAX_PARSED: usize = 4;

/// Score, in the tables' weights, below which nothing is named.
const THRESHOLD: f64 = 4.0;

/// What a text that parses without an error is worth.
const CLEAN_PARSE: f64 = 3.0;

/// What of a score errors can take away at most, and how much of the text has to be in error nodes for that.
const WORST_PENALTY: f64 = 0.8;
const WORST_ERRORS: f64 = 0.3;

/// What a language that extends another one starts with: without a feature of its own, the text is in the other one.
const EXTENSION_PRIOR: f64 = -1.5;

/// A language told from code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DetectedLanguage {
    /// Its canonical name, of an outlined language or of another.
    pub name: &'static str,
}

impl DetectedLanguage {
    /// The outlined language that it is, if it is one.
    pub fn outlined(self) -> Option<Language> {
        Language::from_name(self.name)
    }
}

/// Tells the language of a snippet, or `None` where nothing speaks for any.
///
/// Only the first [`MAX_SAMPLE_BYTES`] are looked at, so that the time is bounded. The same text always gives the same
/// answer.
pub fn detect(code: &str) -> Option<DetectedLanguage> {
    let sample = parse::prefix(code, MAX_SAMPLE_BYTES);
    let declared = markers::declared(sample);
    // Node also runs TypeScript: the script's first line does not tell the two apart.
    if let Some(name) = declared.filter(|name| *name != Language::JavaScript.as_str()) {
        return Some(DetectedLanguage { name });
    }
    let lines = code_lines(sample);
    let outlined = best_outlined(sample, &lines);
    let statements = f64::from(score(others::STATEMENTS, &lines));
    let data = others::DATA
        .iter()
        .map(|(name, features)| (*name, f64::from(score(features, &lines)) - statements));
    let other = others::OTHERS
        .iter()
        .map(|(name, features)| (*name, f64::from(score(features, &lines))))
        .chain(data)
        // The first of equals stays.
        .fold(None, |best: Option<(&str, f64)>, next| {
            if best.is_none_or(|b| next.1 > b.1) {
                Some(next)
            } else {
                best
            }
        });
    let name = match (outlined, other) {
        (Some((language, _)), _) if declared.is_some() && language == Language::TypeScript => {
            language.as_str()
        }
        _ if declared.is_some() => Language::JavaScript.as_str(),
        (Some((language, points)), Some((_, other))) if points >= THRESHOLD && points >= other => {
            language.as_str()
        }
        (_, Some((name, points))) if points >= THRESHOLD => name,
        _ => return None,
    };
    canonical(name).map(|name| DetectedLanguage { name })
}

/// The outlined language that the sample is most likely in, with its score.
fn best_outlined(sample: &str, lines: &[features::Line]) -> Option<(Language, f64)> {
    let of = |features| f64::from(score(features, lines));
    let (javascript, c) = (of(tables::javascript::JAVASCRIPT), of(tables::c::C));
    let mut candidates: Vec<(Language, f64)> = Language::ALL
        .into_iter()
        .map(|language| {
            let points = match language {
                Language::Python => of(tables::python::PYTHON),
                Language::Rust => of(tables::rust::RUST),
                Language::JavaScript => javascript,
                Language::TypeScript => {
                    javascript + of(tables::javascript::TYPESCRIPT) + EXTENSION_PRIOR
                }
                Language::Go => of(tables::go::GO),
                Language::Java => of(tables::java::JAVA),
                Language::C => c,
                Language::Cpp => c + of(tables::c::CPP) + EXTENSION_PRIOR,
            };
            (language, points)
        })
        .filter(|(_, points)| *points > 0.0)
        .collect();
    // Stable: equal candidates stay in the order of `Language::ALL`.
    candidates.sort_by(|a, b| b.1.total_cmp(&a.1));
    candidates.truncate(MAX_PARSED);
    candidates
        .into_iter()
        .map(|(language, points)| (language, corrected(language, points, sample)))
        .fold(None, |best: Option<(Language, f64)>, next| {
            if best.is_none_or(|b| next.1 > b.1) {
                Some(next)
            } else {
                best
            }
        })
}

/// A score corrected by how much of the sample is not in the language.
fn corrected(language: Language, points: f64, sample: &str) -> f64 {
    let errors = |syntax| parse::parse(syntax, sample).map(|tree| syntax_errors(&tree).bytes);
    let mut bytes = errors(Syntax::Plain(language));
    if language == Language::TypeScript && bytes != Some(0) {
        bytes = bytes.into_iter().chain(errors(Syntax::Tsx)).min();
    }
    // What is too much work to parse says nothing.
    let Some(bytes) = bytes else { return points };
    if bytes == 0 {
        return points + CLEAN_PARSE;
    }
    let ratio = bytes as f64 / sample.len().max(1) as f64;
    points * (1.0 - WORST_PENALTY * (ratio / WORST_ERRORS).min(1.0))
}
