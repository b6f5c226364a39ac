//! Several engines work off one queue.

use std::sync::Arc;

use code_explainer::run::RunError;
use code_explainer_engine::EngineError;
use code_explainer_engine::fake::FakeControl;
use code_explainer_scheduler::Loader;

use crate::common::server::{TestServer, fake_loader};
use crate::common::stream::{TestStream, item};

const RUNNING: &str = "code_explainer_running_sequences";

fn fake() -> (Loader, Arc<FakeControl>) {
    let control = Arc::default();
    (fake_loader(&control), control)
}

#[tokio::test]
async fn the_engine_with_less_to_do_takes_the_next_job() {
    let ((first, one), (second, two)) = (fake(), fake());
    let server = TestServer::engines(&["--batch-size", "4"], vec![first, second]).await;
    server.ready().await;
    one.hold();
    two.hold();
    let mut stream = TestStream::open(&server).await;
    let before = [one.steps(), two.steps()];
    for (id, running) in [("a", 1.0), ("b", 2.0)] {
        stream.explain(item(id, &format!("{id} = 1"))).await;
        server.until_metric(RUNNING, running).await;
    }
    one.release();
    two.release();
    let outcomes = stream.collect(2).await;
    assert!(outcomes.values().all(|outcome| outcome.done.is_some()));
    let ran = [one.steps() - before[0], two.steps() - before[1]];
    assert!(ran[0] > 0 && ran[1] > 0, "both worked: {ran:?}");
}

#[tokio::test]
async fn an_engine_that_hangs_leaves_the_queue_to_the_other() {
    let ((first, one), (second, _)) = (fake(), fake());
    let server = TestServer::engines(&["--batch-size", "1"], vec![first, second]).await;
    server.ready().await;
    one.hold();
    let mut stream = TestStream::open(&server).await;
    for i in 0..6 {
        stream
            .explain(item(&i.to_string(), &format!("x = {i}")))
            .await;
    }
    // One of the six may be with the engine that hangs.
    let outcomes = stream.collect(5).await;
    assert_eq!(outcomes.values().filter(|o| o.done.is_some()).count(), 5);
    one.release();
}

#[tokio::test]
async fn one_engine_that_cannot_load_ends_the_server() {
    let (good, _) = fake();
    let bad: Loader = Box::new(|| Err(EngineError::OutOfMemory("64 GiB of weights".into())));
    let mut server = TestServer::engines(&[], vec![good, bad]).await;
    let Err(RunError::Model(error)) = server.ended().await else {
        panic!("it went on")
    };
    assert!(error.to_string().contains("64 GiB of weights"), "{error}");
}
