//! What a client gets that opens its stream: credit, answers in order, progress, replaced items.

use code_explainer_client::proto::explain_stream_request::Request as Wish;
use code_explainer_client::proto::explain_stream_response::Event;
use code_explainer_client::proto::{Open, Order, Progress, Session};
use tonic::Code;

use crate::common::server::TestServer;
use crate::common::stream::{TestStream, is_accepted, is_delta, is_last, item};

async fn open(server: &TestServer, open: Open) -> (TestStream, Session) {
    let mut stream = TestStream::open(server).await;
    stream.send(Some(Wish::Open(open))).await;
    match stream.next().await {
        Some((id, Event::Session(session))) if id.is_empty() => (stream, session),
        other => panic!("the terms come first, not {other:?}"),
    }
}

#[tokio::test]
async fn credit_is_told_and_enforced_and_comes_back() {
    let (server, control) = TestServer::fake(&["--stream-items", "4"]).await;
    control.hold();
    let (mut stream, session) = open(&server, Open::default()).await;
    assert_eq!(session.credit.expect("credit").items, 4);
    assert!(session.resume_token.is_empty() && !session.resumed);
    for i in 0..5 {
        let wanted = item(&i.to_string(), &format!("x = {i}"));
        stream.explain(wanted).await;
    }
    let Event::Error(error) = stream.wait_for("4", is_last).await else {
        panic!("more than there was credit for")
    };
    assert_eq!(Code::from(error.code), Code::ResourceExhausted);
    assert!(error.retryable);
    control.release();
    let (mut items, mut bytes, mut done) = (0, 0, 0);
    while items < 5 || done < 4 {
        match stream.next().await.expect("the stream goes on").1 {
            Event::Credit(more) => (items, bytes) = (items + more.items, bytes + more.code_bytes),
            Event::Done(_) => done += 1,
            _ => {}
        }
    }
    assert_eq!((items, bytes), (5, 5 * 5), "all that was spent, no more");
}

#[tokio::test]
async fn the_code_of_a_stream_is_bounded_in_bytes() {
    let flags = ["--max-code-bytes", "20", "--stream-code-bytes", "30"];
    let (server, control) = TestServer::fake(&flags).await;
    control.hold();
    let (mut stream, session) = open(&server, Open::default()).await;
    assert_eq!(session.credit.expect("credit").code_bytes, 30);
    stream.explain(item("a", "a = 1234567890123456")).await;
    stream.explain(item("b", "b = 1234567890")).await;
    let Event::Error(error) = stream.wait_for("b", is_last).await else {
        panic!("34 bytes are too many")
    };
    assert_eq!(Code::from(error.code), Code::ResourceExhausted);
    control.release();
    stream.wait_for("a", is_last).await;
    stream.explain(item("b", "b = 1234567890")).await;
    assert!(matches!(
        stream.wait_for("b", is_last).await,
        Event::Done(_)
    ));
}

#[tokio::test]
async fn answers_come_in_order_where_that_is_asked_for() {
    let (server, control) = TestServer::fake(&[]).await;
    control.hold();
    let in_order = Open {
        order: Order::InOrder.into(),
        ..Open::default()
    };
    let (mut stream, _) = open(&server, in_order).await;
    let wanted = |id: &str, tokens| {
        let mut wanted = item(id, &format!("{id} = 1"));
        wanted.max_new_tokens = tokens;
        wanted
    };
    stream.explain(wanted("long", 100)).await;
    stream.explain(wanted("short", 4)).await;
    let mut bad = wanted("bad", 4);
    bad.top_p = 7.0;
    stream.explain(bad).await;
    stream.explain(wanted("last", 4)).await;
    control.release();
    stream.half_close();
    let mut order = Vec::new();
    while let Some((id, event)) = stream.next().await {
        if !matches!(event, Event::Credit(_)) {
            order.push(id);
        }
    }
    order.dedup();
    assert_eq!(order, ["long", "short", "bad", "last"]);
}

#[tokio::test]
async fn a_batch_tells_how_it_fares() {
    let (server, control) = TestServer::fake(&["--batch-size", "1"]).await;
    control.hold();
    let every = prost_types::Duration {
        seconds: 0,
        nanos: 100_000_000,
    };
    let terms = Open {
        progress_interval: Some(every),
        expected_items: 10,
        ..Open::default()
    };
    let (mut stream, _) = open(&server, terms).await;
    for id in ["a", "b", "c"] {
        stream.explain(item(id, &format!("{id} = 1"))).await;
    }
    stream.explain(item("", "x = 1")).await;
    until(&mut stream, |p| {
        (p.running, p.queued, p.failed) == (1, 2, 1)
    })
    .await;
    control.release();
    let report = until(&mut stream, |p| p.done == 3 && p.running == 0).await;
    assert!(report.items_per_second > 0.0 && report.tokens_per_second > 0.0);
    let eta = report
        .eta
        .expect("six are to come, at a rate that is known");
    assert!(eta.seconds > 0 || eta.nanos > 0, "{eta:?}");
}

async fn until(stream: &mut TestStream, wanted: fn(&Progress) -> bool) -> Progress {
    loop {
        if let (_, Event::Progress(progress)) = stream.next().await.expect("it goes on")
            && wanted(&progress)
        {
            return progress;
        }
    }
}

#[tokio::test]
async fn an_item_takes_anothers_place_and_what_was_computed_for_it() {
    let (server, control) = TestServer::fake(&["--stream-items", "1"]).await;
    control.hold();
    let lines: String = (0..60).map(|i| format!("x{i} = {i}\n")).collect();
    let mut stream = TestStream::open(&server).await;
    stream.explain(item("old", &format!("{lines}y = 1"))).await;
    let Event::Accepted(old) = stream.wait_for("old", is_accepted).await else {
        unreachable!()
    };
    control.allow(old.prompt_tokens as usize / 256 + 8);
    stream.wait_for("old", is_delta).await;
    let mut edited = item("new", &format!("{lines}y = 2"));
    edited.replaces = "old".into();
    stream.explain(edited).await;
    let Event::Error(error) = stream.wait_for("old", is_last).await else {
        panic!("its place was taken")
    };
    assert_eq!(Code::from(error.code), Code::Cancelled);
    assert!(error.message.contains("replaced"), "{}", error.message);
    control.release();
    let Event::Done(done) = stream.wait_for("new", is_last).await else {
        panic!("it took the place")
    };
    let usage = done.usage.expect("usage");
    let differs = 3 * 16;
    assert!(
        usage.cached_tokens + differs >= usage.prompt_tokens,
        "only the end is computed again: {usage:?}"
    );
    let mut own = item("own", "z = 1");
    own.replaces = "own".into();
    stream.explain(own).await;
    let Event::Error(error) = stream.wait_for("own", is_last).await else {
        panic!("no item takes its own place")
    };
    assert_eq!(error.field, "replaces");
}

#[tokio::test]
async fn a_stream_is_opened_first_or_not_at_all() {
    let (server, _) = TestServer::fake(&[]).await;
    let mut stream = TestStream::open(&server).await;
    stream.explain(item("a", "x = 1")).await;
    stream.send(Some(Wish::Open(Open::default()))).await;
    let Event::Error(error) = stream.wait_for("", is_last).await else {
        panic!("too late")
    };
    assert_eq!(error.field, "open");
    stream.explain(item("b", "y = 1")).await;
    stream.wait_for("b", is_last).await;
}
