use super::*;

const SCRIPT: Syntax = Syntax::Plain(Language::JavaScript);

#[test]
fn nodes_of_the_parsers_stack_are_counted_by_their_size() {
    // Each opening bracket is one more node: with another size for them none of this would hold.
    let code = "[".repeat(1_000);
    let limit = Limit::none();
    let before = Held::now();
    memory::count();
    let mut parser = Parser::new();
    parser.set_language(SCRIPT.grammar()).expect("its version");
    let mut most = Held::default();
    let mut progress = |_: &tree_sitter::ParseState| {
        let held = Held::now().since(before);
        most.nodes = most.nodes.max(held.nodes);
        most.bytes = most.bytes.max(held.bytes);
        ControlFlow::Continue(())
    };
    let mut read = |offset: usize, _| code.as_bytes().get(offset..).unwrap_or_default();
    let options = ParseOptions::new().progress_callback(&mut progress);
    let tree = parser.parse_with_options(&mut read, None, Some(options));
    assert!((900..3_000).contains(&most.nodes), "{most:?}");
    assert!(most.bytes > 232 * 900, "{most:?}");
    drop((tree, parser));
    assert_eq!(Held::now(), before, "all of it is given back");
    assert!(
        parse(SCRIPT, &code, &limit).is_some(),
        "so much may be open"
    );
}

#[test]
fn what_leaves_much_open_is_given_up() {
    for (language, beginning, repeated) in [
        (Language::Java, "impl ", "<ab  "),
        // It had 130,000 nodes open.
        (Language::Cpp, "", "<a "),
        (Language::JavaScript, "", "["),
        (Language::Python, "", "("),
        (Language::Rust, "", "if x {"),
    ] {
        let code = format!("{beginning}{}", repeated.repeat(10_000));
        let held = Held::now();
        let tree = parse(Syntax::Plain(language), &code, &Limit::none());
        assert!(tree.is_none(), "{language:?}: {repeated}");
        assert_eq!(Held::now(), held, "{language:?}: {repeated}");
    }
}

#[test]
fn what_is_given_up_in_the_middle_of_a_character_does_not_end_the_process() {
    // Three bytes a character: none of the lexer's pieces of 256 ends with one. It reads the string again and again.
    let code = format!("a({}", "`\u{20ac}\u{20ac}x ".repeat(5_000));
    for syntax in [
        Syntax::Plain(Language::JavaScript),
        Syntax::Plain(Language::Go),
    ] {
        let mut gave_up = false;
        for micros in [0, 50, 200, 1_000, 5_000] {
            let limit = Limit::new(std::time::Duration::from_micros(micros), None);
            gave_up |= parse(syntax, &code, &limit).is_none();
        }
        assert!(gave_up);
    }
}
