//! The walk's part for calls: what is called from where, and who calls itself.

use super::walk::{MAX_LIST, Walk, add};
use super::{Outline, names, references};
use crate::prompt::language::Language;
use std::collections::{HashMap, HashSet};
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
        let items = &mut self.outline.items;
        let called = self.items_around.iter().copied().rfind(|index| {
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
        // By name, because each of hundreds of functions may call each other one: whom those of that name call.
        let mut functions: HashMap<String, HashSet<String>> = HashMap::new();
        for item in items.iter().filter(|item| item.is_function) {
            let calls = functions.entry(names::last_part(&item.name).to_owned());
            calls.or_default().extend(item.facts.calls.iter().cloned());
        }
        for item in items.iter_mut().filter(|item| item.is_function) {
            let own_name = names::last_part(&item.name);
            let calls = &mut item.facts.calls;
            calls.retain(|call| functions.contains_key(call));
            let back = |call: &&String| functions[*call].contains(own_name);
            item.facts.mutual = calls.iter().filter(back).cloned().collect();
        }
        self.outline
    }
}
