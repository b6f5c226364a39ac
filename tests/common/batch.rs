//! A batch of the Rust client, and programs that serve it.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use code_explainer_client::{Client, ExplainAll, ExplainOptions, Item, Progress, Retry, Window};
use futures::StreamExt;

use super::programs::{ServerProcess, server};

/// A server's program with the real model, and where it listens.
pub(crate) struct Replica {
    pub(crate) process: ServerProcess,
    pub(crate) grpc: SocketAddr,
    pub(crate) http: SocketAddr,
}

/// One that is ready.
pub(crate) fn start(listen: &str) -> Replica {
    let flags = [
        "serve",
        "--listen",
        listen,
        "--http-listen",
        "127.0.0.1:0",
        "--threads",
        "1",
    ];
    let mut process = ServerProcess::start(server(&flags));
    let (grpc, http) = (process.address("grpc"), process.address("http"));
    process.wait_for("ready");
    Replica {
        process,
        grpc,
        http,
    }
}

/// A batch that is patient with its servers.
pub(crate) fn explain(address: &str, items: usize, tokens: u32) -> ExplainAll {
    let all = (0..items).map(move |i| {
        let options = ExplainOptions {
            max_new_tokens: Some(tokens),
            ignore_eos: true,
            ..ExplainOptions::default()
        };
        Item::new(format!("value_{i} = {i}")).with_options(options)
    });
    let window = Window {
        size: Some(items),
        retry: Retry {
            patience: Duration::from_secs(120),
            ..Retry::default()
        },
        ..Window::default()
    };
    let client = Client::connect(address).expect("an address");
    client.explain_all(futures::stream::iter(all), window)
}

/// What the steps add up to, as a caller sees them; `at` is called once, when this many have finished.
pub(crate) async fn follow(
    mut steps: ExplainAll,
    at: usize,
    act: impl FnOnce(),
) -> HashMap<usize, String> {
    let (mut texts, mut finished) = (HashMap::<usize, String>::new(), HashMap::new());
    let mut act = Some(act);
    while let Some(step) = steps.next().await {
        let step = step.expect("the server comes back");
        match step.progress {
            Progress::Delta(delta) => texts.entry(step.index).or_default().push_str(&delta.text),
            Progress::Restarted => panic!("{}: an exact answer is the same again", step.index),
            Progress::Finished(answer) => {
                let answer = answer.unwrap_or_else(|error| panic!("{}: {error:?}", step.index));
                let text = texts.remove(&step.index).unwrap_or_default();
                assert_eq!(text, answer.text, "{}: delivered once", step.index);
                let twice = finished.insert(step.index, answer.text);
                assert!(twice.is_none(), "{} finished twice", step.index);
            }
            Progress::Accepted(_) | Progress::Retrying { .. } => {}
        }
        if finished.len() >= at
            && let Some(act) = act.take()
        {
            act();
        }
    }
    finished
}
