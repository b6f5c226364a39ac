//! What single nodes refer to: functions called, exceptions raised and caught, modules imported.

use super::names::{field, shorten, text};
use crate::prompt::language::Language;
use tree_sitter::Node;

/// What a call calls.
pub(super) struct Callee {
    /// The object or module that it is called on; empty for a bare name.
    pub receiver: String,
    /// The last part of its name.
    pub name: String,
    /// The path as written, or the name alone where the receiver is no plain path.
    pub path: String,
    /// Where the name starts, in bytes.
    pub at: usize,
}

/// What a call calls; `None` when that is no name at all but, say, the result of another call.
pub(super) fn callee(
    node: Node<'_>,
    name_field: &str,
    language: Language,
    code: &str,
) -> Option<Callee> {
    let named = node.child_by_field_name(name_field)?;
    let parts = |object: &str, name: &str| {
        Some((
            named.child_by_field_name(object),
            named.child_by_field_name(name)?,
        ))
    };
    let (object, name) = match named.kind() {
        // Java keeps the object in a field of the call's own.
        _ if language == Language::Java => (node.child_by_field_name("object"), named),
        "attribute" => parts("object", "attribute")?,
        "member_expression" => parts("object", "property")?,
        "field_expression" if language == Language::Rust => parts("value", "field")?,
        "field_expression" => parts("argument", "field")?,
        "selector_expression" => parts("operand", "field")?,
        "scoped_identifier" => parts("path", "name")?,
        "qualified_identifier" => parts("scope", "name")?,
        "generic_function" => (None, named.child_by_field_name("function")?),
        "identifier" | "template_function" | "type_identifier" => (None, named),
        _ => return None,
    };
    let receiver = object.map(|object| text(object, code)).unwrap_or_default();
    let name_text = without_type_arguments(&text(name, code)).to_owned();
    let plain = receiver
        .chars()
        .all(|c| c.is_alphanumeric() || matches!(c, '_' | '.' | ':' | '$' | '#'));
    let path = match object {
        Some(object) if plain => {
            let written = shorten(
                code.get(object.start_byte()..name.end_byte())
                    .unwrap_or_default(),
            );
            without_type_arguments(&written).replace(' ', "")
        }
        _ => name_text.clone(),
    };
    Some(Callee {
        receiver,
        name: name_text,
        path,
        at: name.start_byte(),
    })
}

fn without_type_arguments(text: &str) -> &str {
    text.split('<').next().unwrap_or(text)
}

/// What a catch clause catches.
pub(super) fn caught(node: Node<'_>, language: Language, code: &str) -> String {
    let caught = match language {
        // What JavaScript names in a catch clause is a variable and not a type.
        Language::JavaScript | Language::TypeScript => return "errors".to_owned(),
        Language::Java => Some(node),
        Language::Cpp => node
            .child_by_field_name("parameters")
            .and_then(|list| list.named_child(0))
            .and_then(|parameter| parameter.child_by_field_name("type")),
        // `except ValueError as e`.
        _ => node
            .child_by_field_name("value")
            .map(|value| match value.kind() {
                "as_pattern" => value.named_child(0).unwrap_or(value),
                _ => value,
            }),
    };
    caught.map_or_else(
        || "anything".to_owned(),
        |caught| text(caught, code).trim_matches(['(', ')']).to_owned(),
    )
}

/// What an exception's statement raises: "ValueError" of `raise ValueError("…")`; empty for one that raises again what
/// was caught.
pub(super) fn raised(node: Node<'_>, code: &str) -> String {
    let Some(value) = node.named_child(0) else {
        return String::new();
    };
    let name = ["function", "constructor", "type"]
        .into_iter()
        .find_map(|name| value.child_by_field_name(name));
    text(name.unwrap_or(value), code)
}

/// The modules or names that an import brings in.
pub(super) fn imported(node: Node<'_>, language: Language, code: &str) -> Vec<String> {
    match language {
        Language::Python => python_imports(node, code),
        Language::Rust => vec![field(node, "argument", code)],
        Language::JavaScript | Language::TypeScript => vec![unquoted(&field(node, "source", code))],
        Language::Go | Language::C | Language::Cpp => vec![unquoted(&field(node, "path", code))],
        Language::Java => {
            let written = text(node, code);
            let path = written
                .trim_start_matches("import ")
                .trim_start_matches("static ");
            vec![path.trim_end_matches(';').trim_end().to_owned()]
        }
    }
}

/// "os", "numpy" of `import os, numpy as np`; "collections.deque" of `from collections import deque`.
fn python_imports(node: Node<'_>, code: &str) -> Vec<String> {
    let module = field(node, "module_name", code);
    let mut cursor = node.walk();
    let names: Vec<String> = node
        .children_by_field_name("name", &mut cursor)
        .take(64)
        .map(|name| text(name.child_by_field_name("name").unwrap_or(name), code))
        .collect();
    match (module.is_empty(), names.is_empty()) {
        (true, _) => names,
        (false, true) => vec![format!("{module}.*")],
        (false, false) if module.ends_with('.') => names
            .into_iter()
            .map(|name| format!("{module}{name}"))
            .collect(),
        (false, false) => names
            .into_iter()
            .map(|name| format!("{module}.{name}"))
            .collect(),
    }
}

/// Text without the quotes or brackets around it.
pub(super) fn unquoted(text: &str) -> String {
    text.trim_matches(['"', '\'', '`', '<', '>']).to_owned()
}
