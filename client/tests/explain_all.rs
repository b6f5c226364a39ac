//! Each item gets one answer, whatever happens to items and streams.

use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use code_explainer_client::{
    Answer, Client, Code, Error, ExplainOptions, Item, Progress, Retry, Step, Window,
};
use futures::{StreamExt, stream};

use crate::scripted::{Server, answer, at_once, nobody};

fn items<const N: usize>(codes: [&'static str; N]) -> stream::Iter<impl Iterator<Item = Item>> {
    stream::iter(codes.into_iter().map(Item::new))
}

fn window() -> Window {
    Window {
        size: None,
        retry: at_once(),
        streams: None,
    }
}

async fn answers<const N: usize>(
    server: &Server,
    codes: [&'static str; N],
) -> Vec<Result<Answer, Error>> {
    server
        .client()
        .explain_all(items(codes), window())
        .answers()
        .await
        .unwrap()
}

/// All steps of one item, put together as a consumer does: its text, and what else happened.
async fn follow(server: &Server, code: &'static str) -> (String, Vec<&'static str>) {
    let mut steps = server.client().explain_all(items([code]), window());
    let (mut text, mut log) = (String::new(), Vec::new());
    while let Some(step) = steps.next().await {
        match step.unwrap().progress {
            Progress::Accepted(_) => log.push("accepted"),
            Progress::Delta(delta) => text.push_str(&delta.text),
            Progress::Restarted => {
                text.clear();
                log.push("restarted");
            }
            Progress::Retrying { .. } => log.push("retrying"),
            Progress::Finished(result) => {
                assert_eq!(result.unwrap().text, text);
                log.push("finished");
            }
        }
    }
    (text, log)
}

#[tokio::test]
async fn all_items_are_answered_in_their_order_within_the_servers_window() {
    let server = Server::start().await;
    let codes: Vec<String> = (0..40).map(|n| format!("code {n}")).collect();
    // Equal, empty and overlong ids are the caller's own affair.
    let ids = ["", "same", "same", &"long".repeat(200)].map(str::to_owned);
    let items: Vec<Item> = codes
        .iter()
        .zip(ids.iter().cycle())
        .map(|(c, id)| Item::new(c).with_id(id))
        .collect();
    let steps = server.client().explain_all(stream::iter(items), window());
    let texts: Vec<String> = steps
        .answers()
        .await
        .unwrap()
        .into_iter()
        .map(|answer| answer.unwrap().text)
        .collect();
    assert_eq!(
        texts,
        codes.iter().map(|code| answer(code)).collect::<Vec<_>>()
    );
    assert_eq!(server.seen.streams.load(Relaxed), 1);
    assert!(server.seen.most_in_flight.load(Relaxed) <= 4);
}

#[tokio::test]
async fn a_failure_that_may_pass_is_tried_again_after_the_delay_asked_for() {
    let server = Server::start().await;
    let begun = Instant::now();
    let results = answers(&server, ["busy 60", "fine"]).await;
    assert!(begun.elapsed() >= Duration::from_millis(60));
    let texts: Vec<_> = results
        .into_iter()
        .map(|r| r.map(|a| (a.text, a.tries)))
        .collect();
    assert_eq!(texts, [Ok((answer("busy 60"), 2)), Ok((answer("fine"), 1))]);
    assert_eq!(server.seen.streams.load(Relaxed), 1);
}

#[tokio::test]
async fn tries_are_bounded_and_other_failures_are_final() {
    let server = Server::start().await;
    let results = answers(&server, ["busy-always", "refuse", "fine"]).await;
    let codes: Vec<_> = results
        .iter()
        .map(|r| r.as_ref().err().map(Error::code))
        .collect();
    assert_eq!(
        codes,
        [
            Some(Code::ResourceExhausted),
            Some(Code::InvalidArgument),
            None
        ]
    );
    let tries = |code: &str| server.seen.codes().iter().filter(|c| *c == code).count();
    assert_eq!(
        (tries("busy-always"), tries("refuse")),
        (at_once().tries as usize, 1)
    );
}

#[tokio::test]
async fn a_broken_stream_is_opened_again_and_nothing_is_told_twice() {
    for code in ["break it", "vanish from it"] {
        let server = Server::start().await;
        let (text, log) = follow(&server, code).await;
        assert_eq!(text, answer(code));
        assert_eq!(log, ["accepted", "retrying", "finished"], "{code}");
        assert_eq!(server.seen.streams.load(Relaxed), 2);
    }
}

#[tokio::test]
async fn items_beside_the_one_that_broke_the_stream_are_answered_once() {
    let server = Server::start().await;
    server.seen.gather.store(3, Relaxed);
    let results = answers(&server, ["left", "break", "right"]).await;
    let texts: Vec<String> = results
        .into_iter()
        .map(|answer| answer.unwrap().text)
        .collect();
    assert_eq!(texts, ["left", "break", "right"].map(answer));
}

#[tokio::test]
async fn a_try_that_says_something_else_voids_the_first() {
    let server = Server::start().await;
    let (text, log) = follow(&server, "waver").await;
    assert!(text.starts_with("`waver` wavers what "), "{text}");
    assert_eq!(log, ["accepted", "retrying", "restarted", "finished"]);
}

#[tokio::test]
async fn a_server_that_shuts_down_is_left_for_another_stream() {
    let server = Server::start().await;
    server.seen.gather.store(2, Relaxed);
    let results = server
        .client()
        .explain_all(items(["drain", "beside"]), window())
        .answers()
        .await
        .unwrap();
    assert!(results.iter().all(Result::is_ok), "{results:?}");
    assert_eq!(server.seen.streams.load(Relaxed), 2);
    // What was in flight there was let finish.
    assert_eq!(
        server
            .seen
            .codes()
            .iter()
            .filter(|code| *code == "beside")
            .count(),
        1
    );
}

#[tokio::test]
async fn sampling_is_seeded_so_that_a_second_try_says_the_same() {
    let server = Server::start().await;
    let options = ExplainOptions {
        temperature: Some(0.8),
        ..Default::default()
    };
    let item = Item::new("busy 0").with_options(options);
    server
        .client()
        .explain_all(stream::iter([item]), window())
        .answers()
        .await
        .unwrap();
    let seeds: Vec<_> = server
        .seen
        .items
        .lock()
        .unwrap()
        .iter()
        .map(|(i, _)| i.seed)
        .collect();
    assert!(
        seeds.len() == 2 && seeds[0].is_some() && seeds[0] == seeds[1],
        "{seeds:?}"
    );
}

#[tokio::test]
async fn code_over_the_servers_limit_fails_alone_and_unsent() {
    let server = Server::start().await;
    let large = Item::new("x".repeat(1001));
    let steps = server
        .client()
        .explain_all(stream::iter([large, Item::new("fine")]), window());
    let results = steps.answers().await.unwrap();
    let error = results[0].as_ref().unwrap_err();
    assert_eq!(
        (error.code(), error.field()),
        (Code::InvalidArgument, Some("code"))
    );
    assert!(results[1].is_ok());
    assert_eq!(server.seen.codes(), ["fine"]);
}

#[tokio::test]
async fn a_server_that_is_not_there_or_always_breaks_ends_the_steps() {
    let client = Client::connect(&nobody().await).unwrap();
    let error = client
        .explain_all(items(["x"]), window())
        .answers()
        .await
        .unwrap_err();
    assert!(error.is_connection(), "{error}");

    let server = Server::start().await;
    let steps = server.client().explain_all(items(["die"]), window());
    assert_eq!(steps.answers().await.unwrap_err().code(), Code::Internal);
    assert_eq!(
        server.seen.streams.load(Relaxed),
        Retry::default().tries as usize
    );
}

#[tokio::test]
async fn cancelling_tells_the_server_and_finishes_every_item_taken() {
    let server = Server::start().await;
    let mut steps = server
        .client()
        .explain_all(items(["hold 1", "hold 2"]), window());
    let canceller = steps.canceller();
    let mut ended = Vec::new();
    let mut spoken = 0;
    while let Some(step) = steps.next().await {
        let Step {
            index, progress, ..
        } = step.unwrap();
        match progress {
            Progress::Delta(_) => spoken += 1,
            Progress::Finished(result) => ended.push((index, result.unwrap_err().code())),
            _ => {}
        }
        if spoken == 2 {
            canceller.cancel();
        }
    }
    ended.sort_by_key(|(index, _)| *index);
    assert_eq!(ended, [(0, Code::Cancelled), (1, Code::Cancelled)]);
    assert_eq!(server.seen.cancelled.lock().unwrap().len(), 2);
}

#[tokio::test]
async fn dropping_the_steps_ends_the_stream() {
    let server = Server::start().await;
    let mut closed = server.seen.closed.subscribe();
    let mut steps = server.client().explain_all(items(["hold"]), window());
    while !matches!(
        steps.next().await,
        Some(Ok(Step {
            progress: Progress::Delta(_),
            ..
        }))
    ) {}
    drop(steps);
    closed.wait_for(|closed| *closed == 1).await.unwrap();
    assert_eq!(server.seen.ended_well.load(Relaxed), 0);
}
