//! A server that goes away under load, on its own terms or not: the Rust client loses nothing and repeats nothing.

use std::time::{Duration, Instant};

use code_explainer_client::{Client, ExplainOptions, Item, Window};

use crate::common::batch::{explain, follow, start};
use crate::common::server::TestServer;

const ITEMS: usize = 100;

#[tokio::test(flavor = "multi_thread")]
async fn a_terminated_server_loses_none_of_a_hundred_items() {
    let old = start("127.0.0.1:0");
    let address = old.grpc;
    let steps = explain(&address.to_string(), ITEMS, 12);
    let mut next = None;
    let finished = follow(steps, 10, || {
        old.process.signal("TERM");
        next = Some(std::thread::spawn(move || {
            let mut old = old.process;
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
    let old = start("127.0.0.1:0");
    let address = old.grpc;
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
