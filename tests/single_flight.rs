//! The same question asked several times at once is answered once, for all who asked.

use code_explainer_client::proto::explain_stream_response::Event;
use code_explainer_client::proto::{CacheLevel, Receipt};
use tonic::Code;

use crate::common::server::TestServer;
use crate::common::stream::{TestStream, is_accepted, is_delta, is_last, item};

const GENERATED: &str = "code_explainer_tokens_total{kind=\"generated\"}";
const JOINED: &str = "code_explainer_items_joined_total";
const USED: &str = "code_explainer_kv_blocks{state=\"used\"}";

/// How an item's answer was made, once it has ended.
async fn receipt(stream: &mut TestStream, id: &str) -> Receipt {
    match stream.wait_for(id, is_last).await {
        Event::Done(done) => done.receipt.expect("a receipt"),
        other => panic!("{id}: {other:?}"),
    }
}

/// A stream whose one item has been accepted.
async fn accepted(server: &TestServer, id: &str) -> TestStream {
    let mut stream = TestStream::open(server).await;
    stream.explain(item(id, "x = 1")).await;
    stream.wait_for(id, is_accepted).await;
    stream
}

#[tokio::test]
async fn those_who_ask_together_and_those_who_come_late_share_one_generation() {
    let (server, control) = TestServer::fake(&["--cache-size", "0", "--speculation", "off"]).await;
    control.hold();
    let mut first = TestStream::open(&server).await;
    first.begin(item("first", "x = 1")).await;
    let mut second = TestStream::open(&server).await;
    second.explain(item("second", "x = 1")).await;
    control.allow(8);
    let mut text = String::new();
    while text.is_empty() {
        if let Event::Delta(delta) = first.wait_for("first", is_delta).await {
            text = delta.text;
        }
    }
    let mut late = TestStream::open(&server).await;
    late.explain(item("late", "x = 1")).await;
    let Event::Accepted(told) = late.wait_for("late", is_accepted).await else {
        unreachable!()
    };
    assert_eq!(told.queue_position, 0, "it is being worked on");
    let Event::Delta(caught_up) = late.wait_for("late", is_delta).await else {
        unreachable!()
    };
    assert!(caught_up.text.starts_with(&text), "{:?}", caught_up.text);
    control.release();
    let second = second.collect(1).await.remove("second").expect("answered");
    let done = second.done.expect("answered");
    assert!(done.receipt.expect("a receipt").joined);
    assert!(!receipt(&mut first, "first").await.joined);
    let (mut rest, mut last) = (caught_up.text, None);
    while let Some((_, event)) = late.next().await {
        match event {
            Event::Delta(delta) => rest.push_str(&delta.text),
            event => {
                last = Some(event);
                break;
            }
        }
    }
    let Some(Event::Done(done)) = last else {
        panic!("the late one is answered, not {last:?}")
    };
    assert_eq!(rest, second.text);
    let receipt = done.receipt.expect("a receipt");
    assert!(receipt.joined);
    assert_eq!(receipt.queue_ms, 0.0, "it waited for nobody");
    server.until_metric(GENERATED, 16.0).await;
    server.until_metric(JOINED, 2.0).await;
}

#[tokio::test]
async fn it_goes_on_until_the_last_one_leaves_and_then_stops() {
    let (server, control) = TestServer::fake(&[]).await;
    control.hold();
    let mut leaver = accepted(&server, "leaver").await;
    let mut stayer = accepted(&server, "stayer").await;
    leaver.cancel("leaver").await;
    let Event::Error(error) = leaver.wait_for("leaver", is_last).await else {
        panic!("it was cancelled")
    };
    assert_eq!(Code::from(error.code), Code::Cancelled);
    control.release();
    assert!(receipt(&mut stayer, "stayer").await.joined);

    let (server, control) = TestServer::fake(&[]).await;
    control.hold();
    let mut both = [accepted(&server, "a").await, accepted(&server, "b").await];
    for (stream, id) in both.iter_mut().zip(["a", "b"]) {
        stream.cancel(id).await;
        stream.wait_for(id, is_last).await;
    }
    control.release();
    server.until_metric(USED, 0.0).await;
    let mut again = TestStream::open(&server).await;
    again.explain(item("again", "x = 1")).await;
    let receipt = receipt(&mut again, "again").await;
    assert!(!receipt.joined, "nothing was left to join");
    assert_eq!(receipt.cache(), CacheLevel::Unspecified, "nor in the cache");
}

#[tokio::test]
async fn a_failure_is_everybodys_and_is_not_kept() {
    let (server, control) = TestServer::fake(&[]).await;
    control.hold();
    let mut both = [accepted(&server, "a").await, accepted(&server, "b").await];
    control.fail_next_step();
    control.release();
    for (stream, id) in both.iter_mut().zip(["a", "b"]) {
        let Event::Error(error) = stream.wait_for(id, is_last).await else {
            panic!("its step failed")
        };
        assert!(error.retryable, "{error:?}");
        stream.explain(item("again", "x = 1")).await;
        receipt(stream, "again").await;
    }
}

#[tokio::test]
async fn it_can_be_turned_off() {
    let flags = ["--single-flight", "off", "--cache-size", "0"];
    let (server, control) = TestServer::fake(&flags).await;
    control.hold();
    let mut streams = [accepted(&server, "a").await, accepted(&server, "b").await];
    control.release();
    for (stream, id) in streams.iter_mut().zip(["a", "b"]) {
        assert!(!receipt(stream, id).await.joined);
    }
    server.until_metric(GENERATED, 32.0).await;
}
