//! Lists without an end in one message: they are refused before anything is made of them, and nobody else waits.

use code_explainer_client::proto::explain_stream_request::Request as Wish;
use code_explainer_client::proto::{
    ClearCacheRequest, EmbedRequest, Have, Open, Received, explain_stream_response::Event,
};
use prost::Message;
use tonic::Code;
use tonic::codegen::http::uri::PathAndQuery;

use crate::common::server::TestServer;
use crate::common::stream::{TestStream, is_last, item};
use crate::common::wire::RawCodec;

/// As many empty strings as there is room for in a message.
const FLOOD: usize = 2_000_000;

async fn resumable(server: &TestServer) -> TestStream {
    let mut stream = TestStream::open(server).await;
    let open = Open {
        resumable: true,
        ..Open::default()
    };
    stream.send(Some(Wish::Open(open))).await;
    match stream.next().await {
        Some((_, Event::Session(session))) => assert!(!session.resume_token.is_empty()),
        other => panic!("the terms come first, not {other:?}"),
    }
    stream
}

/// The status that ends a stream, after whatever else there is to read.
async fn end(stream: &mut TestStream) -> tonic::Status {
    loop {
        match stream.try_next().await.expect("it says why it ends") {
            Ok(_) => {}
            Err(status) => return status,
        }
    }
}

fn ids(count: usize) -> Option<Wish> {
    let ids = vec![String::new(); count];
    Some(Wish::Received(Received { ids }))
}

#[tokio::test]
async fn two_million_empty_ids_end_their_stream_and_cost_nobody_else_anything() {
    let (server, control) = TestServer::fake(&["--cache-size", "0"]).await;
    let mut hostile = resumable(&server).await;
    for n in 0..100 {
        hostile
            .explain(item(&format!("kept-{n}"), &format!("x = {n}")))
            .await;
        hostile.wait_for(&format!("kept-{n}"), is_last).await;
    }
    control.hold();
    hostile.explain(item("last", "y = 1")).await;
    let mut neighbour = TestStream::open(&server).await;
    neighbour.explain(item("good", "z = 1")).await;
    hostile.send(ids(FLOOD)).await;
    control.release();
    neighbour.wait_for("good", is_last).await;
    // What was in flight is answered first.
    hostile.wait_for("last", is_last).await;
    let status = end(&mut hostile).await;
    assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
    assert!(status.message().contains("received.ids"), "{status:?}");
    assert!(status.message().contains("8192"), "{status:?}");
}

#[tokio::test]
async fn as_many_ids_as_there_may_be_are_taken_whatever_they_are() {
    let (server, _) = TestServer::fake(&[]).await;
    let mut stream = resumable(&server).await;
    stream.explain(item("a", "x = 1")).await;
    stream.wait_for("a", is_last).await;
    stream.send(ids(8192)).await;
    let long = Received {
        ids: vec!["i".repeat(100_000), "a".into(), "a".into()],
    };
    stream.send(Some(Wish::Received(long))).await;
    stream.cancel(&"i".repeat(1_000_000)).await;
    stream.explain(item("b", "x = 1")).await;
    stream.wait_for("b", is_last).await;
}

#[tokio::test]
async fn a_stream_that_is_opened_with_too_many_items_to_go_on_with_is_refused() {
    let (server, _) = TestServer::fake(&["--stream-items", "4"]).await;
    let have = |count, id: &str| {
        let have = Have {
            id: id.into(),
            ..Have::default()
        };
        Some(Wish::Open(Open {
            have: vec![have; count],
            ..Open::default()
        }))
    };
    for (open, wanted) in [
        (have(9, "x"), "at most 8"),
        (have(1, &"x".repeat(257)), "at most 256"),
        (have(300_000, ""), "more than 8192"),
    ] {
        let mut stream = TestStream::open(&server).await;
        stream.send(open).await;
        let status = end(&mut stream).await;
        assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
        assert!(status.message().contains("open.have"), "{status:?}");
        assert!(status.message().contains(wanted), "{status:?}");
    }
    let mut stream = TestStream::open(&server).await;
    stream.send(have(8, "x")).await;
    assert!(matches!(stream.next().await, Some((_, Event::Session(_)))));
    let mut long = item("a", "x = 1");
    long.replaces = "r".repeat(257);
    stream.explain(long).await;
    let Event::Error(error) = stream.wait_for("a", is_last).await else {
        panic!("an id has at most 256 bytes");
    };
    assert_eq!(error.field, "replaces");
}

/// The one message of a call, as its bytes, and how the call ends.
async fn call(server: &TestServer, path: &'static str, message: Vec<u8>) -> tonic::Status {
    let mut grpc = tonic::client::Grpc::new(server.channel().await);
    grpc.ready().await.expect("connected");
    let path = PathAndQuery::from_static(path);
    let answer = grpc.unary(tonic::Request::new(message), path, RawCodec);
    answer.await.expect_err("it is refused")
}

#[tokio::test]
async fn no_list_of_any_call_is_longer_than_it_may_be() {
    let (server, _) = TestServer::fake(&[]).await;
    let texts = EmbedRequest {
        texts: vec![String::new(); FLOOD],
    };
    let stores = ClearCacheRequest {
        // Larger ones are refused for that.
        stores: vec![1; 3000],
        ..ClearCacheRequest::default()
    };
    // Two bytes each: a shape's number that is packed takes one, and eight in memory.
    let shape = {
        let input = [&[0x1a], &varint(FLOOD)[..], &vec![1; FLOOD]].concat();
        [&[0x2a], &varint(input.len())[..], &input].concat()
    };
    let parameters = b"\x22\x00".repeat(FLOOD);
    for (path, message, field) in [
        (
            "/codeexplainer.v1.ExplainService/Embed",
            texts.encode_to_vec(),
            "texts",
        ),
        (
            "/codeexplainer.v1.AdminService/ClearCache",
            stores.encode_to_vec(),
            "stores",
        ),
        (
            "/codeexplainer.v1.ExplainService/Explain",
            b"\x62\x00".repeat(FLOOD),
            "stop",
        ),
        (
            "/inference.GRPCInferenceService/ModelInfer",
            shape,
            "inputs.shape",
        ),
        (
            "/inference.GRPCInferenceService/ModelInfer",
            parameters,
            "parameters",
        ),
    ] {
        let status = call(&server, path, message).await;
        assert_eq!(status.code(), Code::InvalidArgument, "{path}: {status:?}");
        assert!(status.message().starts_with(field), "{path}: {status:?}");
        assert!(status.message().contains("limit"), "{path}: {status:?}");
    }
}

fn varint(mut number: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
    bytes
}
