//! An engine that hangs or dies is found, and started again; its items fail as retryable, and what waits goes on.

use std::sync::Arc;

use code_explainer_client::proto::explain_stream_response::Event;
use code_explainer_engine::fake::FakeControl;
use tonic::Code;

use crate::common::server::{TestServer, fake_loader};
use crate::common::stream::{TestStream, is_delta, is_last, item};

const WEDGED: &str = "code_explainer_engine_restarts_total{cause=\"wedged\"}";
const USED: &str = "code_explainer_kv_blocks{state=\"used\"}";
const RUNNING: &str = "code_explainer_running_sequences";
/// What comes after an engine that hangs is to be done, however busy this machine is: so long no step of it takes.
const FOR_A_BUSY_MACHINE: &str = "2s";

async fn wedged(stream: &mut TestStream, id: &str) {
    let Event::Error(error) = stream.wait_for(id, is_last).await else {
        panic!("it failed")
    };
    assert_eq!(
        Code::from(error.code),
        Code::Unavailable,
        "{}",
        error.message
    );
    assert!(error.retryable);
}

#[tokio::test]
async fn a_wedged_engine_fails_its_items_and_is_started_again() {
    let flags = ["--step-timeout", FOR_A_BUSY_MACHINE, "--batch-size", "1"];
    let (server, control) = TestServer::fake(&flags).await;
    let mut stream = TestStream::open(&server).await;
    let end = control.hang_in_next_step();
    stream.begin(item("stuck", "x = 1")).await;
    stream.explain(item("waits", "y = 2")).await;
    wedged(&mut stream, "stuck").await;
    assert_eq!(server.metric(WEDGED).await, Some(1.0));
    // What had not begun is done by the engine's next life.
    let Event::Done(done) = stream.wait_for("waits", is_last).await else {
        panic!("it is answered")
    };
    assert_eq!(done.usage.expect("usage").generated_tokens, 16);
    // The old thread comes back at last: what it did goes nowhere.
    drop(end);
    stream.explain(item("after", "z = 3")).await;
    assert!(stream.collect(1).await["after"].done.is_some());
    server.until_metric(USED, 0.0).await;
    server.until_metric(RUNNING, 0.0).await;
}

#[tokio::test]
async fn readiness_is_lost_with_the_last_engine_and_comes_back_with_it() {
    let flags = ["--step-timeout", "50ms", "--ready-max-age", "1h"];
    let (server, control) = TestServer::fake(&flags).await;
    let mut stream = TestStream::open(&server).await;
    let end = control.hang_in_next_step();
    // The next life hangs as it is loaded, until it is let go.
    control.hold();
    control.allow(1);
    stream.explain(item("stuck", "x = 1")).await;
    wedged(&mut stream, "stuck").await;
    while server.get("/readyz").await.0 != 503 {
        tokio::task::yield_now().await;
    }
    assert_eq!(server.get("/healthz").await.0, 200, "it is alive");
    control.release();
    server.ready().await;
    drop(end);
}

#[tokio::test]
async fn one_engine_goes_on_while_the_other_is_started_again() {
    let (one, two) = (Arc::<FakeControl>::default(), Arc::default());
    let engines = vec![fake_loader(&one), fake_loader(&two)];
    let flags = ["--step-timeout", FOR_A_BUSY_MACHINE, "--batch-size", "1"];
    let server = TestServer::engines(&flags, engines).await;
    server.ready().await;
    let ends = [one.hang_in_next_step(), two.hang_in_next_step()];
    let mut stream = TestStream::open(&server).await;
    stream.explain(item("a", "x = 1")).await;
    stream.explain(item("b", "x = 2")).await;
    stream.explain(item("c", "x = 3")).await;
    let outcomes = stream.collect(3).await;
    // Which two the engines had begun is nobody's to say: their prompts are made side by side.
    let done = outcomes.values().filter(|outcome| outcome.done.is_some());
    assert_eq!(done.count(), 1, "{outcomes:?}");
    let failed = outcomes
        .values()
        .filter_map(|outcome| outcome.error.as_ref());
    assert_eq!(
        failed.filter(|error| error.retryable).count(),
        2,
        "{outcomes:?}"
    );
    drop(ends);
}

#[tokio::test]
async fn an_engine_that_never_comes_back_ends_the_server() {
    let flags = ["--step-timeout", "50ms", "--engine-restarts", "0"];
    let (mut server, control) = TestServer::fake(&flags).await;
    let end = control.hang_in_next_step();
    let stream = TestStream::open(&server).await;
    stream.explain(item("stuck", "x = 1")).await;
    let error = server.ended().await.expect_err("it gives up");
    assert!(
        error.to_string().contains("started again 0 times"),
        "{error}"
    );
    drop(end);
}

#[tokio::test]
async fn an_idle_engine_shows_now_and_then_that_it_works() {
    let (server, control) = TestServer::fake(&["--ready-max-age", "100ms"]).await;
    let before = control.steps();
    while control.steps() < before + 3 {
        tokio::task::yield_now().await;
    }
    assert_eq!(server.get("/readyz").await.0, 200);
    // One that does not get through its test is not ready, though nobody has asked it for anything.
    control.hold();
    while server.get("/readyz").await.0 != 503 {
        tokio::task::yield_now().await;
    }
    control.release();
    server.ready().await;
    let mut stream = TestStream::open(&server).await;
    stream.explain(item("a", "x = 1")).await;
    stream.wait_for("a", is_delta).await;
}
