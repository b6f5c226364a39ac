//! Features of Rust.

use crate::prompt::detect::features::{Feature, Test::*, starts_any};

pub(in crate::prompt::detect) const RUST: &[Feature] = &[
    (
        4,
        That(|l| {
            l.contains("fn ") && starts_any(l, &["fn ", "pub", "async fn", "const fn", "unsafe fn"])
        }),
    ),
    (5, Has("let mut ")),
    (1, Wraps("let ", ";")),
    (
        3,
        That(|l| {
            l.starts_with("let ")
                && l.contains(": ")
                && l.contains(" = ")
                && !l.contains(": string")
        }),
    ),
    (5, StartsHas("use ", "::")),
    (5, StartsHas("pub use ", "::")),
    (
        5,
        That(|l| starts_any(l, &["impl ", "impl<", "unsafe impl"])),
    ),
    (5, Has("println!(")),
    (
        4,
        That(|l| {
            [
                "format!(",
                "panic!(",
                "assert!(",
                "assert_eq!(",
                "vec![",
                "write!(",
                "matches!(",
            ]
            .iter()
            .any(|m| l.contains(m))
        }),
    ),
    (4, Has("&mut ")),
    (5, That(|l| l.contains("&self") || l.contains("&mut self"))),
    (3, Has("::<")),
    (3, WrapsLacks("match ", "{", "(")),
    (2, Wraps("match ", "{")),
    (5, Starts("#[derive")),
    (
        4,
        That(|l| starts_any(l, &["#[", "#!["]) && l.ends_with(']')),
    ),
    (2, Has("Some(")),
    (2, Has("Ok(")),
    (2, Has("Err(")),
    (4, Has(".unwrap()")),
    (4, Has("&str")),
    (3, Has("Vec<")),
    (2, Has("Option<")),
    (2, Has("Result<")),
    (
        3,
        That(|l| {
            starts_any(
                l,
                &[
                    "pub struct ",
                    "pub enum ",
                    "pub trait ",
                    "pub mod ",
                    "pub const ",
                    "pub(crate)",
                    "pub type ",
                ],
            )
        }),
    ),
    (1, Starts("struct ")),
    (2, Starts("trait ")),
    (2, Starts("mod ")),
    (8, Starts("macro_rules!")),
    (3, That(closure)),
    (3, Word("usize")),
    (
        2,
        That(|l| {
            ["u8", "u16", "u32", "u64", "i32", "i64", "f32", "f64"]
                .iter()
                .any(|w| number_type(l, w))
        }),
    ),
    (4, That(|l| l.contains("<'") || l.contains("&'"))),
    (3, That(|l| l.ends_with("?;") || l.contains("?."))),
    (3, Has(".iter()")),
    (3, Has(".collect")),
    (2, Has("into_iter")),
    (2, Has("String::")),
    (3, Has("::new(")),
    (4, Starts("_ =>")),
    (3, Is("loop {")),
    (2, Has("dyn ")),
    (3, Has("..=")),
    (4, Starts("if let ")),
    (5, Starts("while let ")),
    (3, Has("Box<")),
    (
        4,
        That(|l| {
            l.contains("self::")
                || l.contains("crate::")
                || l.contains("std::") && l.starts_with("use ")
        }),
    ),
    (1, That(|l| l.starts_with("fn ") && l.contains("->"))),
    (3, Has("unsafe {")),
    (3, Has(".await")),
    (2, Wraps("for ", "{")),
];

/// `|x| x + 1` after a parenthesis or a comma.
fn closure(line: &str) -> bool {
    ["(|", ", |", "= |", "move |"].iter().any(|start| {
        line.split_once(start)
            .is_some_and(|(_, rest)| rest.contains('|'))
    }) && !line.contains("do |")
        && !line.contains("||")
}

/// A number's type after a colon, an arrow, a bracket or `as`.
fn number_type(line: &str, name: &str) -> bool {
    line.match_indices(name).any(|(at, _)| {
        let before = &line[..at];
        let ends_here =
            !line[at + name.len()..].starts_with(|c: char| c.is_alphanumeric() || c == '_');
        ends_here
            && [": ", "-> ", "<", "[", "as ", "&", "(", "mut "]
                .iter()
                .any(|start| before.ends_with(start))
    })
}
