//! Names, parameters and other texts taken from single nodes.

use crate::prompt::language::Language;
use tree_sitter::Node;

/// The most characters of one name or list of parameters.
const MAX_TEXT_CHARS: usize = 80;

/// Declarators within declarators that are followed: `int (*(*f)(int))[3]` has five.
const MAX_DECLARATORS: usize = 32;

/// A function as its definition names it.
pub(super) struct Signature {
    pub name: String,
    pub parameters: String,
    pub returns: String,
}

/// A node's text on one line, shortened to [`MAX_TEXT_CHARS`].
pub(super) fn text(node: Node<'_>, code: &str) -> String {
    shorten(code.get(node.byte_range()).unwrap_or_default())
}

/// Text with every run of white space made one space, shortened to [`MAX_TEXT_CHARS`].
pub(super) fn shorten(raw: &str) -> String {
    let mut line = String::new();
    let mut chars = 0;
    // The bound on what is looked at keeps a huge node cheap even when it is all white space.
    for c in raw.chars().take(MAX_TEXT_CHARS * 8) {
        let c = if c.is_whitespace() || c.is_control() {
            ' '
        } else {
            c
        };
        if c == ' ' && (line.is_empty() || line.ends_with(' ')) {
            continue;
        }
        if chars == MAX_TEXT_CHARS {
            line.truncate(line.trim_end().len());
            line.push('…');
            return line;
        }
        line.push(c);
        chars += 1;
    }
    line.truncate(line.trim_end().len());
    line
}

/// The text of a node's field, empty where it has none.
pub(super) fn field(node: Node<'_>, name: &str, code: &str) -> String {
    node.child_by_field_name(name)
        .map(|child| text(child, code))
        .unwrap_or_default()
}

/// The last part of a path: "push" of "self.items.push", "new" of "Vec::<u8>::new".
pub(super) fn last_part(path: &str) -> &str {
    let path = path.trim_end_matches('>');
    path.rsplit(['.', ':', '>', '?', '!'])
        .next()
        .unwrap_or(path)
}

/// The signature of a function's definition; `None` for a declaration that declares no function.
pub(super) fn function(node: Node<'_>, language: Language, code: &str) -> Option<Signature> {
    match language {
        Language::C | Language::Cpp => declared_function(node, code),
        _ => {
            let mut name = field(node, "name", code);
            if name.is_empty() {
                return None;
            }
            if let Some(receiver) = node.child_by_field_name("receiver") {
                name = format!("{}.{name}", receiver_type(&text(receiver, code)));
            }
            Some(Signature {
                name,
                parameters: parameters(node, language, code),
                returns: returns(node, language, code),
            })
        }
    }
}

/// The signature of a closure that `name` is bound to.
pub(super) fn closure(node: Node<'_>, name: String, language: Language, code: &str) -> Signature {
    // A C++ lambda keeps its parameters in a declarator.
    let holder = node.child_by_field_name("declarator").unwrap_or(node);
    Signature {
        name,
        parameters: parameters(holder, language, code),
        returns: returns(node, language, code),
    }
}

/// "Stack" of "(s *Stack[T])".
fn receiver_type(receiver: &str) -> &str {
    let inner = receiver.trim_matches(['(', ')']);
    let last = inner.rsplit([' ', '*']).next().unwrap_or(inner);
    last.split('[').next().unwrap_or(last)
}

fn parameters(node: Node<'_>, language: Language, code: &str) -> String {
    let found = node
        .child_by_field_name("parameters")
        .or_else(|| node.child_by_field_name("parameter"));
    let Some(list) = found else {
        return String::new();
    };
    let all = text(list, code);
    let inner = all.trim_start_matches(['(', '|']).trim_start();
    // A shortened list has lost its closing parenthesis.
    let inner = inner.strip_suffix([')', '|']).unwrap_or(inner).trim_end();
    let inner = inner.strip_suffix(',').unwrap_or(inner);
    let receivers: &[&str] = match language {
        Language::Python => &["self", "cls"],
        Language::Rust => &["self", "&self", "&mut self", "mut self"],
        Language::C | Language::Cpp => &["void"],
        _ => &[],
    };
    for receiver in receivers {
        if let Some(rest) = inner.strip_prefix(receiver) {
            if rest.is_empty() {
                return String::new();
            }
            if let Some(rest) = rest.strip_prefix(',') {
                return rest.trim_start().to_owned();
            }
        }
    }
    inner.to_owned()
}

fn returns(node: Node<'_>, language: Language, code: &str) -> String {
    let field_name = match language {
        Language::Go => "result",
        Language::Java | Language::C | Language::Cpp => "type",
        _ => "return_type",
    };
    let written = field(node, field_name, code);
    match written.trim_start_matches(':').trim_start() {
        "void" | "None" | "()" => String::new(),
        shown => shown.to_owned(),
    }
}

/// Follows the declarators of C down to a function's: `char *(f)(int)` declares `f`.
fn declared_function(node: Node<'_>, code: &str) -> Option<Signature> {
    if node.kind() == "preproc_function_def" {
        return Some(Signature {
            name: field(node, "name", code),
            parameters: parameters(node, Language::C, code),
            returns: String::new(),
        });
    }
    let mut pointers = String::new();
    let mut declarator = node.child_by_field_name("declarator")?;
    for _ in 0..MAX_DECLARATORS {
        match declarator.kind() {
            "function_declarator" => {
                let named = declarator.child_by_field_name("declarator")?;
                // `int (*compare)(int)` is a variable.
                if named.kind() == "parenthesized_declarator" {
                    return None;
                }
                let returns = returns(node, Language::C, code);
                let returns = if returns.is_empty() && !pointers.is_empty() {
                    "void".to_owned()
                } else {
                    returns
                };
                return Some(Signature {
                    name: text(named, code),
                    parameters: parameters(declarator, Language::C, code),
                    returns: format!("{returns}{pointers}"),
                });
            }
            "pointer_declarator" => pointers.push('*'),
            "reference_declarator" => pointers.push('&'),
            "operator_cast" => {
                let name = text(declarator, code);
                let name = name
                    .split('(')
                    .next()
                    .unwrap_or_default()
                    .trim_end()
                    .to_owned();
                return Some(Signature {
                    name,
                    parameters: String::new(),
                    returns: String::new(),
                });
            }
            _ => {}
        }
        declarator = declarator
            .child_by_field_name("declarator")
            .or_else(|| declarator.named_child(0))?;
    }
    None
}

/// The names that a field, a variant or a list of them declares.
pub(super) fn members(node: Node<'_>, code: &str) -> Vec<String> {
    let mut cursor = node.walk();
    // TypeScript's variants are plain names, or assignments to names.
    if node.kind() == "enum_body" {
        let variants: Vec<Node<'_>> = node.named_children(&mut cursor).take(64).collect();
        let named = variants
            .into_iter()
            .map(|variant| variant.child_by_field_name("name").unwrap_or(variant));
        return named.map(|name| text(name, code)).collect();
    }
    let named: Vec<Node<'_>> = node
        .children_by_field_name("name", &mut cursor)
        .take(64)
        .collect();
    if !named.is_empty() {
        return named.into_iter().map(|name| text(name, code)).collect();
    }
    let mut cursor = node.walk();
    let declarators: Vec<Node<'_>> = node
        .children_by_field_name("declarator", &mut cursor)
        .take(64)
        .collect();
    declarators
        .into_iter()
        .filter_map(|d| innermost(d))
        .map(|name| text(name, code))
        .collect()
}

/// The name inside of a declarator.
pub(super) fn innermost(declarator: Node<'_>) -> Option<Node<'_>> {
    let mut node = declarator;
    for _ in 0..MAX_DECLARATORS {
        let within = node
            .child_by_field_name("declarator")
            .or_else(|| node.child_by_field_name("name"));
        match within.or_else(|| {
            if node.named_child_count() > 0 {
                node.named_child(0)
            } else {
                None
            }
        }) {
            Some(inner) => node = inner,
            None => return Some(node),
        }
    }
    None
}
