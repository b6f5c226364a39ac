//! Many snippets on one stream: interleaved, told apart by id, each ended exactly once.

use code_explainer_client::proto::FinishReason;

use crate::common::server::TestServer;
use crate::common::stream::{TestStream, item};

#[tokio::test]
async fn items_are_in_flight_together_and_each_ends_once() {
    let (server, _) = TestServer::fake(&[]).await;
    let mut stream = TestStream::open(&server).await;
    for i in 0..16 {
        stream
            .explain(item(&format!("item-{i}"), &format!("x = {i}")))
            .await;
    }
    stream.half_close();
    let outcomes = stream.collect(16).await;
    assert!(
        stream.next().await.is_none(),
        "the stream ends when all is answered"
    );
    assert_eq!(outcomes.len(), 16);
    for (id, outcome) in outcomes {
        let done = outcome
            .done
            .unwrap_or_else(|| panic!("{id}: {:?}", outcome.error));
        assert_eq!(done.finish_reason(), FinishReason::Length);
        assert_eq!(done.usage.expect("usage").generated_tokens, 16);
    }
}

#[tokio::test]
async fn the_receipt_tells_how_it_was_made() {
    let (server, _) = TestServer::fake(&["--replica", "test-replica"]).await;
    let mut stream = TestStream::open(&server).await;
    let mut wanted = item("a", "print('hello')");
    (wanted.seed, wanted.include_full_text, wanted.include_prompt) = (Some(7), true, true);
    stream.explain(wanted).await;
    let outcome = stream.collect(1).await.remove("a").expect("its outcome");
    let done = outcome.done.expect("done");
    assert_eq!(done.full_text, outcome.text);
    assert!(
        outcome.prompt.contains("print('hello')"),
        "{}",
        outcome.prompt
    );
    let receipt = done.receipt.expect("receipt");
    assert_eq!(receipt.replica, "test-replica");
    assert_eq!(
        (receipt.model.as_str(), receipt.precision.as_str()),
        ("fake", "fp32")
    );
    assert_eq!((receipt.seed, receipt.largest_batch), (7, 1));
    assert_eq!(receipt.strategy, "vanilla");
    let parts = receipt.queue_ms + receipt.prefill_ms;
    assert!((receipt.time_to_first_token_ms - parts).abs() < 1e-6);
    assert!(done.usage.expect("usage").prompt_tokens > 10);
}

#[tokio::test]
async fn an_id_may_be_used_again_after_its_last_event() {
    let (server, _) = TestServer::fake(&["--cache-size", "0"]).await;
    let mut stream = TestStream::open(&server).await;
    for _ in 0..20 {
        stream.explain(item("same", "x = 1")).await;
        let outcome = stream.collect(1).await.remove("same").expect("its outcome");
        assert!(outcome.done.is_some(), "{:?}", outcome.error);
    }
}

#[tokio::test]
async fn a_single_call_streams_one_answer() {
    use code_explainer_client::proto::explain_response::Event;
    let (server, _) = TestServer::fake(&[]).await;
    let mut responses = server
        .client()
        .await
        .explain(item("", "x = 1"))
        .await
        .expect("accepted")
        .into_inner();
    let mut kinds = Vec::new();
    while let Some(response) = responses.message().await.expect("no error") {
        kinds.push(match response.event.expect("an event") {
            Event::Accepted(_) => "accepted",
            Event::Delta(_) => "delta",
            // Nothing is before it, and nothing comes between.
            Event::Queued(_) => "queued",
            Event::Done(_) => "done",
        });
    }
    kinds.dedup();
    assert_eq!(kinds, ["accepted", "delta", "done"]);
}

#[tokio::test]
async fn a_slow_reader_does_not_slow_the_others() {
    let (server, _) = TestServer::fake(&["--cache-size", "0"]).await;
    // It asks for far more than the outlet holds, and reads nothing.
    let mut slow = TestStream::open(&server).await;
    for i in 0..8 {
        let mut wanted = item(&format!("slow-{i}"), "y = 2");
        wanted.max_new_tokens = 500;
        slow.explain(wanted).await;
    }
    let mut quick = TestStream::open(&server).await;
    for i in 0..20 {
        quick
            .explain(item(&format!("quick-{i}"), &format!("z = {i}")))
            .await;
    }
    let outcomes = quick.collect(20).await;
    assert!(outcomes.values().all(|o| o.done.is_some()));
    // And the slow one still gets everything when it reads on.
    let outcomes = slow.collect(8).await;
    assert!(outcomes.values().all(|o| o.done.is_some()));
}
