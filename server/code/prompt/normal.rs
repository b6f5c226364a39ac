//! What is the same about two texts of the same code: for keys of cached answers, where the operator wants it.
//!
//! Whitespace is not removed from the text, which would change what some texts mean: the syntax trees are compared. What is
//! a block in Python, where a statement ends in JavaScript and what is in a string is in the tree, and so stays told apart.
//! Code that a grammar does not fully understand, or that has none, is the same only as itself.

use code_explainer_host::cpu::Limit;
use tree_sitter::Node;

use super::language::Language;
use super::parse::{self, Syntax};

/// Separates these hashes from every other use of BLAKE3's key derivation.
const CONTEXT: &str = "code-explainer 2026-11 normal form of code";

/// What two texts may differ in and have the same answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Normalize {
    /// In nothing
    #[default]
    Off,
    /// In whitespace that means nothing
    Whitespace,
    /// In comments, and in whitespace that means nothing
    Comments,
}

/// A hash of the code's normal form; `None`: it has none, or `limit` is over before it is found.
pub fn normal_form(
    code: &str,
    language: Option<&str>,
    how: Normalize,
    limit: &Limit,
) -> Option<[u8; 32]> {
    if how == Normalize::Off {
        return None;
    }
    let language = Language::from_name(language?)?;
    let tsx = || (language == Language::TypeScript).then_some(Syntax::Tsx);
    let (syntax, tree) = [Some(Syntax::Plain(language)), tsx()]
        .into_iter()
        .flatten()
        .filter_map(|syntax| Some((syntax, parse::parse(syntax, code, limit)?)))
        .find(|(_, tree)| !tree.root_node().has_error())?;
    let mut hasher = blake3::Hasher::new_derive_key(CONTEXT);
    hasher.update(&[how as u8, syntax.index() as u8]);
    let mut form = Form {
        hasher,
        code,
        comments: how == Normalize::Whitespace,
        read: 0,
    };
    let mut cursor = tree.walk();
    loop {
        if form.enter(cursor.node()) && cursor.goto_first_child() {
            continue;
        }
        while !cursor.goto_next_sibling() {
            if !cursor.goto_parent() {
                return Some(*form.hasher.finalize().as_bytes());
            }
            form.hasher.update(b")");
        }
    }
}

/// The tree as it is read. Every part begins with a byte that says what it is, and texts with their lengths, so that no
/// two trees are written alike.
struct Form<'a> {
    hasher: blake3::Hasher,
    code: &'a str,
    comments: bool,
    /// Where the last leaf ended.
    read: usize,
}

impl Form<'_> {
    /// Writes the beginning of a node. False: all of it is written.
    fn enter(&mut self, node: Node<'_>) -> bool {
        let kind = node.kind();
        if node.is_extra() && kind == "line_continuation" {
            self.read = node.end_byte();
            return false;
        }
        if node.is_extra() && kind.contains("comment") {
            if self.comments {
                self.leaf(node);
            }
            self.read = node.end_byte();
            return false;
        }
        if node.child_count() == 0 || is_literal(kind) {
            self.leaf(node);
            return false;
        }
        self.hasher.update(b"(");
        self.text(kind);
        true
    }

    fn leaf(&mut self, node: Node<'_>) {
        // What the grammar passes over without a node of its own is no token; but it is not known to mean nothing.
        let gap = self.code.get(self.read..node.start_byte());
        let gap = gap.unwrap_or_default().trim();
        if !gap.is_empty() {
            self.hasher.update(b"?");
            self.text(gap);
        }
        self.hasher.update(b".");
        self.text(node.kind());
        let text = &self.code[node.byte_range()];
        // A line's end that is a token is the same however many lines it takes.
        self.text(if text.trim().is_empty() {
            ""
        } else {
            text.trim_end_matches(['\r', '\n'])
        });
        self.read = node.end_byte();
    }

    fn text(&mut self, text: &str) {
        self.hasher.update(&(text.len() as u64).to_le_bytes());
        self.hasher.update(text.as_bytes());
    }
}

/// Nodes in which whitespace may mean something, and which are taken as they are written.
fn is_literal(kind: &str) -> bool {
    let conditional = [
        "preproc_if",
        "preproc_ifdef",
        "preproc_else",
        "preproc_elif",
    ];
    ["string", "template", "char", "regex", "rune", "jsx_text"]
        .iter()
        .any(|part| kind.contains(part) && !kind.contains("template_argument"))
        || (kind.starts_with("preproc_") && !conditional.contains(&kind))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(language: &str, how: Normalize, a: &str, b: &str, same: bool) {
        let form = |code| normal_form(code, Some(language), how, &Limit::none());
        assert!(form(a).is_some() && form(b).is_some(), "both parse");
        assert_eq!(form(a) == form(b), same, "{a:?} and {b:?}");
    }

    #[test]
    fn whitespace_that_means_nothing_is_passed_over() {
        let same = |language, a, b| check(language, Normalize::Whitespace, a, b, true);
        same("rust", "fn f(){1+ 2;}", "fn f() {\n    1 + 2;\n}\n");
        same(
            "python",
            "def f(x):\n  return x+1\n",
            "def f( x ):\n\n    return x + 1",
        );
        same(
            "javascript",
            "let a=1;\r\nlet b=[1,2];",
            "let a = 1;\n\n\nlet b = [1, 2];\n",
        );
        same(
            "go",
            "package a\nfunc f(){x:=1;_=x}",
            "package a\n\n\nfunc f() { x := 1; _ = x }",
        );
        same(
            "c",
            "int f(int a){return a;}",
            "int f(int a)\n{\n\treturn a;\n}",
        );
    }

    #[test]
    fn what_means_something_is_not() {
        let differ = |language, a, b| check(language, Normalize::Comments, a, b, false);
        differ(
            "python",
            "if a:\n    b()\n    c()\n",
            "if a:\n    b()\nc()\n",
        );
        differ("python", "x = 'a b'\n", "x = 'a  b'\n");
        differ("python", "x = '''a\n b'''\n", "x = '''a\n  b'''\n");
        differ(
            "javascript",
            "function f() { return\n1 }",
            "function f() { return 1 }",
        );
        differ("javascript", "x = `a ${b} c`", "x = `a ${b}  c`");
        differ("javascript", "x = a\n++b", "x = a++\nb");
        differ(
            "rust",
            "fn f() { g(\"a // b\") }",
            "fn f() { g(\"a // c\") }",
        );
        differ("rust", "fn f() { a - b; }", "fn f() { a + b; }");
        differ("c", "#define A 1\nint x;", "#define A 2\nint x;");
        differ("c", "#define A(x) x\nint y;", "#define A (x) x\nint y;");
        differ("c", "char *a = \"x y\";", "char *a = \"xy\";");
    }

    #[test]
    fn comments_count_unless_they_are_not_wanted() {
        for (language, a, b) in [
            ("rust", "/// Adds.\nfn f() { 1 } // one", "fn f() { 1 }"),
            ("python", "# why\nx = 1  # one\n", "x = 1\n"),
            ("c", "int x; /* one */", "int x;"),
        ] {
            check(language, Normalize::Comments, a, b, true);
            check(language, Normalize::Whitespace, a, b, false);
        }
        check(
            "python",
            Normalize::Comments,
            "x = '# a'\n",
            "x = '# b'\n",
            false,
        );
    }

    #[test]
    fn what_is_not_understood_has_no_normal_form() {
        let none = |code, language| {
            normal_form(code, language, Normalize::Comments, &Limit::none()).is_none()
        };
        assert!(none("fn f( {", Some("rust")));
        assert!(none("puts 1", Some("ruby")));
        assert!(none("x = 1", None));
        assert!(normal_form("x = 1", Some("python"), Normalize::Off, &Limit::none()).is_none());
    }
}
