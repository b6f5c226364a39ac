//! Parsing with bounds: hostile input costs a bounded amount of work.
//!
//! The first bound counts the parser's operations and the bytes that its lexer reads, against how far it has come: so the
//! same code gives the same tree on a busy machine as on an idle one, and text whose every token costs much is given up
//! where it begins and not at its end.
//!
//! An operation costs as much as the parser has open: error recovery goes through all of it, frees it by recursion, and
//! looks neither at a clock nor at what the caller wants. So there is a bound to what is open, and to the memory that is
//! taken; with them an operation is short, and the caller's [`Limit`] of time, looked at between operations, holds.
//!
//! The bounds were chosen by what ordinary code of eight languages needs, in files of 64 KiB with and without errors: at
//! most 2 operations and 70 bytes of memory for each byte, and 56 nodes open at once. `make fuzz-cost` looks for texts that
//! cost much within them.

mod memory;

use code_explainer_host::cpu::Limit;
use memory::Held;

use super::language::Language;
use std::cell::Cell;
use std::ops::ControlFlow;
use std::sync::OnceLock;
use tree_sitter::{ParseOptions, Parser, Tree};

/// Operations of the parser for each call of its progress callback: tree-sitter's own number.
const OPERATIONS_PER_CALL: usize = 100;
/// Operations that a parse may be ahead of [`OPERATIONS_PER_BYTE`].
const OPERATIONS_AHEAD: usize = 20_000;
/// Operations for each byte up to where the parser is.
const OPERATIONS_PER_BYTE: usize = 8;
/// Bytes that the lexer is given at a time: what it reads twice within of a piece is not counted.
const PIECE_BYTES: usize = 256;
/// Bytes that the lexer may read ahead of [`READS_PER_BYTE`]: a few times all of the longest code.
const READ_AHEAD: usize = 256 * 1024;
/// Bytes that it may read for each byte up to where the parser is.
const READS_PER_BYTE: usize = 16;
/// Nodes of the parser's stack at once, over all the ways to read the text that it follows: what is nested takes a few for
/// each level. The end of a parse goes through them up to 64 times for each way.
const OPEN_NODES: isize = 2_048;
/// Bytes of memory that a parse may be ahead of [`MEMORY_PER_BYTE`].
const MEMORY_AHEAD: isize = 1 << 20;
/// Bytes of memory for each byte of the text: a line of one letter takes 270.
const MEMORY_PER_BYTE: isize = 400;

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

/// Parses code, or gives up: `None` when that takes more work than the bounds allow, or than `limit` does.
pub(super) fn parse(syntax: Syntax, code: &str, limit: &Limit) -> Option<Tree> {
    memory::count();
    let work = Work::new(limit, code.len());
    let mut parser = Parser::new();
    parser.set_language(syntax.grammar()).ok()?;
    let mut progress = |state: &tree_sitter::ParseState| {
        work.operations(state.current_byte_offset());
        match work.gave_up.get() {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    };
    let bytes = code.as_bytes();
    // The text goes on after it was given up: to tell the lexer that it ends, in the middle of a character, would have
    // tree-sitter read from a null pointer. A token ends with the text, so until the next call of `progress` this is short.
    let mut read = |offset: usize, _| -> &[u8] {
        let rest = bytes.get(offset..).unwrap_or_default();
        let piece = &rest[..rest.len().min(PIECE_BYTES)];
        work.read(piece.len());
        piece
    };
    let tree = parser.parse_with_options(
        &mut read,
        None,
        Some(ParseOptions::new().progress_callback(&mut progress)),
    );
    tree.filter(|_| !work.gave_up.get())
}

/// What a parse has done so far.
struct Work<'a> {
    limit: &'a Limit,
    operations: Cell<usize>,
    read: Cell<usize>,
    /// The furthest that the parser has been.
    at: Cell<usize>,
    gave_up: Cell<bool>,
    /// What this thread held before.
    before: Held,
    most_memory: isize,
}

impl<'a> Work<'a> {
    fn new(limit: &'a Limit, bytes: usize) -> Self {
        Self {
            limit,
            operations: Cell::new(0),
            read: Cell::new(0),
            at: Cell::new(0),
            gave_up: Cell::new(false),
            before: Held::now(),
            most_memory: MEMORY_AHEAD + MEMORY_PER_BYTE * bytes as isize,
        }
    }

    /// The parser has done another [`OPERATIONS_PER_CALL`], and is at this byte.
    fn operations(&self, at: usize) {
        self.at.set(self.at.get().max(at));
        (self.operations).set(self.operations.get() + OPERATIONS_PER_CALL);
        self.check();
    }

    /// The lexer was given so many bytes.
    fn read(&self, bytes: usize) {
        self.read.set(self.read.get() + bytes);
        self.check();
    }

    fn check(&self) {
        let at = self.at.get();
        let held = Held::now().since(self.before);
        let too_much = held.nodes > OPEN_NODES
            || held.bytes > self.most_memory
            || self.operations.get() > OPERATIONS_AHEAD + OPERATIONS_PER_BYTE * at
            || self.read.get() > READ_AHEAD + READS_PER_BYTE * at;
        if !self.gave_up.get() && (too_much || self.limit.is_over()) {
            self.gave_up.set(true);
        }
    }
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

#[cfg(test)]
mod tests;
