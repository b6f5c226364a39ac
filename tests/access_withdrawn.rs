//! A key that is taken out of the file ends what it has begun, and nothing else.

use code_explainer_client::proto::admin_service_client::AdminServiceClient;
use code_explainer_client::proto::explain_stream_request::Request as Wish;
use code_explainer_client::proto::{Open, WarmCacheRequest};
use tokio_stream::StreamExt;
use tonic::metadata::MetadataMap;
use tonic::{Code, Request};

use crate::common::certificates::Files;
use crate::common::keys::make_key;
use crate::common::server::TestServer;
use crate::common::stream::{TestStream, is_accepted, is_last, item};

const WITHDRAWN: &str = "code_explainer_cancellations_total{reason=\"withdrawn\"}";
const USED: &str = "code_explainer_kv_blocks{state=\"used\"}";

fn add(token: &str, metadata: &mut MetadataMap) {
    let value = format!("Bearer {token}").parse().expect("a header");
    metadata.insert("authorization", value);
}

async fn stream(server: &TestServer, token: &str) -> TestStream {
    TestStream::open_with(server, |metadata| add(token, metadata)).await
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
    plain.explain(item("plain", "x = 1")).await;
    plain.wait_for("plain", is_accepted).await;
    let mut resumable = stream(&server, &leaked).await;
    let open = Open {
        resumable: true,
        ..Open::default()
    };
    resumable.send(Some(Wish::Open(open))).await;
    resumable.explain(item("resumable", "x = 2")).await;
    resumable.wait_for("resumable", is_accepted).await;
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
    good.explain(item("good", "y = 1")).await;
    good.wait_for("good", is_accepted).await;

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
