//! What says outright which language a text is in: the first line of a script, an editor's mode line, an opening that
//! only one language has.

use crate::prompt::language::canonical;

/// Lines at either end of a text in which editors look for their mode lines.
const MODELINE_LINES: usize = 5;

/// The language that the text itself names.
pub(super) fn declared(text: &str) -> Option<&'static str> {
    let text = text.trim_start_matches('\u{feff}');
    let first = text.lines().next().unwrap_or_default();
    shebang(first)
        .or_else(|| modeline(text))
        .or_else(|| opening(text.trim_start()))
}

/// Interpreters whose names are not those of their languages.
const INTERPRETERS: &[(&str, &str)] = &[
    ("rscript", "r"),
    ("runghc", "haskell"),
    ("runhaskell", "haskell"),
    ("pypy", "python"),
    ("ts-node", "typescript"),
    ("tsx", "typescript"),
    ("bun", "typescript"),
    ("deno", "typescript"),
    ("luajit", "lua"),
    ("gawk", "awk"),
    ("rust-script", "rust"),
    ("make", "makefile"),
    ("escript", "erlang"),
];

/// "python" of `#!/usr/bin/env -S python3.12 -u`.
fn shebang(line: &str) -> Option<&'static str> {
    let command = line.strip_prefix("#!")?;
    // Rust's inner attributes start like a shebang.
    if command.starts_with('[') {
        return None;
    }
    let mut words = command.split_whitespace();
    let mut program = file_name(words.next()?);
    if program == "env" {
        program = file_name(words.find(|word| !word.starts_with('-') && !word.contains('='))?);
    }
    let program = program.to_ascii_lowercase();
    let plain = program.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.' || c == '-');
    let known = INTERPRETERS
        .iter()
        .find(|(name, _)| *name == plain || *name == program);
    known
        .map(|(_, language)| *language)
        .or_else(|| canonical(plain))
}

fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// "rust" of `// -*- mode: rust -*-` or `# vim: set ft=rust :`.
fn modeline(text: &str) -> Option<&'static str> {
    if let Some(language) = text.lines().take(2).find_map(emacs_mode) {
        return Some(language);
    }
    let head = text.lines().take(MODELINE_LINES);
    let tail = text.lines().rev().take(MODELINE_LINES);
    head.chain(tail).find_map(vim_mode)
}

fn emacs_mode(line: &str) -> Option<&'static str> {
    let (_, rest) = line.split_once("-*-")?;
    let (inside, _) = rest.split_once("-*-")?;
    let mode = inside.split(';').find_map(|part| {
        let (key, value) = part.split_once(':')?;
        key.trim().eq_ignore_ascii_case("mode").then_some(value)
    });
    match mode {
        Some(mode) => canonical(mode),
        // `-*- C++ -*-` names the mode alone.
        None if !inside.contains(':') => canonical(inside),
        None => None,
    }
}

fn vim_mode(line: &str) -> Option<&'static str> {
    let at = ["vim:", "vi:", "ex:"].iter().find_map(|mark| {
        let at = line.find(mark)?;
        let starts_word = !line[..at].ends_with(|c: char| c.is_alphanumeric());
        starts_word.then_some(at + mark.len())
    })?;
    line[at..].split([' ', ':', '\t']).find_map(|option| {
        let (key, value) = option.split_once('=')?;
        matches!(key, "ft" | "filetype" | "syntax")
            .then(|| canonical(value))
            .flatten()
    })
}

/// Openings that no other language has, compared without regard to case.
const OPENINGS: &[(&str, &str)] = &[
    ("<?php", "php"),
    ("<?xml", "xml"),
    ("<!doctype html", "html"),
    ("<html", "html"),
    ("diff --git ", "diff"),
    ("%yaml", "yaml"),
    ("\\documentclass", "latex"),
    ("pragma solidity", "solidity"),
    ("syntax = \"proto", "protobuf"),
];

fn opening(text: &str) -> Option<&'static str> {
    let found = OPENINGS.iter().find(|(start, _)| {
        text.as_bytes()
            .get(..start.len())
            .is_some_and(|head| head.eq_ignore_ascii_case(start.as_bytes()))
    });
    if let Some((_, language)) = found {
        return Some(language);
    }
    let object = text.starts_with(['{', '[']) && text.contains(['"', ':', ',']);
    // JavaScript's blocks and arrays are no JSON, save for `[1, 2]`, which is both.
    (object && serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok()).then_some("json")
}
