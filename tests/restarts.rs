//! A server that goes away under load, on its own terms or not: the Rust client loses nothing and repeats nothing.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use code_explainer_client::{Client, ExplainAll, ExplainOptions, Item, Progress, Retry, Window};
use futures::StreamExt;

use crate::common::programs::{ServerProcess, server};
use crate::common::server::TestServer;

const ITEMS: usize = 100;

fn start(listen: &str) -> (ServerProcess, SocketAddr) {
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
    let address = process.address("grpc");
    process.wait_for("ready");
    (process, address)
}

fn explain(address: &str, items: usize, tokens: u32) -> ExplainAll {
    let items = (0..items).map(move |i| {
        let options = ExplainOptions {
            max_new_tokens: Some(tokens),
            ignore_eos: true,
            ..ExplainOptions::default()
        };
        Item::new(format!("value_{i} = {i}")).with_options(options)
    });
    let window = Window {
        size: Some(ITEMS),
        retry: Retry {
            patience: Duration::from_secs(120),
            ..Retry::default()
        },
        ..Window::default()
    };
    let client = Client::connect(address).expect("an address");
    client.explain_all(futures::stream::iter(items), window)
}

/// What the steps add up to, as a caller sees them; `at` is called once, when this many have finished.
async fn follow(mut steps: ExplainAll, at: usize, act: impl FnOnce()) -> HashMap<usize, String> {
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

#[tokio::test(flavor = "multi_thread")]
async fn a_terminated_server_loses_none_of_a_hundred_items() {
    let (old, address) = start("127.0.0.1:0");
    let steps = explain(&address.to_string(), ITEMS, 12);
    let mut next = None;
    let finished = follow(steps, 10, || {
        old.signal("TERM");
        next = Some(std::thread::spawn(move || {
            let mut old = old;
            assert!(old.ended().success(), "{:?}", old.said);
            start(&address.to_string())
        }));
    })
    .await;
    assert_eq!(finished.len(), ITEMS);
    let _again = next.expect("it was terminated").join().expect("it is back");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_server_that_comes_back_loses_nothing_and_repeats_nothing() {
    let (old, address) = start("127.0.0.1:0");
    let steps = explain(&address.to_string(), ITEMS, 12);
    let mut next = None;
    let finished = follow(steps, 10, || {
        next = Some(std::thread::spawn(move || {
            drop(old);
            start(&address.to_string())
        }));
    })
    .await;
    assert_eq!(finished.len(), ITEMS);
    let _again = next.expect("it was killed").join().expect("it is back");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_follows_streams_that_end_of_old_age() {
    let flags = ["--max-stream-age", "50ms", "--batch-size", "2"];
    let (server, control) = TestServer::fake(&flags).await;
    let slowed = std::thread::spawn({
        let control = control.clone();
        move || {
            control.hold();
            let until = Instant::now() + Duration::from_secs(2);
            while Instant::now() < until {
                control.allow(1);
                std::thread::sleep(Duration::from_millis(1));
            }
            control.release();
        }
    });
    let client = Client::connect(&server.uri()).expect("an address");
    let items = (0..200).map(|i| {
        let options = ExplainOptions {
            max_new_tokens: Some(12),
            ignore_eos: true,
            ..ExplainOptions::default()
        };
        Item::new(format!("value_{i} = {i}")).with_options(options)
    });
    let window = Window {
        size: Some(20),
        streams: Some(3),
        ..Window::default()
    };
    let steps = client.explain_all(futures::stream::iter(items), window);
    let finished = follow(steps, usize::MAX, || {}).await;
    assert_eq!(finished.len(), 200);
    slowed.join().expect("it ends");
}
