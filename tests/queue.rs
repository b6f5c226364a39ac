//! The queue: its bounds, its order, and what it tells those who wait.

use code_explainer_client::proto::explain_stream_response::Event;
use code_explainer_client::proto::{ExplainRequest, ItemError, Priority};
use tonic::Code;

use crate::common::server::TestServer;
use crate::common::stream::{TestStream, is_accepted, is_last, item};

fn of(id: &str, priority: Priority) -> ExplainRequest {
    ExplainRequest {
        priority: priority.into(),
        max_new_tokens: 1,
        ..item(id, &format!("{id} = 1"))
    }
}

async fn accepted(stream: &mut TestStream, id: &str) -> u32 {
    match stream.wait_for(id, is_accepted).await {
        Event::Accepted(accepted) => accepted.queue_position,
        other => panic!("{other:?}"),
    }
}

async fn answered(stream: &mut TestStream, id: &str) {
    let last = stream.wait_for(id, is_last).await;
    assert!(matches!(last, Event::Done(_)), "{last:?}");
}

async fn refused(stream: &mut TestStream, id: &str) -> ItemError {
    match stream.wait_for(id, is_last).await {
        Event::Error(error) => error,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn places_are_told_and_told_again_as_they_change() {
    let (server, control) = TestServer::fake(&["--batch-size", "1"]).await;
    control.hold();
    let mut stream = TestStream::open(&server).await;
    stream.explain(of("runs", Priority::Normal)).await;
    assert_eq!(accepted(&mut stream, "runs").await, 0);
    server.until_metric("code_explainer_queue_depth", 0.0).await;
    for (n, id) in ["a", "b", "c"].into_iter().enumerate() {
        stream.explain(of(id, Priority::Normal)).await;
        assert_eq!(accepted(&mut stream, id).await, n as u32);
    }
    stream.explain(of("urgent", Priority::Interactive)).await;
    assert_eq!(
        accepted(&mut stream, "urgent").await,
        0,
        "before the others"
    );
    let Event::Queued(queued) = stream
        .wait_for("c", |e| matches!(e, Event::Queued(_)))
        .await
    else {
        panic!("it is told")
    };
    assert_eq!(queued.queue_position, 3);
    stream.cancel("a").await;
    assert_eq!(
        Code::from(refused(&mut stream, "a").await.code),
        Code::Cancelled
    );
    // Each is of one token, so that a step ends one of them. What ends close together may be told in any order.
    let mut order = Vec::new();
    while order.len() < 4 {
        control.allow(1);
        order.push(loop {
            if let (id, Event::Done(_)) = stream.next().await.expect("there are more to come") {
                break id;
            }
        });
    }
    assert_eq!(order, ["runs", "urgent", "b", "c"]);
}

#[tokio::test]
async fn who_asks_for_what_waits_already_makes_it_as_urgent() {
    let (server, control) = TestServer::fake(&["--batch-size", "1"]).await;
    control.hold();
    let mut stream = TestStream::open(&server).await;
    stream.explain(of("runs", Priority::Normal)).await;
    accepted(&mut stream, "runs").await;
    server.until_metric("code_explainer_queue_depth", 0.0).await;
    let bulk = of("shared", Priority::Bulk);
    stream.explain(bulk.clone()).await;
    accepted(&mut stream, "shared").await;
    stream.explain(of("normal", Priority::Normal)).await;
    assert_eq!(accepted(&mut stream, "normal").await, 0, "before the bulk");
    let same = ExplainRequest {
        id: "joins".into(),
        priority: Priority::Interactive.into(),
        ..bulk
    };
    stream.explain(same).await;
    accepted(&mut stream, "joins").await;
    let moved = stream.wait_for("normal", |e| matches!(e, Event::Queued(_)));
    let Event::Queued(queued) = moved.await else {
        panic!("it is told")
    };
    assert_eq!(queued.queue_position, 1, "behind what is urgent now");
    let mut order = Vec::new();
    for answers in [1, 2, 1] {
        control.allow(1);
        let mut ended = Vec::new();
        while ended.len() < answers {
            if let (id, Event::Done(_)) = stream.next().await.expect("there are more to come") {
                ended.push(id);
            }
        }
        ended.sort();
        order.push(ended.join(" and "));
    }
    assert_eq!(order, ["runs", "joins and shared", "normal"]);
}

#[tokio::test]
async fn a_queue_full_of_items_says_when_to_come_back() {
    let (server, control) = TestServer::fake(&["--batch-size", "1", "--queue-items", "2"]).await;
    let mut stream = TestStream::open(&server).await;
    // Something has to have left for its rate to be known.
    stream.explain(item("first", "x = 0")).await;
    stream.wait_for("first", is_last).await;
    control.hold();
    stream.begin(item("runs", "x = 1")).await;
    server.until_metric("code_explainer_queue_depth", 0.0).await;
    for id in ["a", "b"] {
        stream.explain(item(id, &format!("{id} = 1"))).await;
        stream.wait_for(id, is_accepted).await;
    }
    stream.explain(item("c", "c = 1")).await;
    let error = refused(&mut stream, "c").await;
    assert_eq!(Code::from(error.code), Code::ResourceExhausted);
    assert!(error.retryable && error.retry_delay.is_some());
    assert!(error.message.contains("2 items"), "{}", error.message);
    control.release();
    for id in ["runs", "a", "b"] {
        answered(&mut stream, id).await;
    }
}

#[tokio::test]
async fn a_queue_full_of_prompt_tokens_takes_no_more_of_them() {
    let flags = ["--batch-size", "1", "--queue-tokens", "100"];
    let (server, control) = TestServer::fake(&flags).await;
    control.hold();
    let mut stream = TestStream::open(&server).await;
    stream.begin(item("runs", "x = 1")).await;
    server.until_metric("code_explainer_queue_depth", 0.0).await;
    // Longer than all of it: it may wait, but alone.
    stream.begin(item("long", &"y = 2\n".repeat(60))).await;
    stream.explain(item("more", "z = 3")).await;
    let error = refused(&mut stream, "more").await;
    assert_eq!(Code::from(error.code), Code::ResourceExhausted);
    assert!(
        error.message.contains("100 prompt tokens"),
        "{}",
        error.message
    );
    control.release();
    for id in ["runs", "long"] {
        answered(&mut stream, id).await;
    }
}
