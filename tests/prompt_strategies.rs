//! A strategy turns a snippet into what the model is asked.

use code_explainer_code::prompt::{PromptError, PromptParts, Strategy, build};
use proptest::prelude::*;

const FIB: &str = "def fib(n):\n    if n < 0:\n        raise ValueError(n)\n    return n if n < 2 else fib(n - 1) + fib(n - 2)\n";

#[test]
fn vanilla_is_an_instruction_and_the_code() {
    let prompt = build(Strategy::Vanilla, FIB, Some("py"));
    insta::assert_snapshot!(shown(&prompt), @r"
    [system]
    You are a helpful assistant who explains code.
    [user]
    Explain what this code does:

    ```python
    def fib(n):
        if n < 0:
            raise ValueError(n)
        return n if n < 2 else fib(n - 1) + fib(n - 2)
    ```
    ");
}

#[test]
fn ast_augmented_has_an_outline_too() {
    let prompt = build(Strategy::AstAugmented, FIB, None);
    insta::assert_snapshot!(shown(&prompt), @r"
    [system]
    You are a helpful assistant who explains code.
    [user]
    Explain what this code does:

    Outline:
    - function fib(n): recursive; raises ValueError

    ```python
    def fib(n):
        if n < 0:
            raise ValueError(n)
        return n if n < 2 else fib(n - 1) + fib(n - 2)
    ```
    ");
}

#[test]
fn syntax_errors_are_noted_and_the_rest_is_outlined() {
    let code = "def ok(a):\n    return a\n\ndef broken(:\n    retrun ((\n";
    let prompt = build(Strategy::AstAugmented, code, Some("python"));
    assert!(prompt.user.contains("function ok(a)"), "{}", prompt.user);
    assert_eq!(
        prompt.notes,
        ["the code has syntax errors near line 4; outlined what could be parsed"]
    );
}

#[test]
fn without_an_outline_the_prompt_is_the_vanilla_one_and_a_note_says_why() {
    for (code, language, note) in [
        (
            "main = interact id",
            Some("haskell"),
            "there are no outlines for haskell; explained without one",
        ),
        (
            "hello there",
            None,
            "the language could not be told from the code; explained without an outline",
        ),
        (
            "x",
            Some("python"),
            "nothing to outline in the code; explained without an outline",
        ),
    ] {
        let augmented = build(Strategy::AstAugmented, code, language);
        assert_eq!(augmented.notes, [note]);
        assert_eq!(
            augmented.user,
            build(Strategy::Vanilla, code, language).user
        );
    }
}

#[test]
fn a_prompt_names_the_language_given_or_detected() {
    assert_eq!(
        build(Strategy::Vanilla, FIB, None).language.as_deref(),
        Some("python")
    );
    assert_eq!(
        build(Strategy::Vanilla, FIB, Some("")).language.as_deref(),
        Some("python")
    );
    assert_eq!(
        build(Strategy::Vanilla, FIB, Some("Visual Basic"))
            .language
            .as_deref(),
        Some("visual basic")
    );
    assert!(
        build(Strategy::Vanilla, FIB, Some("Visual Basic"))
            .user
            .contains("```visual-basic\n")
    );
    let refused = build(Strategy::Vanilla, FIB, Some("a\n```"));
    assert_eq!(refused.language.as_deref(), Some("python"));
    assert_eq!(refused.notes.len(), 1);
}

#[test]
fn code_cannot_close_its_fence() {
    let code = "s = '''\n```\n````\n'''";
    let prompt = build(Strategy::Vanilla, code, Some("python"));
    assert!(prompt.user.ends_with("\n`````"), "{}", prompt.user);
    assert_eq!(prompt.user.matches("`````").count(), 2);
}

#[test]
fn prompts_of_a_strategy_begin_alike() {
    for strategy in Strategy::ALL {
        let a = build(strategy, FIB, Some("python"));
        let b = build(strategy, "fn main() { loop {} }", Some("rust"));
        assert_eq!(a.system, b.system);
        let shared = a
            .user
            .bytes()
            .zip(b.user.bytes())
            .take_while(|(a, b)| a == b)
            .count();
        assert!(
            shared >= "Explain what this code does:".len(),
            "{strategy}: {shared}"
        );
    }
}

#[test]
fn strategies_have_names() {
    for strategy in Strategy::ALL {
        assert_eq!(strategy.as_str().parse(), Ok(strategy));
    }
    assert_eq!(Strategy::default(), Strategy::Vanilla);
    let unknown = "x".parse::<Strategy>();
    assert_eq!(
        unknown,
        Err(PromptError::UnknownStrategy {
            name: "x".to_owned()
        })
    );
    assert_eq!(
        unknown.unwrap_err().to_string(),
        "unknown strategy 'x': expected vanilla, ast_augmented or retrieval_augmented"
    );
    let long = "a\n"
        .repeat(1000)
        .parse::<Strategy>()
        .unwrap_err()
        .to_string();
    assert!(long.len() < 200 && !long.contains('\n'), "{long}");
}

fn shown(prompt: &PromptParts) -> String {
    format!(
        "[system]\n{}\n[user]\n{}",
        prompt.system.as_deref().unwrap_or_default(),
        prompt.user
    )
}

proptest! {
    #[test]
    fn any_code_is_in_its_prompt_as_it_is(code in "(?s).{0,300}", strategy in prop::sample::select(Strategy::ALL.to_vec())) {
        let prompt = build(strategy, &code, None);
        prop_assert!(prompt.user.contains(&code));
        prop_assert_eq!(build(strategy, &code, None), prompt);
    }
}
