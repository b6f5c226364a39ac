//! Clients that use the Rust client as it is: its driver has to see to it that each item gets one answer, the right one.

use std::collections::BTreeMap;
use std::time::Duration;

use code_explainer_client::proto::ExplainRequest;
use code_explainer_client::{
    Client, Code, ConnectOptions, ExplainOptions, Item, Priority, Progress, Retry, Step, Token,
    Window,
};
use futures::StreamExt;
use tokio::time::sleep;

use crate::net::Net;
use crate::oracle::{Expected, expected};
use crate::trace::note;
use crate::world::{below, between, milliseconds, once_in};

/// An item as fate has it, of few different ones, so that some are the same.
pub(crate) fn draw_item() -> Item {
    let options = ExplainOptions {
        language: Some("python".into()),
        max_new_tokens: Some(between(1, 24) as u32),
        min_new_tokens: once_in(4).then_some(1),
        temperature: once_in(3).then_some(0.7),
        seed: Some(below(3)),
        stop: if once_in(4) {
            vec!["a".into()]
        } else {
            Vec::new()
        },
        ignore_eos: once_in(2),
        include_full_text: once_in(3),
        priority: [
            None,
            Some(Priority::Interactive),
            Some(Priority::Normal),
            Some(Priority::Bulk),
        ][below(4) as usize],
        ..ExplainOptions::default()
    };
    let lines = (0..between(1, 4)).map(|line| format!("x{} = {line}\n", below(4)));
    Item::new(lines.collect::<String>()).with_options(options)
}

/// What is known of an item.
#[derive(Default)]
struct Known {
    accepted: bool,
    text: String,
    next: u64,
    finished: bool,
}

/// A batch of items from the first step to the last.
pub(crate) async fn run(name: String, net: Net, token: Option<String>) {
    sleep(milliseconds(0, 6000)).await;
    let (of, to) = (name.clone(), net.clone());
    let open = move || {
        let (of, to) = (of.clone(), to.clone());
        async move { to.connect(&of).await }
    };
    let options = ConnectOptions {
        token: token.map(|token| Token::new(&token).expect("a header")),
        ..ConnectOptions::default()
    };
    let client = Client::connect_through("server:1", &options, open);
    let client = client.expect("an address");
    let items: Vec<Item> = (0..between(1, 12)).map(|_| draw_item()).collect();
    let wanted: Vec<Expected> = (items.iter())
        .map(|item| expected(&ExplainRequest::from(item.clone())))
        .collect();
    let window = Window {
        size: once_in(2).then(|| between(1, 9) as usize),
        streams: once_in(3).then(|| between(1, 3) as u16),
        retry: Retry {
            tries: 10_000,
            max_delay: milliseconds(500, 5000),
            patience: Duration::from_secs(600),
            ..Retry::default()
        },
    };
    let mut steps = client.explain_all(futures::stream::iter(items), window);
    let cancels_after = once_in(6).then(|| below(40));
    let (mut known, mut heard) = (BTreeMap::<usize, Known>::new(), 0);
    while let Some(step) = steps.next().await {
        let step = step.unwrap_or_else(|error| panic!("{name}: the batch failed: {error}"));
        let cancelled = cancels_after.is_some_and(|after| heard >= after);
        let index = step.index;
        let item = known.entry(index).or_default();
        take(&name, item, step, &wanted[index], cancelled);
        heard += 1;
        if cancels_after == Some(heard) {
            note!("{name} cancels");
            steps.canceller().cancel();
        }
        if once_in(20) {
            // It has other things to do.
            sleep(milliseconds(1, 2000)).await;
        }
    }
    let all = cancels_after.is_none_or(|after| heard < after);
    assert!(
        !all || known.len() == wanted.len(),
        "{name}: some items are missing"
    );
    for (index, item) in known {
        assert!(item.finished, "{name}: {index} has no end");
    }
}

fn take(name: &str, item: &mut Known, step: Step, wanted: &Expected, cancelled: bool) {
    let index = step.index;
    assert!(!item.finished, "{name}: {index} goes on after its end");
    match step.progress {
        Progress::Accepted(accepted) => {
            note!("{name}: {index} accepted");
            assert!(!item.accepted, "{name}: {index} is accepted twice");
            assert_eq!(accepted.prompt_tokens, wanted.prompt_tokens);
            item.accepted = true;
        }
        Progress::Delta(delta) => {
            note!("{name}: {index} says {} bytes", delta.text.len());
            assert!(item.accepted, "{name}: {index} was not accepted");
            assert_eq!(delta.sequence, item.next, "{name}: a gap or a repeat");
            item.next += 1;
            item.text.push_str(&delta.text);
            assert!(
                wanted.text.starts_with(&item.text),
                "{name}: {index} says {:?}, not {:?}",
                item.text,
                wanted.text
            );
        }
        Progress::Restarted => panic!("{name}: {index} came out differently"),
        Progress::Retrying { tried, error } => {
            note!("{name}: {index} is tried again after {tried}: {error}");
            assert_ne!(error.code(), Code::AlreadyExists, "{error}");
            let full = error
                .to_string()
                .contains("which is the limit; wait for an answer");
            assert!(!full, "{name}: {index} was sent without credit: {error}");
        }
        Progress::Finished(Ok(answer)) => {
            note!("{name}: {index} has its answer");
            item.finished = true;
            assert_eq!(answer.text, wanted.text, "{name}: {index}");
            assert_eq!(item.text, wanted.text, "{name}: {index} was told otherwise");
            assert_eq!(answer.done.finish_reason.as_str(), reason(wanted));
            assert_eq!(answer.done.usage.generated_tokens, wanted.generated_tokens);
            let full = &answer.done.full_text;
            assert!(
                full.is_empty() || *full == wanted.text,
                "{name}: {index} repeats {full:?}"
            );
        }
        Progress::Finished(Err(error)) => {
            note!("{name}: {index} has no answer: {error}");
            item.finished = true;
            assert!(cancelled, "{name}: {index} failed: {error}");
        }
    }
}

fn reason(wanted: &Expected) -> &'static str {
    use code_explainer_client::proto::FinishReason as Reason;
    match wanted.reason {
        Reason::Eos => "eos",
        Reason::Stop => "stop",
        Reason::Length => "length",
        Reason::Context => "context",
        Reason::Deadline => "deadline",
        Reason::Unspecified => "unknown",
    }
}
