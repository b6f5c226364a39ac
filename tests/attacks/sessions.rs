//! A token of a stream that can be resumed is of no use to another tenant, however it was come by.

use code_explainer_client::proto::explain_stream_request::Request as Wish;
use code_explainer_client::proto::explain_stream_response::Event;
use code_explainer_client::proto::{Have, Open, Session};

use crate::common::certificates::Files;
use crate::common::keys::make_key;
use crate::common::server::TestServer;
use crate::common::stream::{TestStream, is_last, item};

/// Opens a stream with a key, or goes on with one.
async fn open(server: &TestServer, key: &str, open: Open) -> (TestStream, Session) {
    let mut stream = TestStream::open_with(server, |metadata| {
        let bearer = format!("Bearer {key}").parse().expect("a header");
        metadata.insert("authorization", bearer);
    })
    .await;
    stream.send(Some(Wish::Open(open))).await;
    match stream.next().await {
        Some((_, Event::Session(session))) => (stream, session),
        other => panic!("the terms come first, not {other:?}"),
    }
}

#[tokio::test]
async fn anothers_token_begins_a_stream_of_ones_own_and_leaves_the_other_as_it_is() {
    let files = Files::new();
    let (owner, owners_line) = make_key("owner", "acme", "explain");
    let (thief, thiefs_line) = make_key("thief", "other", "explain");
    let book = files.write("book", &(owners_line + &thiefs_line));
    let (server, control) = TestServer::fake(&["--auth-file", &book]).await;
    control.hold();
    let resumable = Open {
        resumable: true,
        ..Open::default()
    };
    let (mut stream, session) = open(&server, &owner, resumable).await;
    stream.begin(item("theirs", "x = 1")).await;

    let have = Have {
        id: "theirs".into(),
        ..Have::default()
    };
    let stolen = Open {
        resume_token: session.resume_token.clone(),
        have: vec![have],
        ..Open::default()
    };
    let (_thiefs, told) = open(&server, &thief, stolen).await;
    assert!(!told.resumed && told.unknown == ["theirs"], "{told:?}");
    assert_ne!(told.resume_token, session.resume_token);
    control.release();
    // Nothing was given up, and nothing went elsewhere.
    assert!(matches!(
        stream.wait_for("theirs", is_last).await,
        Event::Done(_)
    ));
}
