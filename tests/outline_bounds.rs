//! An outline is bounded whatever the code, and hostile code costs a bounded amount of work.

use code_explainer_code::prompt::language::Language;
use code_explainer_code::prompt::outline::{
    MAX_OUTLINE_BYTES, MAX_OUTLINE_LINES, MAX_SOURCE_BYTES, outline,
};
use code_explainer_code::prompt::{Strategy, build, detect::detect};
use proptest::prelude::*;
use std::fmt::Write;
use std::path::Path;

const FOLDERS: [(&str, Language); 8] = [
    ("python", Language::Python),
    ("rust", Language::Rust),
    ("javascript", Language::JavaScript),
    ("typescript", Language::TypeScript),
    ("go", Language::Go),
    ("java", Language::Java),
    ("c", Language::C),
    ("cpp", Language::Cpp),
];

fn snippets() -> Vec<(Language, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/snippets");
    let mut all = Vec::new();
    for (folder, language) in FOLDERS {
        for file in std::fs::read_dir(root.join(folder)).expect("folder of snippets") {
            all.push((
                language,
                std::fs::read_to_string(file.expect("entry").path()).expect("snippet"),
            ));
        }
    }
    all
}

/// Outlines the code in a language and checks the bounds; what displays.
fn check(language: Language, code: &str) -> Option<String> {
    let text = outline(language, code)?.to_string();
    assert!(text.len() <= MAX_OUTLINE_BYTES, "{} bytes", text.len());
    assert!(
        text.lines().count() <= MAX_OUTLINE_LINES,
        "{} lines",
        text.lines().count()
    );
    Some(text)
}

#[test]
fn what_is_left_out_is_counted() {
    let code: String = (0..1000).fold(String::new(), |mut code, i| {
        writeln!(code, "def function_number_{i}(a, b):\n    return a").expect("write to a string");
        code
    });
    let text = check(Language::Python, &code).expect("an outline");
    let shown = text.lines().count() - 1;
    assert!(
        text.ends_with(&format!("… and {} more", 1000 - shown)),
        "{text}"
    );
}

#[test]
fn long_names_and_lists_are_shortened() {
    let long = "x".repeat(100_000);
    let parameters = (0..5000)
        .map(|i| format!("p{i}"))
        .collect::<Vec<_>>()
        .join(", ");
    let text = check(
        Language::Python,
        &format!("import {long}\ndef {long}({parameters}): pass\n"),
    )
    .expect("an outline");
    assert!(text.lines().all(|line| line.len() < 300), "{text}");
}

#[test]
fn hostile_code_neither_hangs_nor_overflows_the_stack() {
    let texts = [
        "(".repeat(1 << 20),
        "[".repeat(30_000) + &"]".repeat(30_000),
        "{".repeat(100_000),
        "((((".repeat(1000) + "x" + &"))))".repeat(1000),
        "f(".repeat(20_000),
        "<".repeat(100_000),
        "if x {".repeat(5_000),
        "def f():\n ".repeat(3_000),
        "while(1)".repeat(5_000),
        "*".repeat(100_000) + "x",
        "a.b().".repeat(10_000),
        "\"\\".repeat(100_000),
        "/*".repeat(20_000),
        "`${".repeat(10_000),
        "\0".repeat(10_000),
        "::<>".repeat(10_000),
        "R\"(".repeat(10_000),
        "#if\n".repeat(30_000),
        "😀".repeat(50_000),
    ];
    for text in &texts {
        for language in Language::ALL {
            check(language, text);
        }
        detect(text);
    }
}

#[test]
fn ordinary_code_of_the_largest_size_is_outlined() {
    for (language, code) in snippets() {
        let repeats = MAX_SOURCE_BYTES / code.len() + 1;
        let long =
            outline(language, &code.repeat(repeats)).map(|outline| (outline.cut, outline.language));
        assert_eq!(long, Some((true, language)), "{code}");
    }
}

#[test]
fn deep_nesting_of_functions_and_loops_is_counted() {
    let mut code = String::new();
    for depth in 0..60 {
        writeln!(code, "{}for x{depth} in y:", " ".repeat(depth)).expect("write to a string");
    }
    writeln!(code, "{}pass", " ".repeat(60)).expect("write to a string");
    assert_eq!(
        check(Language::Python, &code).as_deref(),
        Some("top level: 60 nested for loops")
    );
    let nested = (0..50)
        .map(|i| format!("function f{i}() {{"))
        .collect::<String>()
        + &"}".repeat(50);
    let text = check(Language::JavaScript, &nested).expect("an outline");
    assert!(text.ends_with("… and 46 more"), "{text}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_text_has_a_bounded_outline(text in "(?s).{0,200}", language in prop::sample::select(Language::ALL.to_vec())) {
        check(language, &text);
    }

    /// Mutilated code, in its own language and in any other.
    #[test]
    fn any_mutation_of_a_snippet_has_a_bounded_outline(
        pick in any::<prop::sample::Index>(),
        from in any::<prop::sample::Index>(),
        length in 0usize..60,
        keep_rest in any::<bool>(),
        other in prop::sample::select(Language::ALL.to_vec()),
    ) {
        let snippets = snippets();
        let (language, code) = pick.get(&snippets);
        let start = code.floor_char_boundary(from.index(code.len()));
        let end = code.floor_char_boundary((start + length).min(code.len()));
        let mutated = format!("{}{}", &code[..start], if keep_rest { &code[end..] } else { "" });
        check(*language, &mutated);
        check(other, &mutated);
        detect(&mutated);
        let prompt = build(Strategy::AstAugmented, &mutated, Some(other.as_str()));
        prop_assert!(prompt.user.contains(&mutated));
    }
}
