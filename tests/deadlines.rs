//! An item's time, its own or its call's, is kept in the queue and in the engine; at its end there is an error, or what
//! there is by then.

use code_explainer_client::proto::explain_stream_response::Event;
use code_explainer_client::proto::{Done, ExplainRequest, FinishReason, OnDeadline};
use tonic::{Code, Request};

use crate::common::server::TestServer;
use crate::common::stream::{TestStream, is_delta, is_last, item};

const USED: &str = "code_explainer_kv_blocks{state=\"used\"}";
const GIVEN_UP: &str = "code_explainer_cancellations_total{reason=\"deadline\"}";

fn within(id: &str, milliseconds: i32, on_deadline: OnDeadline) -> ExplainRequest {
    ExplainRequest {
        timeout: Some(prost_types::Duration {
            seconds: 0,
            nanos: milliseconds * 1_000_000,
        }),
        on_deadline: on_deadline.into(),
        ..item(id, &format!("{id} = 1"))
    }
}

async fn code(stream: &mut TestStream, id: &str) -> Code {
    match stream.wait_for(id, is_last).await {
        Event::Error(error) => error.code.into(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_item_fails_at_its_deadline_in_the_queue_and_in_the_engine() {
    let (server, control) = TestServer::fake(&["--batch-size", "1"]).await;
    control.hold();
    let mut stream = TestStream::open(&server).await;
    stream.begin(within("runs", 300, OnDeadline::Fail)).await;
    stream
        .explain(within("waits", 200, OnDeadline::Unspecified))
        .await;
    assert_eq!(code(&mut stream, "waits").await, Code::DeadlineExceeded);
    assert_eq!(code(&mut stream, "runs").await, Code::DeadlineExceeded);
    control.release();
    // What it had is free at the next step.
    stream.explain(item("next", "y = 1")).await;
    assert!(stream.collect(1).await["next"].done.is_some());
    server.until_metric(USED, 0.0).await;
    assert_eq!(server.metric(GIVEN_UP).await, Some(2.0));
}

#[tokio::test]
async fn an_item_keeps_what_it_has_at_its_deadline() {
    let (server, control) = TestServer::fake(&[]).await;
    control.hold();
    control.allow(6);
    let mut stream = TestStream::open(&server).await;
    let mut kept = within("kept", 900, OnDeadline::Keep);
    kept.max_new_tokens = 200;
    kept.include_full_text = true;
    stream.explain(kept).await;
    let outcome = stream.collect(1).await.remove("kept").expect("it ends");
    let done: Done = outcome.done.expect("done");
    assert_eq!(done.finish_reason(), FinishReason::Deadline);
    let generated = done.usage.expect("usage").generated_tokens;
    assert!((1..200).contains(&generated), "{generated}");
    assert_eq!(done.full_text, outcome.text, "all of it was sent");
    control.release();
    server.until_metric(USED, 0.0).await;
    // It was cut short, so it is not what others are given.
    let mut whole = item("whole", "kept = 1");
    whole.max_new_tokens = 200;
    stream.explain(whole).await;
    let whole = stream.collect(1).await.remove("whole").expect("it ends");
    let usage = whole.done.expect("done").usage.expect("usage");
    assert_eq!(usage.generated_tokens, 200);
}

#[tokio::test]
async fn nothing_is_nothing_to_keep() {
    let (server, control) = TestServer::fake(&[]).await;
    control.hold();
    let mut stream = TestStream::open(&server).await;
    stream.explain(within("early", 100, OnDeadline::Keep)).await;
    assert_eq!(code(&mut stream, "early").await, Code::DeadlineExceeded);
    control.release();
}

#[tokio::test]
async fn a_calls_own_timeout_ends_its_items_before_it() {
    let (server, control) = TestServer::fake(&[]).await;
    control.hold();
    control.allow(5);
    let mut request = Request::new(ExplainRequest {
        on_deadline: OnDeadline::Keep.into(),
        max_new_tokens: 200,
        ..item("", "x = 1")
    });
    request.set_timeout(std::time::Duration::from_secs(2));
    let call = server.client().await.explain(request).await;
    let mut events = call.expect("accepted").into_inner();
    let mut last = None;
    while let Some(event) = events.message().await.expect("it ends in time") {
        last = event.event;
    }
    use code_explainer_client::proto::explain_response::Event;
    let Some(Event::Done(done)) = last else {
        panic!("{last:?}")
    };
    assert_eq!(done.finish_reason(), FinishReason::Deadline);
    control.release();
    server.until_metric(USED, 0.0).await;
}

#[tokio::test]
async fn one_who_joined_leaves_at_its_own_time_and_the_other_goes_on() {
    let (server, control) = TestServer::fake(&[]).await;
    control.hold();
    control.allow(4);
    let mut stream = TestStream::open(&server).await;
    stream.explain(item("patient", "x = 1")).await;
    stream.wait_for("patient", is_delta).await;
    let mut hasty = within("hasty", 300, OnDeadline::Keep);
    hasty.code = "x = 1".into();
    stream.explain(hasty).await;
    let Event::Done(done) = stream.wait_for("hasty", is_last).await else {
        panic!("it keeps what there is")
    };
    assert_eq!(done.finish_reason(), FinishReason::Deadline);
    control.release();
    let Event::Done(done) = stream.wait_for("patient", is_last).await else {
        panic!("it is answered")
    };
    assert_eq!(done.usage.expect("usage").generated_tokens, 16);
}
