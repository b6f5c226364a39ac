//! Limits of what a tenant may ask for.

use code_explainer_client::proto::EmbedRequest;
use code_explainer_client::proto::explain_stream_response::Event;
use tonic::Code;
use tonic_types::StatusExt;

use crate::common::server::TestServer;
use crate::common::stream::{TestStream, is_last, item};

#[tokio::test]
async fn more_items_than_the_rate_are_refused_with_the_time_to_wait() {
    let (server, _) = TestServer::fake(&["--rate-items", "3/h"]).await;
    let mut stream = TestStream::open(&server).await;
    for id in ["a", "b", "c"] {
        stream.explain(item(id, "x = 1")).await;
        assert!(matches!(stream.wait_for(id, is_last).await, Event::Done(_)));
    }
    stream.explain(item("d", "x = 1")).await;
    let Event::Error(error) = stream.wait_for("d", is_last).await else {
        panic!("refused")
    };
    assert_eq!(Code::from(error.code), Code::ResourceExhausted);
    let wait = error.retry_delay.expect("when to come back").seconds;
    assert!(error.retryable && (1100..=1200).contains(&wait), "{wait}");

    let status = server.client().await.explain(item("", "x = 1")).await;
    let mut events = status.expect("a stream").into_inner();
    let status = events.message().await.expect_err("refused");
    assert!(
        status
            .get_details_retry_info()
            .expect("retry info")
            .retry_delay
            .is_some()
    );
    let counted = "code_explainer_rate_limited_total{what=\"items\"}";
    assert_eq!(server.metric(counted).await, Some(2.0));
}

#[tokio::test]
async fn tokens_are_counted_by_what_an_item_may_need_and_cached_answers_take_none() {
    let (server, _) = TestServer::fake(&["--rate-tokens", "200/h"]).await;
    let mut stream = TestStream::open(&server).await;
    let ask = |id: &str, code: &str, tokens| {
        let mut wanted = item(id, code);
        wanted.max_new_tokens = tokens;
        wanted
    };
    stream.explain(ask("first", "x = 1", 90)).await;
    assert!(matches!(
        stream.wait_for("first", is_last).await,
        Event::Done(_)
    ));
    stream.explain(ask("more", "y = 1", 90)).await;
    let Event::Error(error) = stream.wait_for("more", is_last).await else {
        panic!("refused")
    };
    assert!(
        error.retryable && error.message.contains("200/h tokens"),
        "{}",
        error.message
    );
    stream.explain(ask("again", "x = 1", 90)).await;
    assert!(
        matches!(stream.wait_for("again", is_last).await, Event::Done(_)),
        "from the cache"
    );
    stream.explain(ask("never", "z = 1", 300)).await;
    let Event::Error(error) = stream.wait_for("never", is_last).await else {
        panic!("refused")
    };
    assert!(!error.retryable, "no time to wait is long enough");
}

#[tokio::test]
async fn texts_to_embed_count_as_items_whole_or_not_at_all() {
    let (server, _) = TestServer::fake(&["--rate-items", "3/h"]).await;
    let texts = vec!["x".to_owned(); 4];
    let status = server.client().await.embed(EmbedRequest { texts }).await;
    let status = status.expect_err("more than there ever are");
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert!(status.get_details_retry_info().is_none(), "{status}");
    // Nothing was taken of the three.
    let mut stream = TestStream::open(&server).await;
    for id in ["a", "b", "c"] {
        stream.explain(item(id, "x = 1")).await;
        assert!(matches!(stream.wait_for(id, is_last).await, Event::Done(_)));
    }
}
