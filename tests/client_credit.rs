//! The Rust client sends a stream no more than the server has told it that it may.

use code_explainer_client::{Client, Item, Progress, Retry, Step, Window};
use futures::{StreamExt, stream};

use crate::common::server::TestServer;

/// Explains so many snippets of 12 to 20 bytes, over so many streams, and counts those that were refused at first.
async fn refusals(server: &TestServer, items: usize, streams: u16) -> usize {
    let snippet = |n: usize| Item::new(format!("x = {n:0width$}", width = 8 + n % 9));
    let window = Window {
        size: Some(64),
        streams: Some(streams),
        retry: Retry::default(),
    };
    let client = Client::connect(&server.uri()).expect("an address");
    let mut steps = client.explain_all(stream::iter((0..items).map(snippet)), window);
    let (mut answered, mut refused) = (0, 0);
    while let Some(step) = steps.next().await {
        let Step { progress, .. } = step.expect("the batch goes on");
        match progress {
            Progress::Finished(answer) => {
                answer.expect("an answer");
                answered += 1;
            }
            Progress::Retrying { .. } => refused += 1,
            Progress::Accepted(_) | Progress::Delta(_) | Progress::Restarted => {}
        }
    }
    assert_eq!(answered, items);
    refused
}

#[tokio::test]
async fn bytes_of_code() {
    let flags = ["--max-code-bytes", "20", "--stream-code-bytes", "50"];
    let (server, _) = TestServer::fake(&flags).await;
    assert_eq!(refusals(&server, 100, 1).await, 0);
    assert_eq!(refusals(&server, 100, 3).await, 0);
}

#[tokio::test]
async fn items() {
    let (server, _) = TestServer::fake(&["--stream-items", "3"]).await;
    assert_eq!(refusals(&server, 100, 2).await, 0);
}
