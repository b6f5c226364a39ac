//! Asked to stop, the server says so first, finishes what runs, and never hangs.

use code_explainer_client::proto::explain_stream_response::Event;
use tonic::Code;

use crate::common::server::TestServer;
use crate::common::stream::{TestStream, is_last, item};

#[tokio::test]
async fn running_items_are_finished_and_new_ones_refused() {
    let (mut server, control) = TestServer::fake(&[]).await;
    control.hold();
    let mut stream = TestStream::open(&server).await;
    stream.begin(item("running", "x = 1")).await;
    server.terminate();
    while server.get("/readyz").await.1 != "draining\n" {
        tokio::task::yield_now().await;
    }
    stream.explain(item("late", "y = 2")).await;
    let Event::Error(error) = stream.wait_for("late", is_last).await else {
        panic!("refused")
    };
    assert_eq!(Code::from(error.code), Code::Unavailable);
    assert!(error.retryable);
    control.release();
    let Event::Done(done) = stream.wait_for("running", is_last).await else {
        panic!("finished")
    };
    assert_eq!(done.usage.expect("usage").generated_tokens, 16);
    assert!(stream.next().await.is_none(), "the stream ends");
    server.ended().await.expect("a clean end");
}

#[tokio::test]
async fn an_engine_that_hangs_keeps_neither_its_items_nor_the_process() {
    let (mut server, control) = TestServer::fake(&["--drain-timeout", "10ms"]).await;
    let mut stream = TestStream::open(&server).await;
    control.hold();
    stream.begin(item("stuck", "x = 1")).await;
    server.terminate();
    match stream.wait_for("stuck", is_last).await {
        Event::Error(error) => {
            assert_eq!(Code::from(error.code), Code::Unavailable);
            assert!(error.retryable);
        }
        other => panic!("{other:?}"),
    }
    server.ended().await.expect("a clean end");
    control.release();
}

#[tokio::test]
async fn it_stops_while_the_model_is_still_loading() {
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let mut server = TestServer::loading(&[], move || {
        let _ = wait.recv();
        Err(code_explainer_engine::EngineError::OutOfMemory(
            "never mind".into(),
        ))
    })
    .await;
    server.terminate();
    server.ended().await.expect("a clean end");
    drop(go);
}

#[tokio::test]
async fn it_says_first_that_it_goes_and_serves_those_who_have_not_heard() {
    let (mut server, _) = TestServer::fake(&["--shutdown-grace", "400ms"]).await;
    let mut stream = TestStream::open(&server).await;
    server.terminate();
    while server.get("/readyz").await.0 != 503 {
        tokio::task::yield_now().await;
    }
    assert_eq!(server.get("/readyz").await.1, "leaving\n");
    stream.explain(item("meanwhile", "x = 1")).await;
    let last = stream.wait_for("meanwhile", is_last).await;
    assert!(matches!(last, Event::Done(_)), "{last:?}");
    server.ended().await.expect("a clean end");
}
