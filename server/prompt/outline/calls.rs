//! The walk's part for calls: what is called from where, and who calls itself.

use super::walk::{MAX_LIST, OpenKind, Walk, add};
use super::{Outline, names, references};
use crate::prompt::language::Language;
use tree_sitter::Node;

impl Walk<'_> {
    pub(super) fn call(&mut self, node: Node<'_>, field: &str) {
        let Some(callee) = references::callee(node, field, self.language, self.code) else {
            return;
        };
        let references::Callee {
            receiver,
            name,
            path,
            at,
        } = callee;
        if name.is_empty() {
            return;
        }
        if name == "require" && receiver.is_empty() && self.language == Language::JavaScript {
            let module = node
                .child_by_field_name("arguments")
                .and_then(|list| list.named_child(0));
            if let Some(module) = module.filter(|module| module.kind() == "string") {
                add(
                    &mut self.outline.imports,
                    references::unquoted(&names::text(module, self.code)),
                );
                return;
            }
        }
        if self.grammar.raising_calls.contains(&name.as_str()) {
            add(&mut self.facts().raises, name);
            return;
        }
        let own = self.grammar.receivers.contains(&receiver.as_str());
        let mut open_items = self.open.iter().filter_map(|open| match open.kind {
            OpenKind::Item { index, .. } => Some(index),
            _ => None,
        });
        let items = &mut self.outline.items;
        let called = open_items.rfind(|index| {
            let item = &items[*index];
            // A method of a type in Go and C++ is named with it.
            let same = names::last_part(&item.name) == name;
            let reaches = match item.word {
                "method" => own || (self.grammar.bare_methods && receiver.is_empty()),
                _ => receiver.is_empty(),
            };
            item.is_function && same && reaches
        });
        if let Some(index) = called {
            items[index].facts.recursive = true;
            return;
        }
        if self.current().is_none() {
            if self.top_calls.len() < MAX_LIST {
                self.top_calls.push((at, path));
            }
        } else if self.current_function().is_some() && (receiver.is_empty() || own) {
            add(&mut self.facts().calls, name);
        }
    }

    /// Keeps of each function's calls those of the snippet's own functions, and finds pairs that call each other.
    pub(super) fn finish(mut self) -> Outline {
        self.top_calls.sort_by_key(|(at, _)| *at);
        for (_, path) in self.top_calls {
            add(&mut self.outline.top_level.calls, path);
        }
        let items = &mut self.outline.items;
        let functions: Vec<(String, Vec<String>)> = items
            .iter()
            .filter(|item| item.is_function)
            .map(|item| {
                (
                    names::last_part(&item.name).to_owned(),
                    item.facts.calls.clone(),
                )
            })
            .collect();
        for item in items.iter_mut().filter(|item| item.is_function) {
            let own_name = names::last_part(&item.name).to_owned();
            item.facts
                .calls
                .retain(|call| functions.iter().any(|(name, _)| name == call));
            item.facts.mutual = item
                .facts
                .calls
                .iter()
                .filter(|call| {
                    functions
                        .iter()
                        .any(|(name, calls)| name == *call && calls.contains(&own_name))
                })
                .cloned()
                .collect();
        }
        self.outline
    }
}
