//! Work that nobody waits for stops, and what it held is free for others.

use crate::common::server::TestServer;
use crate::common::stream::{TestStream, is_last, item};
use code_explainer_client::proto::explain_stream_response::Event;
use tonic::Code;

const USED: &str = "code_explainer_kv_blocks{state=\"used\"}";
const CANCELLED: &str = "code_explainer_items_total{outcome=\"cancelled\"}";

#[tokio::test]
async fn a_cancelled_item_ends_with_cancelled_and_the_others_go_on() {
    let (server, control) = TestServer::fake(&[]).await;
    control.hold();
    let mut stream = TestStream::open(&server).await;
    stream.begin(item("long", "x = 1")).await;
    stream.explain(item("other", "y = 2")).await;
    stream.cancel("long").await;
    let Event::Error(error) = stream.wait_for("long", is_last).await else {
        panic!("it was not cancelled in time")
    };
    assert_eq!(Code::from(error.code), Code::Cancelled);
    assert!(!error.retryable);
    control.release();
    stream.explain(item("third", "z = 3")).await;
    stream.half_close();
    let mut done = 0;
    while let Some((_, event)) = stream.next().await {
        done += usize::from(matches!(event, Event::Done(_)));
    }
    assert_eq!(done, 2, "the others were answered");
    server.until_metric(USED, 0.0).await;
}

#[tokio::test]
async fn an_unknown_id_is_ignored() {
    let (server, _) = TestServer::fake(&[]).await;
    let mut stream = TestStream::open(&server).await;
    stream.cancel("never heard of").await;
    stream.explain(item("a", "x = 1")).await;
    assert!(stream.collect(1).await["a"].done.is_some());
}

#[tokio::test]
async fn a_queued_item_can_be_cancelled() {
    let (server, control) = TestServer::fake(&["--batch-size", "1"]).await;
    control.hold();
    let mut stream = TestStream::open(&server).await;
    stream.explain(item("running", "x = 1")).await;
    stream.explain(item("queued", "y = 2")).await;
    stream.cancel("queued").await;
    let Event::Error(error) = stream.wait_for("queued", is_last).await else {
        panic!("not so")
    };
    assert_eq!(Code::from(error.code), Code::Cancelled);
    control.release();
    stream.wait_for("running", is_last).await;
}

#[tokio::test]
async fn a_vanished_client_frees_its_blocks() {
    let (server, control) = TestServer::fake(&[]).await;
    control.hold();
    let mut stream = TestStream::open(&server).await;
    for i in 0..8 {
        stream
            .explain(item(&format!("{i}"), &format!("x = {i}")))
            .await;
    }
    for _ in 0..8 {
        stream.next().await.expect("it is accepted");
    }
    drop(stream);
    server.until_metric(CANCELLED, 8.0).await;
    // One step was under way; the next finds nothing to do.
    control.allow(1);
    server.until_metric(USED, 0.0).await;
    server
        .until_metric("code_explainer_streams_open", 0.0)
        .await;
}

#[tokio::test]
async fn a_dropped_single_call_is_cancelled() {
    let (server, _) = TestServer::fake(&[]).await;
    let mut long = item("", "x = 1");
    long.max_new_tokens = 1024;
    let mut call = server
        .client()
        .await
        .explain(long)
        .await
        .expect("accepted")
        .into_inner();
    call.message().await.expect("an event");
    drop(call);
    server.until_metric(USED, 0.0).await;
    server
        .until_metric("code_explainer_running_sequences", 0.0)
        .await;
}
