//! Features of C, and those that C++ has beyond them.

use crate::prompt::detect::features::{Feature, Test::*, starts_any};

pub(in crate::prompt::detect) const C: &[Feature] = &[
    (5, Wraps("#include <", ".h>")),
    (3, Starts("#include \"")),
    (3, Starts("#define ")),
    (
        3,
        That(|l| starts_any(l, &["#ifndef ", "#ifdef ", "#if ", "#endif", "#undef "])),
    ),
    (
        3,
        That(|l| l.contains("printf(") && !l.contains(".printf(") && !l.contains('$')),
    ),
    (
        4,
        That(|l| {
            [
                "malloc(", "calloc(", "realloc(", "memset(", "memcpy(", "strlen(", "strcmp(",
                "fopen(", "fread(", "fwrite(", "qsort(", "perror(",
            ]
            .iter()
            .any(|f| l.contains(f))
        }),
    ),
    (2, Has("free(")),
    (3, Has("sizeof")),
    (
        1,
        That(|l| l.contains("->") && !l.contains(" -> ") && !l.contains("$")),
    ),
    (4, That(|l| l.contains("char *") || l.contains("char* "))),
    (4, Has("int main(")),
    (3, Then("struct ", "*")),
    (2, Starts("struct ")),
    (4, Starts("typedef ")),
    (3, Word("NULL")),
    (2, Word("size_t")),
    (
        2,
        That(|l| {
            starts_any(
                l,
                &[
                    "void ",
                    "int ",
                    "static int ",
                    "static void ",
                    "long ",
                    "char ",
                    "double ",
                    "float ",
                    "bool ",
                ],
            ) && !l.ends_with(':')
        }),
    ),
    (3, Word("unsigned")),
    (
        2,
        That(|l| {
            l.contains("uint32_t")
                || l.contains("uint8_t")
                || l.contains("uint16_t")
                || l.contains("int64_t")
        }),
    ),
    (5, Has("FILE *")),
    (3, Has("const char")),
    (2, Has("(const ")),
    (3, Has("(void)")),
    (2, Starts("goto ")),
    (1, Starts("extern ")),
    (1, Starts("switch (")),
    (
        2,
        That(|l| l.starts_with("for (int ") || l.starts_with("for (size_t ")),
    ),
    (1, Starts("while (")),
    (2, That(pointer)),
    (2, Starts("static const ")),
    (
        3,
        That(|l| {
            starts_any(
                l,
                &[
                    "static inline ",
                    "static size_t",
                    "static unsigned",
                    "static char",
                    "static struct",
                ],
            ) || l == "static int"
                || l == "static void"
        }),
    ),
    (
        2,
        That(|l| {
            l.split(|c: char| !c.is_alphanumeric() && c != '_')
                .any(|w| w.len() > 3 && w.ends_with("_t"))
        }),
    ),
    (
        2,
        That(|l| {
            [
                "(int)",
                "(unsigned char",
                "(void *)",
                "(char *)",
                "(long)",
                "(size_t)",
                "(unsigned)",
            ]
            .iter()
            .any(|c| l.contains(c))
        }),
    ),
    (2, Has("*p++")),
    (1, Has("0x")),
    (1, That(|l| l.starts_with("if (") && l.ends_with(';'))),
    (1, Starts("return (")),
    (
        2,
        That(|l| starts_any(l, &["#else", "#include <", "#error", "#pragma "])),
    ),
    (
        2,
        That(|l| l.contains("memcmp(") || l.contains("assert(") || l.contains("fprintf(")),
    ),
];

/// What C++ has beyond [`C`].
pub(in crate::prompt::detect) const CPP: &[Feature] = &[
    (7, That(standard_library)),
    (
        7,
        That(|l| l.starts_with("#include <") && !l.ends_with(".h>")),
    ),
    (
        6,
        That(|l| l.starts_with("#include \"") && (l.contains(".hpp") || l.contains(".hh"))),
    ),
    (
        5,
        That(|l| l.contains("cout <<") || l.contains("cin >>") || l.contains("cerr <<")),
    ),
    (8, Starts("using namespace ")),
    (8, That(|l| starts_any(l, &["template <", "template<"]))),
    (2, That(|l| l.starts_with("class ") && !l.ends_with(':'))),
    (
        6,
        That(|l| matches!(l, "public:" | "private:" | "protected:")),
    ),
    (5, Word("nullptr")),
    (
        4,
        That(|l| {
            starts_any(l, &["auto ", "const auto"])
                || l.contains("(auto ")
                || l.contains("(const auto")
        }),
    ),
    (
        3,
        That(|l| {
            l.contains("::")
                && !starts_any(l, &["use ", "pub use"])
                && l.ends_with([';', '{', ')', ','])
        }),
    ),
    (3, That(|l| l.starts_with("namespace ") && l.ends_with('{'))),
    (4, Starts("virtual ")),
    (3, Has(" override")),
    (5, Word("constexpr")),
    (
        5,
        That(|l| {
            l.contains("static_cast<")
                || l.contains("dynamic_cast<")
                || l.contains("reinterpret_cast<")
        }),
    ),
    (4, That(|l| l.contains("const ") && reference(l))),
    (3, Is("#pragma once")),
    (
        5,
        That(|l| {
            l.contains("[](") || l.contains("[&]") || l.contains("[=]") || l.contains("[this]")
        }),
    ),
    (4, Has("noexcept")),
    (2, Has("operator")),
    (3, Starts("delete ")),
    (6, Has("catch (const ")),
    (4, Starts("explicit ")),
    (5, Word("typename")),
    (
        5,
        That(|l| l.ends_with("= default;") || l.ends_with("= delete;")),
    ),
    (4, Has("vector<")),
    (4, Has("unique_ptr<")),
    (3, That(|l| l.starts_with("using ") && l.contains(" = "))),
    (
        3,
        That(|l| l.contains("push_back(") || l.contains("emplace_back(")),
    ),
    (4, Starts("friend ")),
    (3, That(|l| l.starts_with("static_assert("))),
    (2, That(reference)),
    (2, That(|l| l.starts_with("for (") && l.contains(" : "))),
    (2, Starts("throw ")),
];

/// `std::move(x)`: one part of a path after `std`, where Rust's paths go on.
fn standard_library(line: &str) -> bool {
    line.split("std::").skip(1).any(|rest| {
        let name_len = rest
            .find(|c: char| !c.is_alphanumeric() && c != '_')
            .unwrap_or(rest.len());
        let goes_on = rest[name_len..].starts_with("::");
        !goes_on
            || [
                "chrono",
                "this_thread",
                "filesystem",
                "ios",
                "numeric_limits",
            ]
            .contains(&&rest[..name_len])
    }) && !starts_any(line, &["use ", "pub use "])
}

/// `Type& name`.
fn reference(line: &str) -> bool {
    line.match_indices("& ").any(|(at, _)| {
        line[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '>')
            && line[at + 2..].starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
    })
}

/// `type *name`, and not a product: the word before starts the line or a parameter.
fn pointer(line: &str) -> bool {
    line.match_indices(" *").any(|(at, _)| {
        let before = &line[..at];
        let word = before.rsplit([' ', '(', ',']).next().unwrap_or(before);
        let first = before[..before.len() - word.len()].trim_end();
        let named =
            line[at + 2..].starts_with(|c: char| c.is_ascii_lowercase() || c == '_' || c == '*');
        named
            && !word.is_empty()
            && word.chars().all(|c| c.is_alphanumeric() || c == '_')
            && (first.is_empty()
                || first.ends_with(['(', ','])
                || first.ends_with("const")
                || first.ends_with("static"))
            && word != "return"
    })
}
