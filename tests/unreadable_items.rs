//! A message of a stream that cannot be decoded is an error of its item: the stream and its other items go on.

use code_explainer_client::proto::explain_stream_request::Request as Wish;
use code_explainer_client::proto::explain_stream_response::Event;
use code_explainer_client::proto::{ExplainStreamRequest, ExplainStreamResponse};
use prost::Message;
use tonic::Code;
use tonic::codegen::http::uri::PathAndQuery;

use crate::common::http2::STREAM;
use crate::common::server::TestServer;
use crate::common::stream::item;
use crate::common::wire::RawCodec;

/// An item whose code has the letter `é`.
fn wish(id: &str) -> Vec<u8> {
    let request = Some(Wish::Explain(item(id, "x = 'é'")));
    ExplainStreamRequest { request }.encode_to_vec()
}

/// The same as no UTF-8: both bytes of the letter are first ones.
fn latin(id: &str) -> Vec<u8> {
    let mut bytes = wish(id);
    let at = bytes.windows(2).position(|two| two == "é".as_bytes());
    bytes[at.expect("a letter") + 1] = 0xe9;
    bytes
}

/// What a stream of these messages tells, and how it ends.
async fn stream(server: &TestServer, messages: Vec<Vec<u8>>) -> (Vec<ExplainStreamResponse>, Code) {
    let mut grpc = tonic::client::Grpc::new(server.channel().await);
    grpc.ready().await.expect("connected");
    let request = tonic::Request::new(tokio_stream::iter(messages));
    let path = PathAndQuery::from_static(STREAM);
    let answer = grpc.streaming(request, path, RawCodec).await;
    let mut events = answer.expect("a stream").into_inner();
    let mut told = Vec::new();
    loop {
        match events.message().await {
            Ok(Some(event)) => {
                let event: Vec<u8> = event;
                told.push(ExplainStreamResponse::decode(&event[..]).expect("ours"));
            }
            Ok(None) => return (told, Code::Ok),
            Err(status) => return (told, status.code()),
        }
    }
}

fn errors(events: &[ExplainStreamResponse]) -> Vec<(String, i32, String)> {
    let error = |event: &ExplainStreamResponse| match &event.event {
        Some(Event::Error(error)) => Some((event.id.clone(), error.code, error.message.clone())),
        _ => None,
    };
    events.iter().filter_map(error).collect()
}

fn done(events: &[ExplainStreamResponse]) -> Vec<&str> {
    let done = |event: &&ExplainStreamResponse| matches!(event.event, Some(Event::Done(_)));
    let mut done: Vec<&str> = (events.iter().filter(done))
        .map(|e| e.id.as_str())
        .collect();
    done.sort_unstable();
    done
}

#[tokio::test]
async fn code_that_is_not_utf_8_fails_its_item_alone() {
    let (server, _) = TestServer::fake(&[]).await;
    let messages = vec![wish("one"), latin("bad"), latin("worse"), wish("two")];
    let (events, end) = stream(&server, messages).await;
    assert_eq!((done(&events), end), (vec!["one", "two"], Code::Ok));
    let errors = errors(&events);
    let of: Vec<&str> = errors.iter().map(|(id, ..)| id.as_str()).collect();
    assert_eq!(of, ["bad", "worse"]);
    for (_, code, message) in &errors {
        assert_eq!(*code, Code::InvalidArgument as i32);
        assert!(
            message.contains("code") && message.contains("UTF-8"),
            "{message}"
        );
    }
}

#[tokio::test]
async fn a_message_that_names_no_item_ends_the_stream_when_the_others_are_answered() {
    let (server, _) = TestServer::fake(&[]).await;
    let (events, end) = stream(&server, vec![wish("one"), vec![0xff; 9], wish("two")]).await;
    assert_eq!((done(&events), end), (vec!["one"], Code::InvalidArgument));
}
