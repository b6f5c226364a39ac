//! The walk's part for definitions: types, functions, and what binders name.

use super::grammar::{Body, Role};
use super::names::{self, Signature};
use super::walk::{MAX_LIST, Open, OpenKind, Walk, add};
use super::{Facts, Item};
use crate::prompt::language::Language;
use tree_sitter::Node;

/// Definitions that are kept at most.
const MAX_ITEMS: usize = 256;

/// Definitions nested deeper than this are not listed.
const MAX_ITEM_DEPTH: usize = 4;

impl Walk<'_> {
    pub(super) fn enter_type(
        &mut self,
        node: Node<'_>,
        level: usize,
        word: &'static str,
        body: Body,
    ) {
        if body == Body::Required && node.child_by_field_name("body").is_none() {
            return;
        }
        let mut name = names::field(node, "name", self.code);
        let bound = self.take_bound(node);
        let mut bases = names::field(node, "superclasses", self.code);
        if self.language == Language::Rust && word == "impl" {
            name = names::field(node, "type", self.code);
            let of = names::field(node, "trait", self.code);
            if !of.is_empty() {
                name = format!("{of} for {name}");
            }
        }
        if let Some(bound) = bound.filter(|_| name.is_empty()) {
            name = bound;
        }
        if name.is_empty() {
            return;
        }
        if bases.is_empty() {
            bases = self.bases(node);
        }
        let mut parameters = names::field(node, "parameters", self.code)
            .trim_matches(['(', ')'])
            .to_owned();
        if bases.starts_with("extends") || bases.starts_with("implements") {
            name = format!("{name} {bases}");
        } else if !bases.is_empty() {
            parameters = bases.trim_matches(['(', ')']).to_owned();
        }
        self.open_item(
            level,
            word,
            false,
            Signature {
                name,
                parameters,
                returns: String::new(),
            },
        );
    }

    /// What a type is derived from, as written.
    fn bases(&self, node: Node<'_>) -> String {
        const CLAUSES: &[&str] = &[
            "class_heritage",
            "extends_type_clause",
            "superclass",
            "super_interfaces",
            "extends_interfaces",
            "base_class_clause",
            "trait_bounds",
        ];
        let mut cursor = node.walk();
        let clauses: Vec<String> = node
            .named_children(&mut cursor)
            .take(MAX_LIST)
            .filter(|child| CLAUSES.contains(&child.kind()))
            .map(|child| names::text(child, self.code))
            .collect();
        clauses.join(" ").trim_start_matches([':', ' ']).to_owned()
    }

    pub(super) fn enter_function(&mut self, node: Node<'_>, level: usize) {
        let declares = matches!(node.kind(), "declaration" | "field_declaration");
        let in_function = self.current().is_some_and(|item| item.is_function);
        if declares && in_function {
            return;
        }
        let Some(signature) = names::function(node, self.language, self.code) else {
            if node.kind() == "field_declaration" {
                self.members(names::members(node, self.code));
            }
            return;
        };
        let in_type = self
            .current()
            .is_some_and(|item| !matches!(item.word, "module" | "namespace" | "function"));
        let word = match node.kind() {
            "preproc_function_def" => "macro",
            _ if in_type || signature.name.contains(['.', ':']) => "method",
            _ => "function",
        };
        self.open_item(level, word, true, signature);
    }

    pub(super) fn bind(&mut self, node: Node<'_>, name: &str, value: &str) {
        let Some(target) = node.child_by_field_name(name) else {
            return;
        };
        let value = node.child_by_field_name(value).map(|mut value| {
            // Go binds lists to lists.
            if value.kind() == "expression_list" && value.named_child_count() == 1 {
                value = value.named_child(0).unwrap_or(value);
            }
            value
        });
        let role = value.and_then(|value| self.roles.get(usize::from(value.kind_id())));
        if let (Some(Role::Closure | Role::Type(..)), Some(value)) = (role, value) {
            let name = names::text(target, self.code);
            self.bound = Some((
                value.id(),
                names::last_part(&name).trim_start_matches('*').to_owned(),
            ));
        } else if node.kind() != "pair" && self.current().is_some_and(|item| item.word != "enum") {
            let name = names::innermost(target).unwrap_or(target);
            self.members(vec![names::text(name, self.code)]);
        }
    }

    pub(super) fn take_bound(&mut self, node: Node<'_>) -> Option<String> {
        self.bound
            .take_if(|(id, _)| *id == node.id())
            .map(|(_, name)| name)
            .filter(|name| !name.is_empty())
    }

    pub(super) fn open_item(
        &mut self,
        level: usize,
        word: &'static str,
        is_function: bool,
        signature: Signature,
    ) {
        let depth = self.items_around.len();
        if self.outline.items.len() >= MAX_ITEMS || depth >= MAX_ITEM_DEPTH {
            self.outline.omitted += 1;
            return;
        }
        let Signature {
            name,
            parameters,
            returns,
        } = signature;
        let facts = Facts::default_for(self.language);
        let members = Vec::new();
        self.outline.items.push(Item {
            word,
            name,
            is_function,
            parameters,
            returns,
            members,
            depth,
            facts,
        });
        self.items_around.push(self.outline.items.len() - 1);
        let loops_around = std::mem::take(&mut self.loops);
        self.open.push(Open {
            level,
            kind: OpenKind::Item { loops_around },
        });
    }

    pub(super) fn members(&mut self, names: Vec<String>) {
        if let Some(index) = self.current_index() {
            let item = &mut self.outline.items[index];
            if !item.is_function && !matches!(item.word, "module" | "namespace" | "impl") {
                names
                    .into_iter()
                    .for_each(|name| add(&mut item.members, name));
            }
        }
    }
}
