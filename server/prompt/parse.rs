//! Parsing with bounds: hostile input costs a bounded amount of work.
//!
//! The bound is a number of the parser's operations and not a time, so that the same code gives the same outline on a
//! busy machine as on an idle one.

use super::language::Language;
use std::ops::ControlFlow;
use std::sync::OnceLock;
use tree_sitter::{ParseOptions, Parser, Tree};

/// Calls of the progress callback after which a parse is given up. tree-sitter makes one per hundred operations of its
/// parser; ordinary code costs well under one operation per byte, and two million operations a second were measured on
/// the worst text that was tried.
const MAX_PROGRESS_CALLS: usize = 10_000;

/// One grammar of tree-sitter. TypeScript has two: in one `<T>x` is a cast, in the other it opens an element.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Syntax {
    /// The one grammar of a language, and the plain one of TypeScript.
    Plain(Language),
    /// TypeScript with JSX elements.
    Tsx,
}

impl Syntax {
    /// The grammar, made once per process.
    pub(super) fn grammar(self) -> &'static tree_sitter::Language {
        static LOADED: [OnceLock<tree_sitter::Language>; 9] = [const { OnceLock::new() }; 9];
        let function = match self {
            Self::Plain(Language::Python) => tree_sitter_python::LANGUAGE,
            Self::Plain(Language::Rust) => tree_sitter_rust::LANGUAGE,
            Self::Plain(Language::JavaScript) => tree_sitter_javascript::LANGUAGE,
            Self::Plain(Language::TypeScript) => tree_sitter_typescript::LANGUAGE_TYPESCRIPT,
            Self::Plain(Language::Go) => tree_sitter_go::LANGUAGE,
            Self::Plain(Language::Java) => tree_sitter_java::LANGUAGE,
            Self::Plain(Language::C) => tree_sitter_c::LANGUAGE,
            Self::Plain(Language::Cpp) => tree_sitter_cpp::LANGUAGE,
            Self::Tsx => tree_sitter_typescript::LANGUAGE_TSX,
        };
        LOADED[self.index()].get_or_init(|| function.into())
    }

    /// A small number of its own, for tables.
    pub(super) fn index(self) -> usize {
        match self {
            Self::Plain(language) => language as usize,
            Self::Tsx => Language::ALL.len(),
        }
    }
}

/// Parses code, or gives up: `None` when that takes more work than the bound allows.
pub(super) fn parse(syntax: Syntax, code: &str) -> Option<Tree> {
    let mut parser = Parser::new();
    parser.set_language(syntax.grammar()).ok()?;
    let mut calls = 0usize;
    let mut progress = |_: &tree_sitter::ParseState| {
        calls += 1;
        if calls > MAX_PROGRESS_CALLS {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    };
    let bytes = code.as_bytes();
    parser.parse_with_options(
        &mut |offset, _| bytes.get(offset..).unwrap_or_default(),
        None,
        Some(ParseOptions::new().progress_callback(&mut progress)),
    )
}

/// What of a parsed text is not in the language.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct SyntaxErrors {
    /// Line of the first error, counted from 1.
    pub first_line: Option<usize>,
    /// Bytes of tokens that stand outside of every rule of the grammar, plus one for each token that the parser had to
    /// make up. A whole statement inside of an unclosed block does not count: it is in the language.
    pub bytes: usize,
}

/// Finds the syntax errors of a tree, without recursion.
pub(super) fn syntax_errors(tree: &Tree) -> SyntaxErrors {
    let mut found = SyntaxErrors::default();
    let mut cursor = tree.walk();
    // Of each node around the current one, whether it is an error.
    let mut around: Vec<bool> = Vec::new();
    loop {
        let node = cursor.node();
        let wrong = node.is_error() || node.is_missing();
        let leaf = node.child_count() == 0;
        if leaf && (wrong || around.last() == Some(&true)) && !node.is_extra() {
            found
                .first_line
                .get_or_insert(node.start_position().row + 1);
            found.bytes += (node.end_byte() - node.start_byte()).max(1);
        }
        if !leaf && (wrong || node.has_error()) && cursor.goto_first_child() {
            around.push(node.is_error());
            continue;
        }
        while !cursor.goto_next_sibling() {
            if !cursor.goto_parent() {
                // An error node may hold nothing but what is well-formed in itself.
                if tree.root_node().has_error() {
                    found.first_line.get_or_insert(1);
                }
                return found;
            }
            around.pop();
        }
    }
}

/// The longest prefix of `text` of at most `limit` bytes, cut after a line where there is one and never inside of a
/// character.
pub(super) fn prefix(text: &str, limit: usize) -> &str {
    if text.len() <= limit {
        return text;
    }
    let cut = &text[..text.floor_char_boundary(limit)];
    match cut.rfind('\n') {
        Some(end) => &cut[..=end],
        None => cut,
    }
}
