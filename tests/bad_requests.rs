//! Bad input gets its own error, and nothing else is disturbed.

use code_explainer_client::proto::ExplainRequest;
use code_explainer_client::proto::explain_stream_response::Event;
use code_explainer_engine::fake::FakeControl;
use tonic::Code;
use tonic_types::StatusExt;

use crate::common::server::TestServer;
use crate::common::stream::{TestStream, is_accepted, is_last, item};

/// A good item with one thing wrong, and the field that is blamed.
fn bad_items() -> Vec<(&'static str, ExplainRequest)> {
    let bad = |change: fn(&mut ExplainRequest)| {
        let mut wanted = item("bad", "x = 1");
        change(&mut wanted);
        wanted
    };
    vec![
        ("code", bad(|r| r.code.clear())),
        ("code", bad(|r| r.code = "x".repeat(70_000))),
        ("code", bad(|r| r.code = "word ".repeat(12_000))),
        ("id", bad(|r| r.id.clear())),
        ("id", bad(|r| r.id = "é".repeat(200))),
        ("strategy", bad(|r| r.strategy = "telepathy".into())),
        ("language", bad(|r| r.language = "x".repeat(300))),
        ("temperature", bad(|r| r.temperature = f32::NAN)),
        ("temperature", bad(|r| r.temperature = f32::NEG_INFINITY)),
        ("top_p", bad(|r| r.top_p = -0.5)),
        ("top_k", bad(|r| r.top_k = i32::MIN)),
        (
            "repetition_penalty",
            bad(|r| r.repetition_penalty = f32::NAN),
        ),
        ("max_new_tokens", bad(|r| r.max_new_tokens = -1)),
        ("max_new_tokens", bad(|r| r.max_new_tokens = i32::MAX)),
        ("min_new_tokens", bad(|r| r.min_new_tokens = 17)),
        ("stop", bad(|r| r.stop = vec![String::new()])),
    ]
}

#[tokio::test]
async fn each_bad_item_gets_an_error_that_names_its_field_and_the_good_ones_are_answered() {
    let (server, _) = TestServer::fake(&[]).await;
    let mut stream = TestStream::open(&server).await;
    stream.explain(item("good-before", "a = 1")).await;
    for (field, bad) in bad_items() {
        stream.explain(bad).await;
        loop {
            let (id, event) = stream.next().await.expect("goes on");
            let Event::Error(error) = event else { continue };
            assert_eq!(error.field, field, "{}", error.message);
            assert_eq!(
                Code::from(error.code),
                Code::InvalidArgument,
                "{}",
                error.message
            );
            assert!(
                !error.retryable && error.message.starts_with(field),
                "{}",
                error.message
            );
            assert!(id.len() <= 256);
            break;
        }
    }
    stream.send(None).await;
    let Event::Error(error) = stream.wait_for("", is_last).await else {
        panic!("refused")
    };
    assert_eq!(error.field, "request");
    stream.explain(item("good-after", "b = 2")).await;
    let Event::Done(_) = stream.wait_for("good-after", is_last).await else {
        panic!("answered")
    };
}

#[tokio::test]
async fn a_duplicate_id_in_flight_is_refused_and_the_first_goes_on() {
    let (server, control) = TestServer::fake(&[]).await;
    control.hold();
    let mut stream = TestStream::open(&server).await;
    stream.begin(item("same", "x = 1")).await;
    stream.explain(item("same", "y = 2")).await;
    let Event::Error(error) = stream.wait_for("same", is_last).await else {
        panic!("refused")
    };
    assert_eq!(Code::from(error.code), Code::AlreadyExists);
    control.release();
    let Event::Done(_) = stream.wait_for("same", is_last).await else {
        panic!("answered")
    };
}

#[tokio::test]
async fn a_single_call_fails_with_a_status_that_names_the_field() {
    let (server, _) = TestServer::fake(&[]).await;
    let mut bad = item("", "x = 1");
    bad.top_p = 7.0;
    let status = server
        .client()
        .await
        .explain(bad)
        .await
        .expect_err("refused");
    assert_eq!(status.code(), Code::InvalidArgument);
    let details = status.get_details_bad_request().expect("details");
    assert_eq!(details.field_violations[0].field, "top_p");
}

#[tokio::test]
async fn a_full_queue_refuses_with_a_delay_and_keeps_what_it_has() {
    let (server, control) = TestServer::fake(&["--queue-items", "3", "--batch-size", "1"]).await;
    control.hold();
    let mut stream = TestStream::open(&server).await;
    stream.begin(item("running", "x = 0")).await;
    // Until the engine has taken it out of the queue.
    server.until_metric("code_explainer_queue_depth", 0.0).await;
    for i in 0..3 {
        let id = format!("queued-{i}");
        stream.explain(item(&id, &format!("y = {i}"))).await;
        let Event::Accepted(accepted) = stream.wait_for(&id, is_accepted).await else {
            continue;
        };
        assert_eq!(accepted.queue_position, i);
    }
    stream.explain(item("too many", "z = 1")).await;
    let Event::Error(error) = stream.wait_for("too many", is_last).await else {
        panic!("full")
    };
    assert_eq!(Code::from(error.code), Code::ResourceExhausted);
    assert!(error.retryable && error.retry_delay.is_some());
    control.release();
    stream.half_close();
    let mut done = 0;
    while let Some((_, event)) = stream.next().await {
        done += usize::from(matches!(event, Event::Done(_)));
    }
    assert_eq!(done, 4, "all that were accepted");
}

#[tokio::test]
async fn a_stream_has_a_bound_of_its_own() {
    let (server, control) = TestServer::fake(&["--stream-items", "2"]).await;
    control.hold();
    let mut stream = TestStream::open(&server).await;
    for id in ["a", "b", "c"] {
        stream.explain(item(id, "x = 1")).await;
    }
    let Event::Error(error) = stream.wait_for("c", is_last).await else {
        panic!("refused")
    };
    assert_eq!(Code::from(error.code), Code::ResourceExhausted);
    let mut other = TestStream::open(&server).await;
    other.begin(item("c", "x = 1")).await;
    control.release();
    stream.half_close();
    let mut done = 0;
    while let Some((_, event)) = stream.next().await {
        done += usize::from(matches!(event, Event::Done(_)));
    }
    assert_eq!(done, 2);
}

#[tokio::test]
async fn a_failed_step_fails_its_items_and_the_server_goes_on() {
    let (server, control) = TestServer::fake(&["--cache-size", "0"]).await;
    for fail in [FakeControl::fail_next_step, FakeControl::panic_in_next_step] {
        fail(&control);
        let mut stream = TestStream::open(&server).await;
        stream.explain(item("hit", "x = 1")).await;
        let Event::Error(error) = stream.wait_for("hit", is_last).await else {
            panic!("fails")
        };
        assert_eq!(Code::from(error.code), Code::Internal);
        assert!(error.retryable);
        stream.explain(item("next", "x = 1")).await;
        let Event::Done(_) = stream.wait_for("next", is_last).await else {
            panic!("goes on")
        };
    }
    server
        .until_metric("code_explainer_kv_blocks{state=\"used\"}", 0.0)
        .await;
}

#[tokio::test]
async fn bytes_that_are_no_message_end_that_stream_alone() {
    use tonic::codegen::http::uri::PathAndQuery;
    let (server, _) = TestServer::fake(&[]).await;
    let mut good = TestStream::open(&server).await;
    good.explain(item("a", "x = 1")).await;
    // A message of another type under the method's path: its bytes do not parse as a request.
    let channel = server.channel().await;
    let mut grpc = tonic::client::Grpc::new(channel);
    grpc.ready().await.expect("connected");
    let path = PathAndQuery::from_static("/codeexplainer.v1.ExplainService/ExplainStream");
    let garbage = prost_types::Value {
        kind: Some(prost_types::value::Kind::StringValue(
            "\u{1}\u{2}garbage".into(),
        )),
    };
    let codec = tonic_prost::ProstCodec::<prost_types::Value, prost_types::Value>::default();
    let request = tonic::Request::new(tokio_stream::iter([garbage]));
    let mut responses = grpc
        .streaming(request, path, codec)
        .await
        .expect("a stream")
        .into_inner();
    let status = responses.message().await.expect_err("it is told");
    assert!(status.message().contains("decode"), "{status:?}");
    assert!(good.collect(1).await["a"].done.is_some());
}
