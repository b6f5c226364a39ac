//! Many snippets on one bidirectional stream, as the contract has it.

use std::collections::HashMap;
use std::sync::atomic::Ordering::Relaxed;

use code_explainer_client::{Code, Error, Event, EventReceiver, Item};
use futures::StreamExt;

use crate::scripted::{Server, answer};

/// Reads to the end: the ids of all events in order, and what each item came to.
async fn read(
    mut receiver: EventReceiver,
) -> (Vec<String>, HashMap<String, Result<String, Error>>) {
    let (mut order, mut texts, mut ends) = (Vec::new(), HashMap::new(), HashMap::new());
    while let Some(event) = receiver.next().await {
        let event = event.unwrap();
        let text: &mut String = texts.entry(event.id.clone()).or_default();
        order.push(event.id.clone());
        let end = match event.event {
            Ok(Event::Accepted(_) | Event::Queued(_)) => continue,
            Ok(Event::Delta(delta)) => {
                text.push_str(&delta.text);
                continue;
            }
            Ok(Event::Done(_)) => Ok(text.clone()),
            Err(error) => Err(error),
        };
        assert!(
            ends.insert(event.id.clone(), end).is_none(),
            "{} ended twice",
            event.id
        );
    }
    (order, ends)
}

#[tokio::test]
async fn interleaved_answers_are_told_apart_by_id() {
    let server = Server::start().await;
    server.seen.gather.store(3, Relaxed);
    let (sender, receiver) = server.client().stream();
    for id in ["a", "b", "c"] {
        sender
            .explain(Item::new(format!("code of {id}")).with_id(id))
            .await
            .unwrap();
    }
    drop(sender);
    let (order, ends) = read(receiver).await;
    assert_eq!(order[..6], ["a", "b", "c", "a", "b", "c"]);
    for id in ["a", "b", "c"] {
        assert_eq!(ends[id], Ok(answer(&format!("code of {id}"))));
    }
    assert_eq!(server.seen.ended_well.load(Relaxed), 1);
}

#[tokio::test]
async fn an_items_error_leaves_the_others_alone() {
    let server = Server::start().await;
    server.seen.gather.store(2, Relaxed);
    let (sender, receiver) = server.client().stream();
    sender
        .explain(Item::new("refuse me").with_id("bad"))
        .await
        .unwrap();
    sender
        .explain(Item::new("fine").with_id("good"))
        .await
        .unwrap();
    drop(sender);
    let (_, ends) = read(receiver).await;
    let error = ends["bad"].as_ref().unwrap_err();
    assert_eq!(
        (error.code(), error.field()),
        (Code::InvalidArgument, Some("code"))
    );
    assert_eq!(ends["good"], Ok(answer("fine")));
}

#[tokio::test]
async fn a_cancelled_item_ends_as_cancelled() {
    let server = Server::start().await;
    let (sender, mut receiver) = server.client().stream();
    sender
        .explain(Item::new("hold on").with_id("h"))
        .await
        .unwrap();
    for _ in 0..2 {
        receiver.next().await.unwrap().unwrap().event.unwrap();
    }
    sender.cancel("h").await.unwrap();
    drop(sender);
    let (_, ends) = read(receiver).await;
    assert_eq!(ends["h"].as_ref().unwrap_err().code(), Code::Cancelled);
    assert_eq!(*server.seen.cancelled.lock().unwrap(), ["h"]);
}

#[tokio::test]
async fn a_broken_stream_says_so_once_and_takes_no_more() {
    let server = Server::start().await;
    let (sender, mut receiver) = server.client().stream();
    sender.explain(Item::new("die").with_id("x")).await.unwrap();
    let error = receiver.next().await.unwrap().unwrap_err();
    assert_eq!(
        (error.code(), error.to_string()),
        (Code::Internal, "it crashed (INTERNAL)".into())
    );
    assert_eq!(receiver.next().await, None);
    assert_eq!(sender.explain(Item::new("x")).await, Err(Error::Closed));
}
