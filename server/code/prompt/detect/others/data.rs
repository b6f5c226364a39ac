//! Features of formats for data and documents, and what speaks against all of them.

use crate::prompt::detect::features::{Feature, Test::*, starts_any};

pub(super) const HTML: &[Feature] = &[
    (
        8,
        That(|l| starts_any(l, &["<!DOCTYPE", "<!doctype", "<html", "<head", "<body"])),
    ),
    (
        3,
        That(|l| {
            starts_any(
                l,
                &[
                    "<div", "<p>", "<ul", "<li", "<a ", "<span", "<table", "<tr", "<td", "<script",
                    "<style", "<h1", "<h2", "<form", "<input", "<meta", "<link", "<title",
                ],
            ) && l.ends_with('>')
                && !l.contains('{')
        }),
    ),
    (2, That(|l| l.starts_with("</") && l.ends_with('>'))),
    (3, Has("class=\"")),
    (3, Has("href=\"")),
];

pub(super) const CSS: &[Feature] = &[
    (
        3,
        That(|l| {
            starts_any(l, &[".", "#", "@media", ":root", "body", "a:", "h1", "*"])
                && l.ends_with('{')
                && !l.contains(['(', '='])
        }),
    ),
    (4, That(declaration)),
    (
        4,
        That(|l| l.ends_with('{') && (l.contains(":hover") || l.contains("::before"))),
    ),
];

pub(super) const JSON: &[Feature] = &[
    (
        4,
        That(|l| {
            l.starts_with("\"\":")
                && (l.ends_with([',', '{', '[', '"']) || l.ends_with(|c: char| c.is_ascii_digit()))
        }),
    ),
    (1, That(|l| matches!(l, "}," | "]," | "{" | "["))),
];

pub(super) const YAML: &[Feature] = &[
    (3, Is("---")),
    (3, That(|l| key_value(l) && !l.ends_with(':'))),
    (
        2,
        That(|l| {
            key_value(l)
                && l.ends_with(':')
                && !matches!(
                    l,
                    "else:"
                        | "try:"
                        | "finally:"
                        | "default:"
                        | "public:"
                        | "private:"
                        | "protected:"
                        | "fail:"
                        | "out:"
                )
        }),
    ),
    (
        2,
        That(|l| l.starts_with("- ") && (key_value(&l[2..]) || l.ends_with('"'))),
    ),
];

pub(super) const TOML: &[Feature] = &[
    (
        5,
        That(|l| {
            l.starts_with('[')
                && l.ends_with(']')
                && l.len() > 2
                && !l.contains(['(', ',', '#', '"', ' '])
                && !l[1..].starts_with(|c: char| c.is_ascii_digit())
        }),
    ),
    (
        1,
        That(|l| {
            l.split_once(" = ").is_some_and(|(key, value)| {
                !key.is_empty()
                    && key
                        .chars()
                        .all(|c| c.is_ascii_lowercase() || matches!(c, '_' | '-' | '.'))
                    && value.starts_with(['"', '{', '['])
                    && !l.ends_with(';')
            })
        }),
    ),
];

pub(super) const MARKDOWN: &[Feature] = &[
    (4, That(|l| starts_any(l, &["## ", "### "]))),
    (4, Starts("```")),
    (3, Has("](http")),
    (
        2,
        That(|l| starts_any(l, &["- ", "* "]) && !l.contains([':', '"', ';', '='])),
    ),
    (3, That(|l| l.starts_with("- **") || l.starts_with("**"))),
];

/// What speaks against any of [`DATA`].
pub(in crate::prompt::detect) const STATEMENTS: &[Feature] = &[
    (
        3,
        That(|l| {
            l.ends_with(");") || l.ends_with("({") || l.ends_with(") {") || l.ends_with(") => {")
        }),
    ),
    (
        2,
        That(|l| {
            l.ends_with('(')
                || l.ends_with("):")
                || starts_any(l, &["return ", "def ", "const ", "let ", "if ("])
        }),
    ),
    (
        2,
        That(|l| {
            l.contains(" = ") && !l.contains(" = \"") && !l.contains(" = [") && !l.contains(" = {")
        }),
    ),
    (2, Has("={")),
];

/// `padding: 4px;` with a value that only style sheets have.
fn declaration(line: &str) -> bool {
    const VALUES: &[&str] = &[
        "px", "em;", "rem", "%", "#", "rgb", "auto", "none", "solid", "flex", "block", "bold",
        "center", "inherit", "var(--",
    ];
    line.split_once(':').is_some_and(|(key, value)| {
        !key.is_empty()
            && key.chars().all(|c| c.is_ascii_lowercase() || c == '-')
            && value.ends_with([';', '}'])
            && (VALUES.iter().any(|v| value.contains(v)) || key.contains('-') || key == "color")
    })
}

/// `key:` or `key: value`, with nothing in it of a language with statements.
fn key_value(line: &str) -> bool {
    line.split_once(':').is_some_and(|(key, value)| {
        !key.is_empty()
            && key
                .chars()
                .all(|c| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | '/'))
            && (value.is_empty() || value.starts_with(' '))
            && !line.ends_with([';', '{', ',', '('])
            && !value.contains(" = ")
    })
}
