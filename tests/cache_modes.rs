//! What the caches are to an item is said by the item.

use std::time::{Duration, Instant};

use code_explainer_client::proto::{CacheLevel, CacheMode, ExplainRequest, Replay};
use tonic::Code;

use crate::common::server::TestServer;
use crate::common::stream::{Outcome, TestStream, is_last, item};

async fn ask(server: &TestServer, id: &str, mode: CacheMode, replay: Replay) -> Outcome {
    let mut stream = TestStream::open(server).await;
    let wanted = ExplainRequest {
        cache_mode: mode.into(),
        replay: replay.into(),
        ..item(id, "x = 1")
    };
    stream.explain(wanted).await;
    stream.collect(1).await.remove(id).expect("its outcome")
}

async fn ask_for(server: &TestServer, mode: CacheMode) -> Outcome {
    ask(server, "a", mode, Replay::Unspecified).await
}

fn level(outcome: &Outcome) -> CacheLevel {
    let done = outcome.done.as_ref().expect("done");
    done.receipt.as_ref().expect("a receipt").cache()
}

#[tokio::test]
async fn only_asks_the_caches_and_computes_nothing() {
    let (server, control) = TestServer::fake(&[]).await;
    let steps = control.steps();
    let missing = ask_for(&server, CacheMode::Only).await;
    let error = missing.error.expect("an error");
    assert_eq!(error.code, Code::NotFound as i32);
    assert!(!error.retryable);
    assert_eq!(control.steps(), steps);
    let made = ask_for(&server, CacheMode::Unspecified).await;
    let steps = control.steps();
    let found = ask_for(&server, CacheMode::Only).await;
    assert_eq!(level(&found), CacheLevel::Memory);
    assert_eq!(found.text, made.text);
    assert_eq!(control.steps(), steps);
}

/// Also while the answer is being made: what would come of it is not certain.
#[tokio::test]
async fn only_does_not_wait_for_an_answer_that_is_being_made() {
    let (server, control) = TestServer::fake(&[]).await;
    control.hold();
    let mut first = TestStream::open(&server).await;
    first.begin(item("first", "x = 1")).await;
    let missing = ask_for(&server, CacheMode::Only).await;
    assert_eq!(missing.error.expect("an error").code, Code::NotFound as i32);
    control.release();
}

#[tokio::test]
async fn bypass_neither_reads_nor_writes() {
    let (server, _) = TestServer::fake(&[]).await;
    for _ in 0..2 {
        let made = ask_for(&server, CacheMode::Bypass).await;
        assert_eq!(level(&made), CacheLevel::Unspecified);
    }
    let missing = ask_for(&server, CacheMode::Only).await;
    assert!(missing.error.is_some());
    ask_for(&server, CacheMode::Unspecified).await;
    let made = ask_for(&server, CacheMode::Bypass).await;
    assert_eq!(level(&made), CacheLevel::Unspecified);
}

#[tokio::test]
async fn refresh_computes_and_overwrites() {
    let (server, control) = TestServer::fake(&[]).await;
    let made = ask_for(&server, CacheMode::Unspecified).await;
    let steps = control.steps();
    let again = ask_for(&server, CacheMode::Refresh).await;
    assert_eq!(level(&again), CacheLevel::Unspecified);
    assert_eq!(again.text, made.text);
    assert!(control.steps() > steps);
    let found = ask_for(&server, CacheMode::Only).await;
    assert_eq!(level(&found), CacheLevel::Memory);
}

/// One that is to be made anew is not what others are waiting for, nor is what others wait for made anew.
#[tokio::test]
async fn refresh_and_bypass_make_answers_of_their_own() {
    let (server, control) = TestServer::fake(&["--speculation", "off"]).await;
    control.hold();
    let mut stream = TestStream::open(&server).await;
    for (id, mode) in [
        ("default", CacheMode::Unspecified),
        ("refresh", CacheMode::Refresh),
        ("bypass", CacheMode::Bypass),
    ] {
        let wanted = ExplainRequest {
            cache_mode: mode.into(),
            ..item(id, "x = 1")
        };
        stream.explain(wanted).await;
    }
    let joined = server.metric("code_explainer_items_joined_total").await;
    control.release();
    let outcomes = stream.collect(3).await;
    let after = server.metric("code_explainer_items_joined_total").await;
    assert_eq!(joined, after);
    for (id, outcome) in &outcomes {
        assert_eq!(outcome.text, outcomes["default"].text, "{id}");
        let done = outcome.done.as_ref().expect("done");
        assert!(!done.receipt.as_ref().expect("a receipt").joined, "{id}");
    }
}

#[tokio::test]
async fn a_paced_replay_takes_the_time_of_the_original() {
    let (server, control) = TestServer::fake(&["--speculation", "off"]).await;
    control.hold();
    let mut stream = TestStream::open(&server).await;
    stream.begin(item("original", "x = 1")).await;
    let mut pace = tokio::time::interval(Duration::from_millis(30));
    for _ in 0..17 {
        pace.tick().await;
        control.allow(1);
    }
    control.release();
    stream.wait_for("original", is_last).await;
    let timed = async |replay| {
        let started = Instant::now();
        let outcome = ask(&server, "a", CacheMode::Only, replay).await;
        assert_eq!(level(&outcome), CacheLevel::Memory);
        (started.elapsed(), outcome)
    };
    let (paced, slow) = timed(Replay::Paced).await;
    let (_, fast) = timed(Replay::Unspecified).await;
    assert_eq!((slow.text, slow.deltas), (fast.text, fast.deltas));
    // Fifteen pauses of 30 ms lay between the first and the last token; the last ones may have brought no text.
    assert!(paced >= Duration::from_millis(300), "{paced:?}");
    assert!(paced < Duration::from_secs(10), "{paced:?}");
}
