//! Features of scripting languages.

use crate::prompt::detect::features::{Feature, Test::*, starts_any};

pub(super) const SHELL: &[Feature] = &[
    (5, That(|l| starts_any(l, &["if [", "elif [", "while ["]))),
    (6, Is("fi")),
    (5, Is("done")),
    (4, Is("do")),
    (4, Ends("; do")),
    (4, Ends("; then")),
    (5, Is("esac")),
    (2, StartsLacks("echo ", ";")),
    (2, Has("$(")),
    (2, Has("\"$")),
    (
        3,
        That(|l| l.starts_with("export ") && l.contains('=') && !l.contains(" = ")),
    ),
    (3, Has("[[ ")),
    (5, Starts("set -")),
    (4, Starts("sudo ")),
    (3, Has(" | grep ")),
    (2, Has("$1")),
    (
        3,
        That(|l| {
            starts_any(
                l,
                &[
                    "apt-get ",
                    "apt ",
                    "pip install",
                    "npm ",
                    "git ",
                    "curl ",
                    "chmod ",
                    "mkdir ",
                    "cd ",
                    "tar ",
                    "rm -",
                    "docker ",
                    "$ ",
                ],
            )
        }),
    ),
    (3, Has(" && ./")),
    (
        2,
        That(|l| {
            l.split_once('=').is_some_and(|(name, value)| {
                !name.is_empty()
                    && name.chars().all(|c| c.is_ascii_uppercase() || c == '_')
                    && value.starts_with(['"', '$', '\''])
            })
        }),
    ),
];

pub(super) const POWERSHELL: &[Feature] = &[
    (
        6,
        That(|l| {
            ["Write-Host", "Get-", "Set-", "New-Object", "ForEach-Object"]
                .iter()
                .any(|c| l.contains(c))
        }),
    ),
    (2, StartsHas("$", " = ")),
    (3, That(|l| l.contains(" -eq ") || l.contains(" -ne "))),
    (3, Starts("param")),
];

pub(super) const RUBY: &[Feature] = &[
    (3, Is("end")),
    (
        3,
        That(|l| {
            l.starts_with("def ")
                && !l.ends_with([':', '{', '='])
                && !l.contains(" = ")
                && !l.ends_with(" do")
        }),
    ),
    (4, Starts("puts ")),
    (
        4,
        That(|l| starts_any(l, &["require '", "require_relative "])),
    ),
    (5, Has(" do |")),
    (6, Starts("attr_")),
    (2, Has(".each")),
    (
        3,
        That(|l| l.starts_with('@') && (l.contains(" = ") || l.contains(" << "))),
    ),
    (4, Starts("elsif ")),
    (
        3,
        That(|l| l.starts_with("unless ") || l.contains(" unless ")),
    ),
    (4, Has(".nil?")),
    (2, Starts("module ")),
    (1, Word("nil")),
    (4, Has("{ |")),
    (4, StartsHas("class ", " < ")),
    (3, Has("#{")),
    (2, Has(".new")),
    (
        3,
        That(|l| l.contains(" rescue") || l == "rescue" || l == "begin" || l == "ensure"),
    ),
];

pub(super) const PHP: &[Feature] = &[
    (8, Starts("<?php")),
    (4, Starts("$")),
    (4, Has("$this->")),
    (4, Then("function ", "$")),
    (3, Has("array(")),
    (6, Has(" as $")),
    (5, Has("public function ")),
    (3, That(|l| l.starts_with("use ") && l.contains('\\'))),
    (3, Starts("echo $")),
    (3, Then("$", "->")),
];

pub(super) const PERL: &[Feature] = &[
    (
        6,
        That(|l| starts_any(l, &["my $", "my @", "my %", "our $"]) || l.contains("(my $")),
    ),
    (
        6,
        That(|l| l.starts_with("use strict") || l.starts_with("use warnings")),
    ),
    (4, Wraps("sub ", "{")),
    (3, Has("=~ ")),
    (2, Has("->{")),
    (3, Has("$_")),
    (4, Starts("elsif ")),
    (3, Has("@_")),
];

pub(super) const LUA: &[Feature] = &[
    (5, Starts("local ")),
    (
        3,
        That(|l| starts_any(l, &["function ", "local function "]) && l.ends_with(')')),
    ),
    (3, Is("end")),
    (3, Wraps("if ", " then")),
    (3, Wraps("for ", " do")),
    (5, That(|l| l.contains("ipairs(") || l.contains(" pairs("))),
    (3, Starts("elseif ")),
    (3, Has("~=")),
    (2, Has(" .. ")),
    (1, Word("nil")),
];

pub(super) const R: &[Feature] = &[
    (
        5,
        That(|l| l.contains(" <- ") && !l.ends_with([';', '{']) && !l.contains(":=")),
    ),
    (6, Has("<- function(")),
    (5, That(|l| l.starts_with("library(") && l.ends_with(')'))),
    (2, Has(" c(")),
    (5, Has("data.frame")),
    (6, Has("%>%")),
    (2, That(|l| l.contains("TRUE") || l.contains("FALSE"))),
    (
        3,
        That(|l| l.contains("ggplot(") || l.contains("summary(") || l.contains("lm(")),
    ),
];

pub(super) const ELIXIR: &[Feature] = &[
    (8, Starts("defmodule ")),
    (
        6,
        That(|l| starts_any(l, &["def ", "defp "]) && (l.ends_with(" do") || l.contains(", do:"))),
    ),
    (4, Has("|> ")),
    (2, Is("end")),
    (2, Has("%{")),
    (2, Has("{:")),
    (5, Starts("use GenServer")),
];

pub(super) const MATLAB: &[Feature] = &[
    (8, That(gives_results)),
    (8, Starts("classdef ")),
    (
        6,
        That(|l| {
            starts_any(
                l,
                &["endfunction", "close all", "clear all", "hold on", "clc;"],
            )
        }),
    ),
    (5, That(counts)),
    (
        4,
        That(|l| {
            calls(
                l,
                &[
                    "disp", "fprintf", "numel", "zeros", "ones", "linspace", "cellfun",
                ],
            )
        }),
    ),
    (4, Is("otherwise")),
    (3, Has(".^")),
    (3, Has(" .* ")),
    (2, Has("~=")),
    (
        2,
        That(|l| l.starts_with('[') && l.contains("] = ") && l.ends_with(");")),
    ),
    (1, StartsLacks("%", "}")),
    (1, That(|l| matches!(l, "end" | "end;"))),
    (1, Starts("elseif ")),
];

/// `function y = f(x)` and `function [a, b] = f(x)`: results stand before the name.
fn gives_results(line: &str) -> bool {
    let Some(rest) = line.strip_prefix("function ") else {
        return false;
    };
    let before = rest.split_once('(').map_or(rest, |(before, _)| before);
    before.contains('=')
}

/// `for i = 1:n`, without the parentheses of other languages.
fn counts(line: &str) -> bool {
    let Some((name, range)) = line
        .strip_prefix("for ")
        .and_then(|rest| rest.split_once('='))
    else {
        return false;
    };
    name.trim().chars().all(|c| c.is_alphanumeric() || c == '_') && range.contains(':')
}

/// Whether a function of one of these names is called, and not another object's or module's.
fn calls(line: &str, names: &[&str]) -> bool {
    let another = |c: char| c.is_alphanumeric() || matches!(c, '_' | '.' | ':' | '>' | '$');
    names.iter().any(|name| {
        line.match_indices(name).any(|(at, _)| {
            !line[..at].ends_with(another) && line[at + name.len()..].starts_with('(')
        })
    })
}
