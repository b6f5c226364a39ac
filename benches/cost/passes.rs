//! What a server does with a client's text before an engine gets it, each pass within the limits that it has there.

use std::hint::black_box;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use code_explainer::embed::TextTokenizer;
use code_explainer::retrieval::chunk::passages;
use code_explainer_code::prompt::detect::Detection;
use code_explainer_code::prompt::language::Language;
use code_explainer_code::prompt::normal::{Normalize, normal_form};
use code_explainer_code::prompt::outline::outline_within;
use code_explainer_code::prompt::{Strategy, build_known};
use code_explainer_code::redact::redact;
use code_explainer_host::cpu::{Budget, Limit, thread_time};
use code_explainer_text::Text;
use code_explainer_weights::Checkpoint;

/// The flag's default.
const CODE_CPU_TIME: Duration = Duration::from_millis(500);

type Run = Box<dyn Fn(&str, &Budget)>;

/// One pass, or some of them together.
pub(crate) struct Pass {
    pub(crate) name: String,
    /// Whose code it is made for; `None`: any.
    pub(crate) language: Option<Language>,
    /// Length of the texts that it is tried on.
    pub(crate) bytes: usize,
    run: Run,
}

/// Nanoseconds for a byte.
pub(crate) fn cost(pass: &Pass, text: &str) -> f64 {
    let budget = Budget::for_code(CODE_CPU_TIME, text.len());
    let began = thread_time();
    (pass.run)(text, &budget);
    (thread_time() - began).as_secs_f64() * 1e9 / text.len().max(1) as f64
}

/// A pass's limit, as a server makes it.
fn limited<T>(budget: &Budget, pass: impl FnOnce(&Limit) -> T) -> T {
    let limit = Limit::new(budget.share(), None);
    let result = pass(&limit);
    budget.spend(limit.spent());
    result
}

fn detected(text: &str, budget: &Budget) -> Option<&'static str> {
    let mut detection = limited(budget, |_| Detection::new(text));
    loop {
        let pass = limited(budget, |limit| detection.try_next(text, limit));
        if let ControlFlow::Break(found) = pass {
            return found.map(|found| found.name);
        }
    }
}

/// Said by a function, so that the closure takes references of any lifetime.
fn boxed(run: impl Fn(&str, &Budget) + 'static) -> Run {
    Box::new(run)
}

pub(crate) fn all() -> Vec<Pass> {
    const LONG: usize = 64 << 10;
    const SAMPLE: usize = 16 << 10;
    let pass = |name: String, language, bytes, run| Pass {
        name,
        language,
        bytes,
        run,
    };
    let any = |name: &str, bytes, run| pass(name.to_owned(), None, bytes, run);
    let mut all = vec![
        any(
            "redaction",
            LONG,
            boxed(|text, _| drop(black_box(redact(text)))),
        ),
        any(
            "words of languages",
            SAMPLE,
            boxed(|text, _| drop(black_box(Detection::new(text)))),
        ),
        any(
            "detection",
            SAMPLE,
            boxed(|text, budget| {
                black_box(detected(text, budget));
            }),
        ),
        any(
            "passages of text",
            LONG,
            boxed(|text, _| drop(black_box(passages("a.txt", "a", text)))),
        ),
        any(
            "passages of Markdown",
            LONG,
            boxed(|text, _| drop(black_box(passages("a.md", "a", text)))),
        ),
    ];
    for language in Language::ALL {
        let name = language.as_str();
        let outline = move |text: &str, budget: &Budget| {
            let outline = limited(budget, |limit| outline_within(language, text, limit));
            black_box(outline.map(|outline| outline.to_string()));
        };
        all.push(pass(
            format!("outline {name}"),
            Some(language),
            LONG,
            boxed(outline),
        ));
        let normal = move |text: &str, budget: &Budget| {
            let form = |limit: &Limit| normal_form(text, Some(name), Normalize::Comments, limit);
            black_box(limited(budget, form));
        };
        let normal = pass(
            format!("normal form {name}"),
            Some(language),
            LONG,
            boxed(normal),
        );
        all.push(normal);
    }
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("models");
    let minilm = std::fs::read(models.join("all-MiniLM-L6-v2/tokenizer.json"));
    if let Ok(tokenizer) = minilm.map(|bytes| TextTokenizer::from_bytes(&bytes, 256)) {
        let tokenizer = Arc::new(tokenizer.expect("a tokenizer"));
        let encode = tokenizer.clone();
        let encode = move |text: &str, _: &Budget| drop(black_box(encode.encode(text)));
        all.push(any("tokens to embed", LONG, boxed(encode)));
        for (name, file) in [("document", "a.txt"), ("document, Markdown", "a.md")] {
            let tokenizer = tokenizer.clone();
            let stored = move |text: &str, _: &Budget| {
                for passage in passages(file, "a", text) {
                    drop(black_box(tokenizer.encode(&passage.text)));
                }
            };
            all.push(any(name, LONG, boxed(stored)));
        }
    }
    let smollm = Checkpoint::open(&models.join("SmolLM2-135M-Instruct.Q4_1.gguf"));
    if let Ok(text) = smollm.map(|checkpoint| Text::from_checkpoint(&checkpoint)) {
        let model = Arc::new(text.expect("a tokenizer"));
        let encode = model.clone();
        let encode = move |text: &str, _: &Budget| {
            drop(black_box(encode.encode_prompt(Some("Explain."), text)));
        };
        all.push(any("prompt's tokens", LONG, boxed(encode)));
        for (name, bytes) in [
            ("item", SAMPLE),
            ("long item", LONG),
            ("short item", 2 << 10),
        ] {
            let model = model.clone();
            let item = move |text: &str, budget: &Budget| {
                let redacted = limited(budget, |_| redact(text));
                let text = redacted.as_ref().map_or(text, |redacted| &redacted.text);
                let language = detected(text, budget).map(str::to_owned);
                let strategy = Strategy::AstAugmented;
                let made = |limit: &Limit| build_known(strategy, text, language, &[], limit);
                let parts = limited(budget, made);
                let system = parts.system.as_deref();
                drop(black_box(model.encode_prompt(system, &parts.user)));
            };
            all.push(any(name, bytes, boxed(item)));
        }
    }
    all
}
