//! A client that does not read on costs nobody but itself: its answers come in larger pieces, then not at all.

use std::collections::HashMap;

use code_explainer_client::proto::explain_service_client::ExplainServiceClient;
use tonic::Code;
use tonic::transport::Endpoint;

use crate::common::server::TestServer;
use crate::common::stream::{Outcome, TestStream, item};

const ITEMS: usize = 8;
const TOKENS: i32 = 1000;
const GENERATED: &str = "code_explainer_tokens_total{kind=\"generated\"}";
const PARKED: &str = "code_explainer_items_parked";

/// A stream over which little can be sent that is not read, with items that have far more to say.
async fn silent(server: &TestServer) -> TestStream {
    let endpoint = Endpoint::from_shared(server.uri()).expect("a URI");
    let channel = endpoint
        .initial_stream_window_size(1024)
        .connect()
        .await
        .expect("the server listens");
    let stream = TestStream::open_on(ExplainServiceClient::new(channel)).await;
    for i in 0..ITEMS {
        let mut wanted = item(&format!("slow-{i}"), &format!("y = {i}"));
        wanted.max_new_tokens = TOKENS;
        stream.explain(wanted).await;
    }
    stream
}

#[tokio::test]
async fn its_answers_wait_in_the_log_and_come_in_larger_pieces() {
    let (server, _) = TestServer::fake(&["--queue-items", "64"]).await;
    let mut slow = silent(&server).await;
    // The engine does not wait for it.
    let all = f64::from(TOKENS) * ITEMS as f64;
    server.until_metric(GENERATED, all).await;
    server.until_metric(PARKED, ITEMS as f64).await;
    server
        .until_metric("code_explainer_kv_blocks{state=\"used\"}", 0.0)
        .await;
    // Nor does anybody else.
    let mut quick = TestStream::open(&server).await;
    for i in 0..ITEMS {
        let mut wanted = item(&format!("slow-{i}"), &format!("y = {i}"));
        wanted.max_new_tokens = TOKENS;
        quick.explain(wanted).await;
    }
    let wanted = quick.collect(ITEMS).await;
    let outcomes = slow.collect(ITEMS).await;
    let texts = |outcomes: &HashMap<String, Outcome>| {
        let mut texts: Vec<_> = (outcomes.iter())
            .map(|(id, o)| (id.clone(), o.text.clone(), o.done.is_some()))
            .collect();
        texts.sort();
        texts
    };
    assert_eq!(texts(&outcomes), texts(&wanted));
    let deltas: u64 = outcomes.values().map(|outcome| outcome.deltas).sum();
    assert!(
        deltas < all as u64 / 2,
        "{deltas} deltas for {all} tokens are not coalesced"
    );
    server.until_metric(PARKED, 0.0).await;
}

#[tokio::test]
async fn at_last_its_items_are_shed_and_its_stream_is_closed() {
    let (server, _) = TestServer::fake(&["--slow-reader-timeout", "200ms"]).await;
    let mut slow = silent(&server).await;
    server
        .until_metric("code_explainer_items_shed_total", ITEMS as f64)
        .await;
    server
        .until_metric("code_explainer_streams_open", 0.0)
        .await;
    server.until_metric(PARKED, 0.0).await;
    let mut quick = TestStream::open(&server).await;
    quick.explain(item("quick", "z = 1")).await;
    assert!(quick.collect(1).await["quick"].done.is_some());
    let status = loop {
        match slow.try_next().await.expect("it says why it ends") {
            Ok(_) => {}
            Err(status) => break status,
        }
    };
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert!(status.message().contains("not read"), "{status:?}");
}
