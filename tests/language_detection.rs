//! A snippet's language is told from the snippet, from a file's name, or from what a request says.

use code_explainer_code::prompt::PromptError;
use code_explainer_code::prompt::detect::detect;
use code_explainer_code::prompt::language::{
    Language, MAX_LANGUAGE_BYTES, canonical, from_path, parse_language,
};
use proptest::prelude::*;
use std::fs;
use std::path::{Path, PathBuf};

fn files(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data/snippets")
        .join(folder);
    let mut files: Vec<PathBuf> = fs::read_dir(&folder)
        .expect("folder of snippets")
        .map(|f| f.expect("entry").path())
        .collect();
    files.sort();
    files
}

fn detected(code: &str) -> Option<&'static str> {
    detect(code).map(|found| found.name)
}

/// Snippets with the language that their file's name tells.
fn snippets(folder: &str) -> Vec<(String, Option<&'static str>, String)> {
    files(folder)
        .into_iter()
        .map(|path| {
            let name = path.to_string_lossy().into_owned();
            let language = from_path(&name).filter(|_| path.extension().is_none_or(|e| e != "txt"));
            (name, language, fs::read_to_string(&path).expect("snippet"))
        })
        .collect()
}

#[test]
fn outlined_languages_are_told_from_code() {
    let folders = [
        "python",
        "rust",
        "javascript",
        "typescript",
        "go",
        "java",
        "c",
        "cpp",
    ];
    let (mut right, mut all, mut wrong) = (0, 0, Vec::new());
    for folder in folders {
        let snippets = snippets(folder);
        assert!(
            snippets.len() >= 12,
            "{folder} has {} snippets",
            snippets.len()
        );
        for (name, language, code) in snippets {
            all += 1;
            if detected(&code) == language {
                right += 1;
            } else {
                wrong.push(format!("{name}: {:?}", detected(&code)));
            }
        }
    }
    assert!(
        right * 100 >= all * 95,
        "{right} of {all} right; wrong: {wrong:#?}"
    );
}

#[test]
fn other_texts_are_not_taken_for_an_outlined_language() {
    for (name, language, code) in snippets("other") {
        let found = detected(&code);
        assert!(found.is_none() || found == language, "{name}: {found:?}");
    }
}

#[test]
fn prose_and_nothing_have_no_language() {
    for text in [
        "",
        " \n\t\n",
        "Hello there.",
        "42",
        "What is the meaning of this? I do not know.",
        "🦀🦀🦀",
    ] {
        assert_eq!(detected(text), None, "{text:?}");
    }
}

#[test]
fn a_script_says_its_language_in_its_first_line() {
    for (line, language) in [
        ("#!/usr/bin/env python3", "python"),
        ("#!/usr/bin/env -S python3.12 -u", "python"),
        ("#!/usr/bin/env FOO=bar ruby", "ruby"),
        ("#!/bin/sh -e", "shell"),
        ("#! /usr/local/bin/perl5.30", "perl"),
        ("#!/usr/bin/env node", "javascript"),
        ("#!/usr/bin/env -S deno run", "typescript"),
        ("#!/usr/bin/Rscript", "r"),
    ] {
        assert_eq!(detected(&format!("{line}\nx\n")), Some(language), "{line}");
    }
    // An inner attribute is not a shebang.
    assert_eq!(
        detected("#![no_std]\npub fn f(x: &mut u32) {\n    *x += 1;\n}\n"),
        Some("rust")
    );
    assert_eq!(
        detected(
            "#!/usr/bin/env node\nconst x: number = 1;\nexport const f = (a: string): string => a;\n"
        ),
        Some("typescript")
    );
}

#[test]
fn matlab_is_told_from_what_shares_its_words_or_its_extension() {
    for code in [
        "function y = f(x)\n% the square\ny = x.^2;\nend\n",
        "function [m, s] = stats(x)\n    n = length(x);\n    m = sum(x) / n;\n    s = sqrt(sum((x - m).^2) / n);\nend\n",
        "for i = 1:10\n    if x(i) ~= 0\n        disp(x(i))\n    end\nend\n",
        "x = linspace(0, 2*pi);\nplot(x, sin(x))\nhold on\n",
        "classdef Stack < handle\n    properties\n        items\n    end\nend\n",
    ] {
        assert_eq!(detected(code), Some("matlab"), "{code}");
    }
    for (code, language) in [
        (
            "#import <Foundation/Foundation.h>\n@implementation A\n- (int)f:(int)x { return x; }\n@end\n",
            "objective-c",
        ),
        (
            "local function f(x)\n  if x ~= nil then\n    return x\n  end\nend\nfor i = 1, 10 do\n  print(i)\nend\n",
            "lua",
        ),
        (
            "function area(r) {\n  const ones = [1, 1];\n  return Math.PI * r;\n}\nconsole.log(area(2));\n",
            "javascript",
        ),
        (
            "import numpy as np\n\ndef f(n):\n    return np.zeros(n) * np.ones((n,))\n",
            "python",
        ),
    ] {
        assert_eq!(detected(code), Some(language), "{code}");
    }
}

#[test]
fn an_editors_mode_line_says_the_language() {
    for (text, language) in [
        ("// -*- mode: rust -*-\nx\n", "rust"),
        ("/* -*- C++ -*- */\nx\n", "c++"),
        ("# -*- coding: utf-8; mode: python -*-\nx\n", "python"),
        ("x\n\n# vim: set ft=ruby ts=2 :\n", "ruby"),
        ("-- vim: filetype=haskell\nx\n", "haskell"),
    ] {
        assert_eq!(detected(text), Some(language), "{text:?}");
    }
}

#[test]
fn a_files_name_tells_its_language() {
    for (path, language) in [
        ("src/main.rs", Some("rust")),
        ("a/b.test.tsx", Some("typescript")),
        ("C:\\code\\Main.JAVA", Some("java")),
        ("lib.hpp", Some("c++")),
        ("old.C", Some("c++")),
        ("util.h", Some("c")),
        ("Makefile", Some("makefile")),
        ("docker/Dockerfile", Some("dockerfile")),
        ("query.sql", Some("sql")),
        ("notes.txt", None),
        ("README", None),
        (".gitignore", None),
        ("", None),
        ("archive.tar.", None),
    ] {
        assert_eq!(from_path(path), language, "{path}");
    }
}

#[test]
fn names_and_aliases_become_canonical() {
    for (name, canonical_name) in [
        ("py", "python"),
        ("JSX", "javascript"),
        ("tsx", "typescript"),
        ("golang", "go"),
        ("CPP", "c++"),
        ("hpp", "c++"),
        (" rs ", "rust"),
    ] {
        assert_eq!(canonical(name), Some(canonical_name));
        assert_eq!(parse_language(name), Ok(Some(canonical_name.to_owned())));
    }
    for language in Language::ALL {
        assert_eq!(Language::from_name(language.as_str()), Some(language));
    }
    assert_eq!(Language::from_name("haskell"), None);
    assert_eq!(
        parse_language("Brainfuck"),
        Ok(Some("brainfuck".to_owned()))
    );
    assert_eq!(parse_language("  "), Ok(None));
}

#[test]
fn a_language_that_is_no_name_is_refused() {
    let long = "x".repeat(MAX_LANGUAGE_BYTES + 1);
    assert_eq!(
        parse_language(&long),
        Err(PromptError::LanguageTooLong { bytes: long.len() })
    );
    for bad in ["a\nb", "a`b", "\u{202e}nohtyp", "a\u{0}"] {
        assert_eq!(
            parse_language(bad),
            Err(PromptError::LanguageNotPrintable),
            "{bad:?}"
        );
    }
}

#[test]
fn only_the_beginning_of_a_long_text_is_looked_at() {
    let code = "fn add(a: u32, b: u32) -> u32 {\n    a + b\n}\n\n".repeat(25_000);
    assert!(code.len() > 1_000_000);
    let long = format!("{code}{}", "def f(self):\n    return None\n".repeat(10_000));
    assert_eq!(detected(&long), Some("rust"));
}

proptest! {
    #[test]
    fn any_text_is_answered_and_always_alike(text in ".{0,400}") {
        prop_assert_eq!(detect(&text), detect(&text));
    }

    #[test]
    fn any_language_name_is_parsed_or_refused(name in ".{0,80}") {
        if let Ok(Some(language)) = parse_language(&name) {
            prop_assert!(!language.is_empty() && !language.contains(['\n', '`']));
            prop_assert_eq!(parse_language(&language), Ok(Some(language.clone())));
        }
    }
}
