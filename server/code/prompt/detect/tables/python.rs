//! Features of Python.

use crate::prompt::detect::features::{Feature, Test::*};

pub(in crate::prompt::detect) const PYTHON: &[Feature] = &[
    (5, Wraps("def ", ":")),
    (5, StartsHas("def ", "(self")),
    (6, Starts("async def ")),
    (4, WrapsLacks("class ", ":", "{")),
    (6, StartsHas("from ", " import ")),
    (2, That(plain_import)),
    (6, Wraps("elif ", ":")),
    (4, Is("else:")),
    (4, Is("try:")),
    (6, Wraps("except", ":")),
    (4, Is("finally:")),
    (
        4,
        That(|l| l.starts_with("for ") && l.contains(" in ") && l.ends_with(':')),
    ),
    (3, WrapsLacks("if ", ":", "{")),
    (3, WrapsLacks("while ", ":", "{")),
    (3, WrapsLacks("with ", ":", "{")),
    (2, Has("self.")),
    (4, Has("__init__")),
    (5, Has("__name__")),
    (2, Word("None")),
    (1, Word("True")),
    (1, Word("False")),
    (2, WrapsLacks("print(", ")", "{")),
    (2, Has("print(f\"")),
    (2, Has("lambda ")),
    (2, That(comprehension)),
    (3, That(|l| l.starts_with("raise ") && !l.ends_with(';'))),
    (2, Has("(f\"")),
    (2, Has(" not in ")),
    (1, Has(" is not ")),
    (
        1,
        That(|l| l.starts_with('@') && !l.contains(';') && !l.ends_with('{')),
    ),
    (4, Has("**kwargs")),
    (2, Has(" in range(")),
    (1, Has("len(")),
    (1, Has(".append(")),
    (2, Starts("import numpy")),
    (2, Starts("import pandas")),
    (2, Has("np.")),
    (2, Has("pd.")),
    (1, That(|l| l.contains(" and ") || l.contains(" or "))),
    (
        1,
        That(|l| !l.ends_with([';', '{', '}', ',']) && l.contains(" = ")),
    ),
    (2, Starts("yield ")),
    (2, Starts("assert ")),
    (1, Is("pass")),
];

/// `import os, numpy as np`: an import that ends with its line and quotes nothing.
fn plain_import(line: &str) -> bool {
    line.starts_with("import ") && !line.contains(['"', '\'', ';', '(', '{', '*'])
}

fn comprehension(line: &str) -> bool {
    line.contains(" for ")
        && line.contains(" in ")
        && line.contains(['[', '(', '{'])
        && !line.starts_with("for ")
}
