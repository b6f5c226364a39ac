//! Outlines: what a snippet's syntax tree says about it, in a few lines of plain text.
//!
//! [`outline`] parses the snippet ([`super::parse`]), walks its tree once ([`walk`]) by the language's table of node
//! kinds ([`grammar`]), and keeps a bounded list of [`Item`]s. [`Outline`] displays as the text for the model
//! ([`render`]).

mod calls;
mod definitions;
mod grammar;
mod grammars;
mod names;
mod references;
mod render;
mod walk;

pub use render::{MAX_OUTLINE_BYTES, MAX_OUTLINE_LINES};

use code_explainer_host::cpu::Limit;

use super::language::Language;
use super::parse::{self, Syntax, syntax_errors};

/// The longest code that is outlined; of longer code, the beginning is.
pub const MAX_SOURCE_BYTES: usize = 64 * 1024;

/// What a snippet consists of, in order of appearance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outline {
    /// The language that it was parsed as.
    pub language: Language,
    /// Modules and names imported.
    pub imports: Vec<String>,
    /// Types, functions and methods. A nested one follows what it is nested in.
    pub items: Vec<Item>,
    /// What the code outside of all functions does.
    pub top_level: Facts,
    /// Definitions beyond the number or the nesting that is kept.
    pub omitted: usize,
    /// Line of the first syntax error, counted from 1. What the parser could still make sense of is outlined.
    pub error_line: Option<usize>,
    /// The code was longer than [`MAX_SOURCE_BYTES`]; only its beginning is outlined.
    pub cut: bool,
}

/// A type, a function or a method.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// The word for what it is: "function", "class", "trait".
    pub word: &'static str,
    /// Its name.
    pub name: String,
    /// Whether it is a function or method, and not a type.
    pub is_function: bool,
    /// Parameters as written, without the parentheses and the receiver; of a type, what it is derived from.
    pub parameters: String,
    /// Return type as written; empty where none is.
    pub returns: String,
    /// Fields or variants of a type.
    pub members: Vec<String>,
    /// How deep it is nested in other items: 0 is outermost.
    pub depth: usize,
    /// What its code does, without that of items nested in it.
    pub facts: Facts,
}

/// What a function's code does.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Facts {
    /// It calls itself.
    pub recursive: bool,
    /// Functions of the snippet that it calls and that call it.
    pub mutual: Vec<String>,
    /// Each innermost loop with the loops around it, outermost first: "for > while".
    pub loops: Vec<String>,
    /// How deep loops are nested; 0 without loops.
    pub loop_depth: usize,
    /// Exceptions raised, or calls that end the thread or the program.
    pub raises: Vec<String>,
    /// Exceptions caught.
    pub catches: Vec<String>,
    /// Functions called, by the last part of their path or as written at the top level.
    pub calls: Vec<String>,
    /// Remarks: "async", "generator", "starts goroutines".
    pub marks: Vec<&'static str>,
    /// The word of the language for raising: "raises", "throws", "may panic".
    pub raise_word: &'static str,
}

impl Outline {
    /// Whether nothing of note was found.
    pub fn is_empty(&self) -> bool {
        self.imports.is_empty()
            && self.items.is_empty()
            && self.top_level == Facts::default_for(self.language)
    }
}

impl Facts {
    /// The facts of code that does nothing of note.
    fn default_for(language: Language) -> Self {
        Self {
            raise_word: grammar::Grammar::of(language).raise_word,
            ..Self::default()
        }
    }
}

/// Outlines a snippet; `None` when parsing it takes more work than is allowed, as text does that was made for it.
pub fn outline(language: Language, code: &str) -> Option<Outline> {
    outline_within(language, code, &Limit::none())
}

/// As [`outline`]; `None` also when `limit` is over before the end.
pub fn outline_within(language: Language, code: &str, limit: &Limit) -> Option<Outline> {
    let source = parse::prefix(code, MAX_SOURCE_BYTES);
    let mut syntax = Syntax::Plain(language);
    let mut tree = parse::parse(syntax, source, limit)?;
    let mut errors = syntax_errors(&tree);
    if language == Language::TypeScript
        && errors.bytes > 0
        && let Some(tsx) = parse::parse(Syntax::Tsx, source, limit)
    {
        let tsx_errors = syntax_errors(&tsx);
        if tsx_errors.bytes < errors.bytes {
            (syntax, tree, errors) = (Syntax::Tsx, tsx, tsx_errors);
        }
    }
    let roles = grammar::roles(syntax, language);
    let mut outline = walk::walk(roles, language, &tree, source, limit)?;
    outline.error_line = errors.first_line;
    outline.cut = source.len() < code.len();
    Some(outline)
}
