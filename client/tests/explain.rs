//! One snippet, one call; and the calls that tell about the server.

use std::time::Duration;

use code_explainer_client::{Client, Code, Error, Event, ExplainOptions, FinishReason, Item};
use futures::StreamExt;

use crate::scripted::{Server, answer, nobody};

#[tokio::test]
async fn a_snippet_is_accepted_told_and_done() {
    let server = Server::start().await;
    let options = ExplainOptions {
        language: Some("python".into()),
        seed: Some(7),
        include_full_text: true,
        ..Default::default()
    };
    let item = Item::new("def f(): pass")
        .with_id("x")
        .with_options(options);
    let events: Vec<_> = server.client().explain(item).await.unwrap().collect().await;

    let events: Vec<Event> = events.into_iter().collect::<Result<_, _>>().unwrap();
    let [Event::Accepted(accepted), deltas @ .., Event::Done(done)] = events.as_slice() else {
        panic!("{events:?}");
    };
    assert_eq!(accepted.language, "python");
    let text: String = deltas
        .iter()
        .enumerate()
        .map(|(n, event)| match event {
            Event::Delta(delta) if delta.sequence == n as u64 => delta.text.as_str(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(text, answer("def f(): pass"));
    assert_eq!(done.full_text, text);
    assert_eq!(
        (done.finish_reason, done.receipt.seed),
        (FinishReason::Eos, 7)
    );
}

#[tokio::test]
async fn the_whole_text_can_be_waited_for() {
    let server = Server::start().await;
    let options = ExplainOptions {
        max_new_tokens: Some(3),
        ..Default::default()
    };
    let item = Item::new("x").with_options(options);
    let (text, done) = server
        .client()
        .explain(item)
        .await
        .unwrap()
        .finish()
        .await
        .unwrap();
    assert_eq!(text, "`x` does what ");
    assert_eq!(done.finish_reason, FinishReason::Length);
    assert_eq!(done.usage.generated_tokens, 3);
}

#[tokio::test]
async fn a_refusal_names_the_field_and_the_delay_of_its_details() {
    let server = Server::start().await;
    let refused = server
        .client()
        .explain(Item::new("refuse"))
        .await
        .unwrap_err();
    assert_eq!(
        (refused.code(), refused.field()),
        (Code::InvalidArgument, Some("code"))
    );
    assert!(!refused.is_retryable());
    assert_eq!(
        refused.to_string(),
        "the code is refused (INVALID_ARGUMENT, field code)"
    );

    let busy = server
        .client()
        .explain(Item::new("busy"))
        .await
        .unwrap_err();
    assert!(busy.is_retryable());
    assert_eq!(busy.retry_delay(), Some(Duration::from_millis(1500)));
}

#[tokio::test]
async fn without_a_server_the_error_says_where_none_is() {
    let address = nobody().await;
    let client = Client::connect(&address).unwrap();
    let error = client.explain(Item::new("x")).await.unwrap_err();
    assert!(matches!(&error, Error::Connection { address: named, .. } if *named == address));
    assert!(error.to_string().contains("Connection refused"), "{error}");
    assert_eq!(error.code(), Code::Unavailable);
}

#[tokio::test]
async fn a_client_finds_a_server_that_came_later() {
    let address = nobody().await;
    let client = Client::connect(&address).unwrap();
    client.model().await.unwrap_err();
    let server = Server::start_on(address.strip_prefix("http://").unwrap()).await;
    assert_eq!(client.model().await.unwrap().name, "scripted");
    assert_eq!(
        client.report().await.unwrap().requests.unwrap().total,
        15_432
    );
    drop(server);
}
