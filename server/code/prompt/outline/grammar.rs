//! What the nodes of each language's syntax tree mean for an outline.
//!
//! One [`Grammar`] per language names the kinds of nodes; the walk over the tree is the same for all. The tables are
//! in [`super::grammars`].

use super::grammars;
use crate::prompt::language::Language;
use crate::prompt::parse::Syntax;
use std::sync::OnceLock;

/// The kinds of nodes of one language that an outline is made of.
pub(super) struct Grammar {
    /// Statements that import modules.
    pub imports: &'static [&'static str],
    /// Definitions of types and of what else groups functions, with the word that introduces them in an outline. The
    /// last part says whether one without a body counts: in C, `struct point p` mentions a type and defines none.
    pub types: &'static [(&'static str, &'static str, Body)],
    /// Definitions and declarations of functions and methods.
    pub functions: &'static [&'static str],
    /// Functions without a name of their own. They are listed when a binder names them, and belong to the function
    /// around them otherwise.
    pub closures: &'static [&'static str],
    /// Nodes that give a name to a closure or a type: kind, field with the name, field with what it names.
    pub binders: &'static [(&'static str, &'static str, &'static str)],
    /// Loops, with the word for them.
    pub loops: &'static [(&'static str, &'static str)],
    /// Statements that raise an exception.
    pub raises: &'static [&'static str],
    /// Nodes that name what is caught.
    pub catches: &'static [&'static str],
    /// Calls: kind, field with the callee.
    pub calls: &'static [(&'static str, &'static str)],
    /// Functions and macros whose call raises, named by the last part of their path.
    pub raising_calls: &'static [&'static str],
    /// The word for raising.
    pub raise_word: &'static str,
    /// Nodes that make a remark about the function that they stand in.
    pub marks: &'static [(&'static str, &'static str)],
    /// Members of types that are listed by name: fields and variants.
    pub members: &'static [&'static str],
    /// Nodes that are passed over.
    pub skips: &'static [&'static str],
    /// How an object names itself in its own methods.
    pub receivers: &'static [&'static str],
    /// Whether a method may call a method of its own object by its bare name.
    pub bare_methods: bool,
}

/// Whether a type's definition needs a body to count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Body {
    /// It does.
    Required,
    /// It does not.
    Optional,
}

/// What one kind of node means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Nothing; its children may.
    Other,
    /// [`Grammar::imports`].
    Import,
    /// [`Grammar::types`].
    Type(&'static str, Body),
    /// [`Grammar::functions`].
    Function,
    /// [`Grammar::closures`].
    Closure,
    /// [`Grammar::binders`].
    Binder(&'static str, &'static str),
    /// [`Grammar::loops`].
    Loop(&'static str),
    /// [`Grammar::raises`].
    Raise,
    /// [`Grammar::catches`].
    Catch,
    /// [`Grammar::calls`].
    Call(&'static str),
    /// [`Grammar::marks`].
    Mark(&'static str),
    /// [`Grammar::members`].
    Member,
    /// [`Grammar::skips`].
    Skip,
}

impl Grammar {
    /// The table of a language.
    pub(super) fn of(language: Language) -> &'static Self {
        match language {
            Language::Python => &grammars::PYTHON,
            Language::Rust => &grammars::RUST,
            Language::JavaScript => &grammars::JAVASCRIPT,
            Language::TypeScript => &grammars::TYPESCRIPT,
            Language::Go => &grammars::GO,
            Language::Java => &grammars::JAVA,
            Language::C => &grammars::C,
            Language::Cpp => &grammars::CPP,
        }
    }

    /// Every kind that the table names, with its role.
    pub(super) fn kinds(&self) -> impl Iterator<Item = (&'static str, Role)> {
        let plain =
            |kinds: &'static [&'static str], role| kinds.iter().map(move |kind| (*kind, role));
        plain(self.imports, Role::Import)
            .chain(
                self.types
                    .iter()
                    .map(|(kind, word, body)| (*kind, Role::Type(word, *body))),
            )
            .chain(plain(self.functions, Role::Function))
            .chain(plain(self.closures, Role::Closure))
            .chain(
                self.binders
                    .iter()
                    .map(|(kind, name, value)| (*kind, Role::Binder(name, value))),
            )
            .chain(
                self.loops
                    .iter()
                    .map(|(kind, word)| (*kind, Role::Loop(word))),
            )
            .chain(plain(self.raises, Role::Raise))
            .chain(plain(self.catches, Role::Catch))
            .chain(
                self.calls
                    .iter()
                    .map(|(kind, field)| (*kind, Role::Call(field))),
            )
            .chain(
                self.marks
                    .iter()
                    .map(|(kind, word)| (*kind, Role::Mark(word))),
            )
            .chain(plain(self.members, Role::Member))
            .chain(plain(self.skips, Role::Skip))
    }
}

/// The role of each kind of node, indexed by the grammar's kind numbers. Made once per grammar.
pub(super) fn roles(syntax: Syntax, language: Language) -> &'static [Role] {
    static MADE: [OnceLock<Vec<Role>>; 9] = [const { OnceLock::new() }; 9];
    MADE[syntax.index()].get_or_init(|| {
        let grammar = syntax.grammar();
        let mut roles = vec![Role::Other; grammar.node_kind_count()];
        for (name, role) in Grammar::of(language).kinds() {
            // Several numbers can carry one name; keywords carry names too, but not as named nodes: "async".
            for id in 0..roles.len() as u16 {
                let marks = matches!(role, Role::Mark(_));
                if grammar.node_kind_for_id(id) == Some(name)
                    && (marks || grammar.node_kind_is_named(id))
                {
                    roles[usize::from(id)] = role;
                }
            }
        }
        roles
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A kind that a new version of a grammar renames would vanish from outlines without a word.
    #[test]
    fn every_kind_and_field_exists_in_its_grammar() {
        let syntaxes = Language::ALL
            .into_iter()
            .map(|l| (Syntax::Plain(l), l))
            .chain([(Syntax::Tsx, Language::TypeScript)]);
        for (syntax, language) in syntaxes {
            let grammar = syntax.grammar();
            let exists = |kind: &str| {
                [true, false]
                    .into_iter()
                    .any(|named| grammar.id_for_node_kind(kind, named) != 0)
            };
            for (kind, role) in Grammar::of(language).kinds() {
                assert!(exists(kind), "{language:?} has no node {kind}");
                match role {
                    Role::Binder(name, value) => {
                        assert!(
                            grammar.field_id_for_name(name).is_some(),
                            "{language:?} has no field {name}"
                        );
                        assert!(
                            grammar.field_id_for_name(value).is_some(),
                            "{language:?} has no field {value}"
                        );
                    }
                    Role::Call(field) => {
                        assert!(
                            grammar.field_id_for_name(field).is_some(),
                            "{language:?} has no field {field}"
                        );
                    }
                    _ => {}
                }
            }
        }
    }
}
