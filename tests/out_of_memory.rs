//! A step that runs out of memory is tried again, smaller; an item is refused only when even one token is too much.

use tonic::Code;

use crate::common::server::TestServer;
use crate::common::stream::{TestStream, item};

#[tokio::test]
async fn large_steps_run_out_of_memory_and_nobody_notices() {
    let (server, control) = TestServer::fake(&[]).await;
    let ask = async || {
        let mut stream = TestStream::open(&server).await;
        for i in 0..8 {
            stream
                .explain(item(&i.to_string(), &format!("x = {i}")))
                .await;
        }
        stream.collect(8).await
    };
    let expected = ask().await;
    control.limit_rows(Some(3));
    for (id, outcome) in ask().await {
        assert_eq!(outcome.text, expected[&id].text);
        assert!(outcome.error.is_none(), "{:?}", outcome.error);
    }
}

#[tokio::test]
async fn an_item_that_cannot_run_is_told_to_come_back_and_the_next_one_runs() {
    let (server, control) = TestServer::fake(&[]).await;
    control.limit_rows(Some(0));
    let mut stream = TestStream::open(&server).await;
    stream.explain(item("a", "x = 1")).await;
    let error = stream.collect(1).await["a"].error.clone().expect("refused");
    assert_eq!(Code::from(error.code), Code::ResourceExhausted);
    assert!(error.retryable);
    control.limit_rows(None);
    stream.explain(item("b", "x = 1")).await;
    assert!(stream.collect(1).await["b"].done.is_some());
}
