//! Telling a snippet's language from the snippet.
//!
//! In this order: what the text itself declares ([`markers`]), then a score of the features that its lines have
//! ([`tables`], [`others`]), corrected for the best few candidates by how much of the text their grammars can parse. A
//! language is named only where something speaks for it; prose has none.

mod features;
mod markers;
mod others;
mod tables;

use code_explainer_host::cpu::Limit;

use super::language::{Language, canonical};
use super::parse::{self, Syntax, syntax_errors};
use features::{code_lines, score};
use std::ops::ControlFlow;

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
    let mut detection = Detection::new(code);
    loop {
        if let ControlFlow::Break(found) = detection.try_next(code, &Limit::none()) {
            return found;
        }
    }
}

/// A detection on its way, so that others can have their turn between two grammars that are tried.
#[derive(Debug)]
pub struct Detection {
    declared: Option<&'static str>,
    /// The best of those that have no outline.
    other: Option<(&'static str, f64)>,
    /// Outlined languages that the words speak for, the best first. Those before `tried` were corrected.
    candidates: Vec<(Language, f64)>,
    tried: usize,
    best: Option<(Language, f64)>,
    unparsed: bool,
}

impl Detection {
    /// Reads what the code says by its words alone.
    pub fn new(code: &str) -> Self {
        let sample = parse::prefix(code, MAX_SAMPLE_BYTES);
        let declared = markers::declared(sample);
        let mut detection = Self {
            declared,
            other: None,
            candidates: Vec::new(),
            tried: 0,
            best: None,
            unparsed: false,
        };
        if detection.is_declared() {
            return detection;
        }
        let lines = code_lines(sample);
        detection.candidates = candidates(&lines);
        let statements = f64::from(score(others::STATEMENTS, &lines));
        let data = others::DATA
            .iter()
            .map(|(name, features)| (*name, f64::from(score(features, &lines)) - statements));
        detection.other = others::OTHERS
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
        detection
    }

    /// Tries the grammar of one more candidate on the same code, unless the language is told already.
    pub fn try_next(&mut self, code: &str, limit: &Limit) -> ControlFlow<Option<DetectedLanguage>> {
        let Some(&(language, points)) = self.candidates.get(self.tried) else {
            return ControlFlow::Break(self.told());
        };
        if self.stands_alone(points) {
            self.best = Some((language, points));
        }
        if self.is_decided(points) {
            return ControlFlow::Break(self.told());
        }
        let sample = parse::prefix(code, MAX_SAMPLE_BYTES);
        let corrected = corrected(language, points, sample, limit);
        self.unparsed |= corrected.is_none();
        // What is too much work to parse says nothing.
        let points = corrected.unwrap_or(points);
        // The first of equals stays.
        if self.best.is_none_or(|(_, best)| points > best) {
            self.best = Some((language, points));
        }
        self.tried += 1;
        ControlFlow::Continue(())
    }

    /// Whether a grammar was given up, so that the language was told without it.
    pub fn left_out_grammars(&self) -> bool {
        self.unparsed
    }

    /// Node also runs TypeScript: the script's first line does not tell the two apart.
    fn is_declared(&self) -> bool {
        (self.declared).is_some_and(|name| name != Language::JavaScript.as_str())
    }

    /// Whether the first candidate, with these points, would be told whatever the grammars say of it and of the others.
    fn stands_alone(&self, points: f64) -> bool {
        let least = points * (1.0 - WORST_PENALTY);
        let next = self.candidates.get(1).map_or(0.0, |(_, points)| *points);
        let other = self.other.map_or(0.0, |(_, points)| points);
        self.tried == 0 && least > next + CLEAN_PARSE && least >= THRESHOLD.max(other)
    }

    /// Whether no candidate from here on can be better than those before, where the next one has these points.
    fn is_decided(&self, points: f64) -> bool {
        self.best
            .is_some_and(|(_, best)| points + CLEAN_PARSE <= best)
    }

    fn told(&self) -> Option<DetectedLanguage> {
        if let Some(name) = self.declared.filter(|_| self.is_declared()) {
            return Some(DetectedLanguage { name });
        }
        let name = match (self.best, self.other) {
            (Some((language, _)), _)
                if self.declared.is_some() && language == Language::TypeScript =>
            {
                language.as_str()
            }
            _ if self.declared.is_some() => Language::JavaScript.as_str(),
            (Some((language, points)), Some((_, other)))
                if points >= THRESHOLD && points >= other =>
            {
                language.as_str()
            }
            (_, Some((name, points))) if points >= THRESHOLD => name,
            _ => return None,
        };
        canonical(name).map(|name| DetectedLanguage { name })
    }
}

/// The outlined languages that the lines' words speak for, the best first.
fn candidates(lines: &[features::Line]) -> Vec<(Language, f64)> {
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
}

/// A score corrected by how much of the sample is not in the language; `None` where that is too much work to find out.
fn corrected(language: Language, points: f64, sample: &str, limit: &Limit) -> Option<f64> {
    let errors =
        |syntax| parse::parse(syntax, sample, limit).map(|tree| syntax_errors(&tree).bytes);
    let mut bytes = errors(Syntax::Plain(language));
    if language == Language::TypeScript && bytes != Some(0) {
        bytes = bytes.into_iter().chain(errors(Syntax::Tsx)).min();
    }
    let bytes = bytes?;
    if bytes == 0 {
        return Some(points + CLEAN_PARSE);
    }
    let ratio = bytes as f64 / sample.len().max(1) as f64;
    Some(points * (1.0 - WORST_PENALTY * (ratio / WORST_ERRORS).min(1.0)))
}
