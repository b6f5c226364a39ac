//! Two replicas that are asked the same generate it once, with a real Redis between them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use code_explainer_client::proto::Usage;
use code_explainer_client::proto::explain_stream_response::Event;
use code_explainer_engine::fake::FakeControl;

use crate::common::redis::{RedisServer, eventually};
use crate::common::server::TestServer;
use crate::common::stream::{Outcome, TestStream, is_delta, is_last, item};

const GENERATED: &str = "code_explainer_tokens_total{kind=\"generated\"}";

async fn redis() -> RedisServer {
    let server = tokio::task::spawn_blocking(RedisServer::start);
    server.await.expect("a Redis")
}

async fn replica(redis: &RedisServer, lease: &str) -> (TestServer, Arc<FakeControl>) {
    let url = redis.url();
    let flags = [
        "--redis-url",
        url.as_str(),
        "--redis-timeout",
        "20s",
        "--redis-lease",
        lease,
        "--stream-items",
        "1000",
        "--speculation",
        "off",
    ];
    TestServer::fake(&flags).await
}

async fn generated(server: &TestServer) -> f64 {
    server.metric(GENERATED).await.unwrap_or(0.0)
}

async fn all(server: &TestServer, count: usize) -> HashMap<String, Outcome> {
    let mut stream = TestStream::open(server).await;
    for n in 0..count {
        stream.explain(item(&n.to_string(), "x = 1")).await;
    }
    stream.collect(count).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_who_ask_two_replicas_at_once_cost_one_generation() {
    let redis = redis().await;
    let (one, _) = replica(&redis, "20s").await;
    let (two, _) = replica(&redis, "20s").await;
    let before = generated(&one).await + generated(&two).await;
    let (first, second) = tokio::join!(all(&one, 500), all(&two, 500));
    let text = first["0"].text.clone();
    assert!(!text.is_empty());
    assert_eq!(first.len() + second.len(), 1000);
    for outcome in first.values().chain(second.values()) {
        assert!(outcome.error.is_none(), "{:?}", outcome.error);
        assert!(outcome.done.is_some());
        assert_eq!(outcome.text, text);
    }
    let after = generated(&one).await + generated(&two).await;
    assert_eq!(after - before, 16.0, "the tokens of one answer");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_waiter_streams_what_the_other_replica_makes() {
    let redis = redis().await;
    let (one, control) = replica(&redis, "20s").await;
    let (two, other) = replica(&redis, "20s").await;
    control.hold();
    let mut first = TestStream::open(&one).await;
    first.begin(item("a", "x = 1")).await;
    let steps = other.steps();
    let mut second = TestStream::open(&two).await;
    second.explain(item("b", "x = 1")).await;
    control.allow(8);
    // It arrives there while the answer is far from complete.
    second.wait_for("b", is_delta).await;
    control.release();
    let Event::Done(done) = first.wait_for("a", is_last).await else {
        panic!("it is answered");
    };
    let mut rest = 0;
    let end = loop {
        match second.next().await.expect("the stream goes on").1 {
            event if is_delta(&event) => rest += 1,
            event => break event,
        }
    };
    assert!(rest > 0, "and the rest after it");
    let Event::Done(joined) = end else {
        panic!("{end:?}");
    };
    assert_eq!(
        joined.usage,
        done.usage.map(|usage| {
            Usage {
                cached_tokens: 0,
                ..usage
            }
        })
    );
    assert!(joined.receipt.expect("a receipt").joined);
    assert_eq!(other.steps(), steps, "nothing is computed there");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_whose_replica_is_gone_is_finished_by_the_waiter() {
    let redis = redis().await;
    let (one, control) = replica(&redis, "300ms").await;
    let (two, _) = replica(&redis, "300ms").await;
    let whole = {
        let (alone, _) = TestServer::fake(&["--speculation", "off"]).await;
        all(&alone, 1).await.remove("0").expect("answered").text
    };
    control.hold();
    let mut first = TestStream::open(&one).await;
    first.begin(item("a", "x = 1")).await;
    let second = tokio::spawn({
        let mut stream = TestStream::open(&two).await;
        stream.explain(item("b", "x = 1")).await;
        async move { stream.collect(1).await.remove("b").expect("answered") }
    });
    control.allow(8);
    let followed = async || {
        let name = "code_explainer_redis_shared_answers_total{role=\"followed\"}";
        two.metric(name).await.filter(|followed| *followed == 1.0)
    };
    eventually("the second one reads what the first one makes", followed).await;
    // Nobody wants the answer from the first replica any more.
    drop(first);
    let outcome = tokio::time::timeout(Duration::from_secs(60), second).await;
    let outcome = outcome.expect("in time").expect("no panic");
    assert!(outcome.error.is_none(), "{:?}", outcome.error);
    assert_eq!(outcome.text, whole, "no gap, and nothing twice");
    control.release();
}
