//! What is kept for clients is shared between tenants: none takes what another may have, however much it asks for.

use code_explainer_client::proto::explain_stream_request::Request as Wish;
use code_explainer_client::proto::explain_stream_response::Event;
use code_explainer_client::proto::{
    CacheLevel, CacheMode, Done, ExplainRequest, Have, Open, Session,
};

use crate::common::certificates::Files;
use crate::common::keys::make_key;
use crate::common::server::TestServer;
use crate::common::stream::{TestStream, is_accepted, is_last, item};

/// A server with two tenants that know each other's names, and their tokens.
struct Two {
    server: TestServer,
    control: std::sync::Arc<code_explainer_engine::fake::FakeControl>,
    greedy: String,
    modest: String,
    _files: Files,
}

impl Two {
    async fn new(flags: &[&str]) -> Self {
        let files = Files::new();
        let (greedy, first) = make_key("g", "greedy", "explain");
        let (modest, second) = make_key("m", "modest", "explain");
        let book = files.write("book", &(first + &second));
        let flags = [&["--auth-file", &book][..], flags].concat();
        let (server, control) = TestServer::fake(&flags).await;
        Self {
            server,
            control,
            greedy,
            modest,
            _files: files,
        }
    }

    async fn stream(&self, token: &str) -> TestStream {
        let bearer = format!("Bearer {token}").parse().expect("a header");
        TestStream::open_with(&self.server, |metadata| {
            metadata.insert("authorization", bearer);
        })
        .await
    }

    async fn resumable(&self, token: &str, resume: &str, have: &[&str]) -> (TestStream, Session) {
        let mut stream = self.stream(token).await;
        let have = have.iter().map(|id| Have {
            id: (*id).into(),
            ..Have::default()
        });
        let open = Open {
            resumable: true,
            resume_token: resume.into(),
            have: have.collect(),
            ..Open::default()
        };
        stream.send(Some(Wish::Open(open))).await;
        match stream.next().await {
            Some((_, Event::Session(session))) => (stream, session),
            other => panic!("the terms come first, not {other:?}"),
        }
    }
}

async fn ask(stream: &mut TestStream, wanted: ExplainRequest) -> Option<Done> {
    let id = wanted.id.clone();
    stream.explain(wanted).await;
    match stream.wait_for(&id, is_last).await {
        Event::Done(done) => Some(done),
        _ => None,
    }
}

const DISPLACED: &str = "code_explainer_sessions_displaced_total";
const DETACHED: &str = "code_explainer_streams_detached";

#[tokio::test]
async fn who_has_all_the_resumable_streams_gives_others_their_share() {
    let two = Two::new(&["--resume-sessions", "4"]).await;
    let mut of_greedy = Vec::new();
    for _ in 0..4 {
        let (stream, session) = two.resumable(&two.greedy, "", &[]).await;
        assert!(!session.resume_token.is_empty());
        of_greedy.push((stream, session));
    }
    // More than there may be is served without, where nobody has more than who asks.
    let (_fifth, session) = two.resumable(&two.greedy, "", &[]).await;
    assert_eq!(session.resume_token, "");
    // One whose client is away goes first, though others are older.
    let (away, away_session) = of_greedy.remove(2);
    drop(away);
    two.server.until_metric(DETACHED, 1.0).await;
    let (first, first_session) = two.resumable(&two.modest, "", &[]).await;
    assert!(!first_session.resume_token.is_empty());
    two.server.until_metric(DISPLACED, 1.0).await;
    two.server.until_metric(DETACHED, 0.0).await;
    let (_back, session) = two
        .resumable(&two.greedy, &away_session.resume_token, &["x"])
        .await;
    assert!(!session.resumed && session.unknown == ["x"]);
    // Then the oldest is served on without.
    let (_second, session) = two.resumable(&two.modest, "", &[]).await;
    assert!(!session.resume_token.is_empty());
    assert_eq!(two.server.metric(DISPLACED).await, Some(2.0));
    let (mut oldest, oldest_session) = of_greedy.remove(0);
    assert!(ask(&mut oldest, item("a", "x = 1")).await.is_some());
    drop(oldest);
    let (_back, session) = two
        .resumable(&two.greedy, &oldest_session.resume_token, &[])
        .await;
    assert!(!session.resumed);
    // Both have two: nobody makes room for a third.
    for token in [&two.greedy, &two.modest] {
        let (_third, session) = two.resumable(token, "", &[]).await;
        assert_eq!(session.resume_token, "");
    }
    // And what they have holds.
    drop(first);
    two.server.until_metric(DETACHED, 1.0).await;
    let token = &first_session.resume_token;
    let (_first, session) = two.resumable(&two.modest, token, &[]).await;
    assert!(session.resumed);
}

#[tokio::test]
async fn items_of_a_stream_that_made_room_are_given_up_with_it() {
    let two = Two::new(&["--resume-sessions", "2"]).await;
    two.control.hold();
    let (mut runs, _) = two.resumable(&two.greedy, "", &[]).await;
    let (_other, _) = two.resumable(&two.greedy, "", &[]).await;
    runs.begin(item("a", "x = 1")).await;
    drop(runs);
    two.server.until_metric(DETACHED, 1.0).await;
    let (_modest, session) = two.resumable(&two.modest, "", &[]).await;
    assert!(!session.resume_token.is_empty());
    let given_up = "code_explainer_cancellations_total{reason=\"unclaimed\"}";
    two.server.until_metric(given_up, 1.0).await;
    two.control.release();
    let used = "code_explainer_kv_blocks{state=\"used\"}";
    two.server.until_metric(used, 0.0).await;
}

#[tokio::test]
async fn a_flood_of_tiny_answers_takes_no_place_of_another_tenants() {
    let two = Two::new(&["--cache-size", "64", "--queue-items", "64"]).await;
    let mut modest = two.stream(&two.modest).await;
    for n in 0..20 {
        let wanted = item(&format!("{n}"), &format!("mine = {n}"));
        ask(&mut modest, wanted).await.expect("answered");
    }
    let mut greedy = two.stream(&two.greedy).await;
    for n in 0..300 {
        let mut tiny = item(&format!("{n}"), &format!("t = {n}"));
        tiny.max_new_tokens = 1;
        ask(&mut greedy, tiny).await.expect("answered");
    }
    for n in 0..20 {
        let mut again = item(&format!("again-{n}"), &format!("mine = {n}"));
        again.cache_mode = CacheMode::Only.into();
        let done = ask(&mut modest, again).await.expect("it is still there");
        let receipt = done.receipt.expect("a receipt");
        assert_eq!(receipt.cache(), CacheLevel::Memory);
    }
    // The flood had what was left.
    let mut last = item("last", "t = 299");
    last.max_new_tokens = 1;
    last.cache_mode = CacheMode::Only.into();
    assert!(ask(&mut greedy, last).await.is_some());
}

#[tokio::test]
async fn who_has_half_of_all_items_in_flight_leaves_room_for_others() {
    let two = Two::new(&["--in-flight-items", "16"]).await;
    two.control.hold();
    let taken = async |token: &str| {
        let mut stream = two.stream(token).await;
        let mut taken = 0;
        for n in 0..10 {
            let id = format!("{n}");
            stream.explain(item(&id, &format!("x = {n}"))).await;
            match stream.wait_for(&id, |_| true).await {
                Event::Accepted(_) => taken += 1,
                Event::Error(error) => {
                    assert_eq!(
                        tonic::Code::from(error.code),
                        tonic::Code::ResourceExhausted
                    );
                    assert!(error.retryable && error.message.contains("16"), "{error:?}");
                }
                other => panic!("{other:?}"),
            }
        }
        (stream, taken)
    };
    let (mut greedy, first) = taken(&two.greedy).await;
    let (_more, second) = taken(&two.greedy).await;
    assert_eq!((first, second), (8, 0));
    let (_modest, others) = taken(&two.modest).await;
    assert_eq!(others, 4);
    two.control.release();
    greedy.wait_for("7", is_last).await;
    let done = ask(&mut greedy, item("again", "y = 1")).await;
    assert!(done.is_some(), "what has ended has given its place back");
}

#[tokio::test]
async fn calls_of_their_own_are_items_in_flight_until_their_answers_are_read() {
    let (server, control) = TestServer::fake(&["--in-flight-items", "16"]).await;
    let mut client = server.client().await;
    control.hold();
    let mut unread = Vec::new();
    for n in 0..8 {
        let answer = client.explain(item("", &format!("x = {n}"))).await;
        let mut answer = answer.expect("there is room").into_inner();
        answer.message().await.expect("an event");
        unread.push(answer);
    }
    let refused = client.explain(item("", "y = 1")).await;
    let status = refused.expect_err("half of them are in flight");
    assert_eq!(status.code(), tonic::Code::ResourceExhausted, "{status}");
    assert!(status.message().contains("16"), "{status}");
    control.release();
    let mut read = unread.pop().expect("eight");
    while read.message().await.expect("an event").is_some() {}
    let mut again = client
        .explain(item("", "y = 1"))
        .await
        .expect("room again")
        .into_inner();
    assert!(again.message().await.expect("an event").is_some());
}

#[tokio::test]
async fn a_receipt_tells_of_others_load_where_that_is_wanted() {
    for (flags, told) in [
        (&[][..], false),
        (&["--report-load", "always"][..], true),
        (&["--report-load", "never"][..], false),
    ] {
        let flags = [&["--batch-size", "4", "--cache-size", "0"][..], flags].concat();
        let two = Two::new(&flags).await;
        let mut greedy = two.stream(&two.greedy).await;
        let mut modest = two.stream(&two.modest).await;
        two.control.hold();
        for n in 0..8 {
            let id = format!("{n}");
            greedy.explain(item(&id, &format!("x = {n}"))).await;
            greedy.wait_for(&id, is_accepted).await;
        }
        modest.explain(item("mine", "y = 1")).await;
        let Event::Accepted(accepted) = modest.wait_for("mine", is_accepted).await else {
            panic!("accepted");
        };
        two.control.release();
        let done = loop {
            match modest.next().await.expect("it goes on") {
                (_, Event::Done(done)) => break done,
                (_, Event::Queued(_)) => assert!(told, "its place is told"),
                _ => {}
            }
        };
        let receipt = done.receipt.expect("a receipt");
        assert_eq!(accepted.queue_position > 0, told, "{flags:?}");
        assert_eq!(receipt.largest_batch > 0, told, "{flags:?}");
        assert_eq!(receipt.queue_ms > 0.0, told, "{flags:?}");
        assert!(receipt.prefill_ms > 0.0 && receipt.time_to_first_token_ms > 0.0);
    }
    // Where there are no tenants there is nothing to hide.
    let (server, _) = TestServer::fake(&[]).await;
    let mut stream = TestStream::open(&server).await;
    let done = ask(&mut stream, item("a", "x = 1"))
        .await
        .expect("answered");
    assert_eq!(done.receipt.expect("a receipt").largest_batch, 1);
}
