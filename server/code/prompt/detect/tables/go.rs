//! Features of Go.

use crate::prompt::detect::features::{Feature, Test::*};

pub(in crate::prompt::detect) const GO: &[Feature] = &[
    (4, StartsLacks("package ", ";")),
    (5, StartsLacks("func ", "->")),
    (4, Starts("func (")),
    (4, Has(" := ")),
    (2, Has("func(")),
    (5, Has("fmt.")),
    (8, Has("err != nil")),
    (4, Starts("if err")),
    (1, Word("nil")),
    (5, Is("import (")),
    (4, Starts("import \"")),
    (
        8,
        That(|l| {
            l.starts_with("type ")
                && (l.contains(" struct") || l.contains(" interface"))
                && l.contains('{')
        }),
    ),
    (4, Has("chan ")),
    (2, Has("<-")),
    (5, Has("go func")),
    (3, That(|l| l.starts_with("go ") && l.ends_with(')'))),
    (4, StartsLacks("defer ", ";")),
    (3, Has("range ")),
    (3, Has("make(")),
    (
        4,
        That(|l| {
            l.contains("[]string")
                || l.contains("[]int")
                || l.contains("[]byte")
                || l.contains("[]float64")
        }),
    ),
    (4, Has("map[")),
    (4, Has("interface{}")),
    (2, WrapsLacks("for ", "{", "(")),
    (1, WrapsLacks("if ", "{", "(")),
    (5, Word("iota")),
    (2, WrapsLacks("switch ", "{", "(")),
    (8, Has("*testing.T")),
    (3, Has("struct{")),
    (4, Has("errors.New(")),
    (2, Has(" = append(")),
    (4, Starts("return nil, ")),
    (4, That(|l| l == "const (" || l == "var (" || l == "type (")),
    (4, Is("select {")),
    (
        3,
        That(|l| l.contains("http.") && !l.contains(';') && !l.contains('\'')),
    ),
];
