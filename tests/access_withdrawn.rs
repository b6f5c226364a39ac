//! A key that is taken out of the file ends what it has begun, and nothing else.

use std::sync::Arc;

use code_explainer_client::proto::admin_service_client::AdminServiceClient;
use code_explainer_client::proto::explain_stream_request::Request as Wish;
use code_explainer_client::proto::explain_stream_response::Event;
use code_explainer_client::proto::{Have, Open, Session, WarmCacheRequest};
use code_explainer_engine::fake::FakeControl;
use tokio_stream::StreamExt;
use tonic::metadata::MetadataMap;
use tonic::{Code, Request};

use crate::common::certificates::Files;
use crate::common::keys::make_key;
use crate::common::server::TestServer;
use crate::common::stream::{TestStream, is_last, item};

const WITHDRAWN: &str = "code_explainer_cancellations_total{reason=\"withdrawn\"}";
const RELOADED: &str = "code_explainer_file_reloads_total{file=\"auth\",result=\"ok\"}";
const USED: &str = "code_explainer_kv_blocks{state=\"used\"}";

fn add(token: &str, metadata: &mut MetadataMap) {
    let value = format!("Bearer {token}").parse().expect("a header");
    metadata.insert("authorization", value);
}

async fn stream(server: &TestServer, token: &str) -> TestStream {
    TestStream::open_with(server, |metadata| add(token, metadata)).await
}

/// Opens or resumes it.
async fn open(stream: &mut TestStream, resume_token: String, have: Vec<Have>) -> Session {
    let open = Open {
        resumable: true,
        resume_token,
        have,
        ..Open::default()
    };
    stream.send(Some(Wish::Open(open))).await;
    match stream.next().await {
        Some((_, Event::Session(session))) => session,
        other => panic!("the terms come first, not {other:?}"),
    }
}

/// Reads on until the stream ends.
async fn end(stream: &mut TestStream) -> Code {
    loop {
        match stream.try_next().await {
            Some(Ok(_)) => {}
            Some(Err(status)) => return status.code(),
            None => return Code::Ok,
        }
    }
}

#[tokio::test]
async fn its_streams_and_calls_end_and_those_of_others_go_on() {
    let files = Files::new();
    let (leaked, leaked_line) = make_key("leaked", "acme", "explain,admin");
    let (kept, kept_line) = make_key("kept", "acme", "explain");
    let book = files.write("book", &(leaked_line + &kept_line));
    let (server, control) = TestServer::fake(&["--auth-file", &book]).await;
    control.hold();

    let mut plain = stream(&server, &leaked).await;
    plain.begin(item("plain", "x = 1")).await;
    let mut resumable = stream(&server, &leaked).await;
    open(&mut resumable, String::new(), Vec::new()).await;
    resumable.begin(item("resumable", "x = 2")).await;
    let mut request = Request::new(item("", "x = 3"));
    add(&leaked, request.metadata_mut());
    let call = server.client().await.explain(request).await;
    let mut call = call.expect("accepted").into_inner();
    call.message().await.expect("no failure");
    let warmed = WarmCacheRequest {
        item: Some(item("warmed", "x = 4")),
    };
    let mut request = Request::new(tokio_stream::iter([warmed]).chain(tokio_stream::pending()));
    add(&leaked, request.metadata_mut());
    let mut admin = AdminServiceClient::new(server.channel().await);
    let warming = admin.warm_cache(request).await;
    let mut warming = warming.expect("an admin").into_inner();
    let mut good = stream(&server, &kept).await;
    good.begin(item("good", "y = 1")).await;

    files.write("book", &kept_line);
    assert_eq!(end(&mut plain).await, Code::Unauthenticated);
    assert_eq!(end(&mut resumable).await, Code::Unauthenticated);
    let told = call.message().await.expect_err("it counts no more");
    assert_eq!(told.code(), Code::Unauthenticated);
    let told = warming.next().await.expect("it is told");
    assert_eq!(
        told.expect_err("it counts no more").code(),
        Code::Unauthenticated
    );
    server.until_metric(WITHDRAWN, 4.0).await;
    control.release();
    good.wait_for("good", is_last).await;
    good.explain(item("after", "y = 2")).await;
    good.wait_for("after", is_last).await;
    server.until_metric(USED, 0.0).await;
}

/// An item of a stream whose client has gone, and another key of its tenant.
struct Left {
    files: Files,
    server: TestServer,
    control: Arc<FakeControl>,
    new: String,
    new_line: String,
    resume_token: String,
}

impl Left {
    async fn behind() -> Self {
        let files = Files::new();
        let (old, old_line) = make_key("old", "acme", "explain");
        let (new, new_line) = make_key("new", "acme", "explain");
        let book = files.write("book", &(old_line + &new_line));
        let (server, control) = TestServer::fake(&["--auth-file", &book]).await;
        control.hold();
        let mut first = stream(&server, &old).await;
        let session = open(&mut first, String::new(), Vec::new()).await;
        first.begin(item("begun", "x = 1")).await;
        drop(first);
        Self {
            files,
            server,
            control,
            new,
            new_line,
            resume_token: session.resume_token,
        }
    }
}

#[tokio::test]
async fn what_another_key_of_the_tenant_has_gone_on_with_goes_on() {
    let Left {
        files,
        server,
        control,
        new,
        new_line,
        resume_token,
    } = Left::behind().await;

    let mut second = stream(&server, &new).await;
    let have = Have {
        id: "begun".into(),
        accepted: true,
        next_sequence: 0,
    };
    let session = open(&mut second, resume_token, vec![have]).await;
    assert!(session.resumed && session.unknown.is_empty());
    files.write("book", &new_line);
    server.until_metric(RELOADED, 1.0).await;
    second.explain(item("after", "x = 2")).await;
    control.release();
    second.wait_for("begun", is_last).await;
    second.wait_for("after", is_last).await;
    assert_eq!(server.metric(WITHDRAWN).await, Some(0.0));
}

#[tokio::test]
async fn what_waits_for_a_client_whose_key_is_gone_is_given_up() {
    let Left {
        files,
        server,
        control,
        new,
        new_line,
        resume_token,
    } = Left::behind().await;
    server
        .until_metric("code_explainer_streams_detached", 1.0)
        .await;
    files.write("book", &new_line);
    server.until_metric(WITHDRAWN, 1.0).await;
    control.release();
    server.until_metric(USED, 0.0).await;

    let mut second = stream(&server, &new).await;
    let have = Have {
        id: "begun".into(),
        ..Have::default()
    };
    let session = open(&mut second, resume_token, vec![have]).await;
    assert!(session.resumed && session.unknown == ["begun"]);
    second.explain(item("begun", "x = 1")).await;
    second.wait_for("begun", is_last).await;
}
