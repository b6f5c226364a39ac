//! A stream outlives its connection: its client comes back and misses nothing, and hears nothing twice.

use std::collections::HashMap;
use std::time::Duration;

use code_explainer_client::proto::explain_stream_request::Request as Wish;
use code_explainer_client::proto::explain_stream_response::Event;
use code_explainer_client::proto::{
    FinishReason, GoAwayReason, Have, OnDeadline, Open, Received, Session,
};
use tonic::Code;

use crate::common::server::TestServer;
use crate::common::stream::{TestStream, is_accepted, is_delta, is_last, item};

const DETACHED: &str = "code_explainer_streams_detached";
const STREAMS_OPEN: &str = "code_explainer_streams_open";
const CANCELLED: &str = "code_explainer_items_total{outcome=\"cancelled\"}";
const UNCLAIMED: &str = "code_explainer_cancellations_total{reason=\"unclaimed\"}";
const USED: &str = "code_explainer_kv_blocks{state=\"used\"}";

async fn resumable(server: &TestServer, token: &str, have: Vec<Have>) -> (TestStream, Session) {
    let mut stream = TestStream::open(server).await;
    let open = Open {
        resumable: true,
        resume_token: token.into(),
        have,
        ..Open::default()
    };
    stream.send(Some(Wish::Open(open))).await;
    match stream.next().await {
        Some((_, Event::Session(session))) => (stream, session),
        other => panic!("the terms come first, not {other:?}"),
    }
}

/// What a client has.
#[derive(Default)]
struct Client {
    items: HashMap<String, (Have, String, bool)>,
}

impl Client {
    fn take(&mut self, (id, event): (String, Event)) {
        let (have, text, ended) = self.items.entry(id.clone()).or_default();
        have.id = id;
        assert!(!*ended, "nothing comes after the last event");
        match event {
            Event::Accepted(_) => assert!(!std::mem::replace(&mut have.accepted, true)),
            Event::Delta(delta) => {
                assert_eq!(delta.sequence, have.next_sequence, "no gap and no repeat");
                have.next_sequence += 1;
                text.push_str(&delta.text);
            }
            Event::Done(_) => *ended = true,
            other => panic!("{other:?}"),
        }
    }

    fn have(&self) -> Vec<Have> {
        let waits = self.items.values().filter(|(_, _, ended)| !ended);
        waits.map(|(have, _, _)| have.clone()).collect()
    }
}

#[tokio::test]
async fn it_goes_on_without_a_gap_or_a_repeat_however_often_it_breaks() {
    let (server, control) = TestServer::fake(&["--speculation", "off"]).await;
    control.hold();
    let (mut stream, mut session) = resumable(&server, "", Vec::new()).await;
    let wanted = |i: usize| {
        let mut wanted = item(&format!("item-{i}"), &format!("x = {i}"));
        wanted.max_new_tokens = 120;
        wanted
    };
    let mut client = Client::default();
    for i in 0..6 {
        stream.explain(wanted(i)).await;
        let accepted = stream.wait_for(&format!("item-{i}"), is_accepted).await;
        client.take((format!("item-{i}"), accepted));
    }
    for round in 0..5 {
        control.allow(12);
        for _ in 0..(3 + 10 * round) {
            client.take(stream.next().await.expect("it goes on"));
        }
        drop(stream);
        // The engine goes on while nobody reads.
        control.allow(6);
        let mut have = client.have();
        have.push(Have {
            id: "never sent".into(),
            ..Have::default()
        });
        (stream, session) = resumable(&server, &session.resume_token, have).await;
        assert!(session.resumed);
        assert_eq!(session.unknown, ["never sent"]);
    }
    control.release();
    while client.items.values().any(|(_, _, ended)| !ended) {
        client.take(stream.next().await.expect("it goes on"));
    }
    let mut plain = TestStream::open(&server).await;
    for i in 0..6 {
        plain.explain(wanted(i)).await;
    }
    for (id, outcome) in plain.collect(6).await {
        assert_eq!(client.items[&id].1, outcome.text, "{id}");
    }
}

#[tokio::test]
async fn what_ended_unheard_is_told_again_and_what_is_not_wanted_is_given_up() {
    let (server, control) = TestServer::fake(&[]).await;
    let (stream, session) = resumable(&server, "", Vec::new()).await;
    stream.explain(item("ended", "x = 1")).await;
    server
        .until_metric("code_explainer_items_total{outcome=\"done\"}", 1.0)
        .await;
    control.hold();
    stream.explain(item("unwanted", "y = 1")).await;
    server
        .until_metric("code_explainer_running_sequences", 1.0)
        .await;
    drop(stream);
    server.until_metric(DETACHED, 1.0).await;
    let have = vec![Have {
        id: "ended".into(),
        ..Have::default()
    }];
    let (mut stream, session) = resumable(&server, &session.resume_token, have).await;
    assert!(session.resumed && session.unknown.is_empty());
    let outcome = stream.collect(1).await.remove("ended").expect("told again");
    assert!(outcome.done.is_some() && outcome.deltas == 1);
    server.until_metric(UNCLAIMED, 1.0).await;
    control.release();
    server.until_metric(USED, 0.0).await;
    // What the client says it has is kept no more.
    let ids = vec!["ended".into()];
    stream.send(Some(Wish::Received(Received { ids }))).await;
    stream.explain(item("after", "z = 1")).await;
    stream.wait_for("after", is_last).await;
    drop(stream);
    let have = vec![Have {
        id: "ended".into(),
        ..Have::default()
    }];
    let (_, session) = resumable(&server, &session.resume_token, have).await;
    assert_eq!(session.unknown, ["ended"]);
}

#[tokio::test]
async fn what_a_client_has_not_read_when_all_is_said_is_kept_for_it() {
    let (server, _) = TestServer::fake(&[]).await;
    let (mut stream, session) = resumable(&server, "", Vec::new()).await;
    stream.explain(item("unread", "x = 1")).await;
    stream.half_close();
    server.until_metric(STREAMS_OPEN, 0.0).await;
    drop(stream);
    let have = vec![Have {
        id: "unread".into(),
        ..Have::default()
    }];
    let (mut stream, session) = resumable(&server, &session.resume_token, have).await;
    assert!(session.resumed && session.unknown.is_empty());
    let outcome = stream.collect(1).await.remove("unread").expect("told");
    assert!(outcome.accepted && outcome.done.is_some());
    // It goes on like any other, and who has all needs nothing kept.
    stream.explain(item("after", "y = 1")).await;
    stream.wait_for("after", is_last).await;
    let ids = vec!["unread".into(), "after".into()];
    stream.send(Some(Wish::Received(Received { ids }))).await;
    stream.half_close();
    // Its end is told at once.
    while stream.next().await.is_some() {}
    let (_, fresh) = resumable(&server, &session.resume_token, Vec::new()).await;
    assert!(!fresh.resumed);
}

#[tokio::test]
async fn a_stream_that_is_over_makes_room_for_the_next_one() {
    let (server, _) = TestServer::fake(&["--resume-sessions", "1"]).await;
    let (mut stream, _) = resumable(&server, "", Vec::new()).await;
    stream.explain(item("a", "x = 1")).await;
    stream.half_close();
    while stream.next().await.is_some() {}
    let (_, second) = resumable(&server, "", Vec::new()).await;
    assert!(!second.resume_token.is_empty());
}

#[tokio::test]
async fn after_its_time_and_on_another_server_it_is_not_known() {
    let (server, control) = TestServer::fake(&["--resume-ttl", "50ms"]).await;
    control.hold();
    let (mut stream, session) = resumable(&server, "", Vec::new()).await;
    stream.begin(item("a", "x = 1")).await;
    drop(stream);
    server.until_metric(CANCELLED, 1.0).await;
    server.until_metric(DETACHED, 0.0).await;
    control.release();
    server.until_metric(USED, 0.0).await;
    let (other, _) = TestServer::fake(&[]).await;
    for server in [&server, &other] {
        let have = vec![Have {
            id: "a".into(),
            ..Have::default()
        }];
        let (mut stream, fresh) = resumable(server, &session.resume_token, have).await;
        assert!(!fresh.resumed && fresh.unknown == ["a"]);
        assert_ne!(fresh.resume_token, session.resume_token);
        stream.explain(item("a", "x = 1")).await;
        assert!(matches!(
            stream.wait_for("a", is_last).await,
            Event::Done(_)
        ));
    }
}

#[tokio::test]
async fn there_is_a_bound_to_what_is_kept() {
    let flags = ["--resume-sessions", "1", "--resume-bytes", "1"];
    let (server, _) = TestServer::fake(&flags).await;
    let (mut stream, session) = resumable(&server, "", Vec::new()).await;
    let (_, second) = resumable(&server, "", Vec::new()).await;
    assert!(second.resume_token.is_empty(), "served, but not resumable");
    stream.explain(item("large", "x = 1")).await;
    stream.wait_for("large", is_last).await;
    drop(stream);
    let have = vec![Have {
        id: "large".into(),
        ..Have::default()
    }];
    let (_, session) = resumable(&server, &session.resume_token, have).await;
    assert!(session.resumed && session.unknown == ["large"]);
}

#[tokio::test]
async fn an_old_stream_hands_back_what_was_not_begun() {
    let flags = ["--max-stream-age", "300ms", "--batch-size", "1"];
    let (server, control) = TestServer::fake(&flags).await;
    control.hold();
    let (mut stream, _) = resumable(&server, "", Vec::new()).await;
    stream.begin(item("begun", "x = 1")).await;
    server.until_metric("code_explainer_queue_depth", 0.0).await;
    stream.explain(item("waits", "y = 1")).await;
    let (reason, not_started) = go_away(&mut stream).await;
    assert_eq!(
        (reason, not_started),
        (GoAwayReason::Age, vec!["waits".into()])
    );
    stream.explain(item("late", "z = 1")).await;
    for id in ["waits", "late"] {
        let Event::Error(error) = stream.wait_for(id, is_last).await else {
            panic!("{id} is for another stream")
        };
        assert_eq!(Code::from(error.code), Code::Unavailable);
        assert!(error.retryable);
    }
    control.release();
    stream.wait_for("begun", is_delta).await;
    stream.wait_for("begun", is_last).await;
}

#[tokio::test]
async fn a_server_that_drains_says_so() {
    let (mut server, control) = TestServer::fake(&["--batch-size", "1"]).await;
    control.hold();
    let (mut stream, _) = resumable(&server, "", Vec::new()).await;
    stream.begin(item("begun", "x = 1")).await;
    server.until_metric("code_explainer_queue_depth", 0.0).await;
    stream.begin(item("waits", "y = 1")).await;
    server.terminate();
    let (reason, not_started) = go_away(&mut stream).await;
    assert_eq!(
        (reason, not_started),
        (GoAwayReason::Drain, vec!["waits".into()])
    );
    control.release();
    let Event::Done(_) = stream.wait_for("begun", is_last).await else {
        panic!("what runs is answered")
    };
    drop(stream);
    server.ended().await.expect("a clean end");
}

async fn go_away(stream: &mut TestStream) -> (GoAwayReason, Vec<String>) {
    loop {
        if let (_, Event::GoAway(told)) = stream.next().await.expect("it goes on") {
            return (told.reason(), told.not_started);
        }
    }
}

#[tokio::test]
async fn what_is_kept_of_an_answer_that_was_cut_does_not_keep_it_going() {
    let (server, control) = TestServer::fake(&["--speculation", "off"]).await;
    control.hold();
    control.allow(6);
    let (mut stream, session) = resumable(&server, "", Vec::new()).await;
    let mut cut = item("cut", "x = 1");
    cut.max_new_tokens = 200;
    cut.timeout = prost_types::Duration::try_from(Duration::from_millis(900)).ok();
    cut.on_deadline = OnDeadline::Keep.into();
    stream.explain(cut).await;
    let first = stream.collect(1).await.remove("cut").expect("it ends");
    // So that the engine looks up: of 200 tokens that is no end.
    control.allow(2);
    server.until_metric(USED, 0.0).await;
    drop(stream);
    let have = Have {
        id: "cut".into(),
        ..Have::default()
    };
    let (mut stream, session) = resumable(&server, &session.resume_token, vec![have]).await;
    assert!(session.resumed && session.unknown.is_empty(), "{session:?}");
    let again = stream.collect(1).await.remove("cut").expect("it ends");
    for outcome in [&first, &again] {
        let done = outcome.done.as_ref().expect("done");
        assert_eq!(done.finish_reason(), FinishReason::Deadline);
    }
    assert_eq!(again.text, first.text);
    control.release();
}
