//! Messages compressed with gzip are taken, within bounds, and answers are compressed for those who compress.

use std::io::Write;
use std::process::Command;

use code_explainer_client::proto::ExplainRequest;
use code_explainer_client::proto::explain_response::Event;
use flate2::Compression;
use flate2::write::GzEncoder;
use prost::Message;
use prost::bytes::{BufMut, Bytes, BytesMut};
use tonic::codec::CompressionEncoding::Gzip;
use tonic::{Code, Request};

use crate::common::http2::{Connection, EXPLAIN, framed, status};
use crate::common::programs::{output, python, root};
use crate::common::server::TestServer;
use crate::common::stream::item;

/// What a client of grpcio sees of an item that it sends compressed.
const PYTHON: &str = r#"
import sys
import grpc

sys.path.insert(0, sys.argv[2])
messages, services = grpc.protos_and_services("codeexplainer/v1/explain.proto")
with grpc.insecure_channel(sys.argv[1], compression=grpc.Compression.Gzip) as channel:
    stub = services.ExplainServiceStub(channel)
    items = [messages.ExplainStreamRequest(explain=messages.ExplainRequest(id=n, code="x = 1\n" * 200)) for n in "ab"]
    done = [event.id for event in stub.ExplainStream(iter(items)) if event.HasField("done")]
    print(sorted(done), next(stub.Explain(items[0].explain)).WhichOneof("event"))
"#;

fn long() -> ExplainRequest {
    item("", &"x = 1\n".repeat(200))
}

/// A message as it is sent, compressed.
fn packed(message: &[u8]) -> Bytes {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(message).expect("memory");
    let packed = encoder.finish().expect("memory");
    let mut framed = BytesMut::new();
    framed.put_u8(1);
    framed.put_u32(packed.len() as u32);
    framed.put_slice(&packed);
    framed.freeze()
}

#[tokio::test]
async fn answers_are_the_same_and_compressed_where_the_question_was() {
    let (server, _) = TestServer::fake(&["--cache-size", "0"]).await;
    let mut texts = Vec::new();
    for compresses in [true, false] {
        let mut client = server.client().await.accept_compressed(Gzip);
        if compresses {
            client = client.send_compressed(Gzip);
        }
        let answer = client.explain(Request::new(long())).await.expect("taken");
        let encoding = answer.metadata().get("grpc-encoding").cloned();
        assert_eq!(
            encoding.is_some_and(|encoding| encoding == "gzip"),
            compresses
        );
        let mut events = answer.into_inner();
        let mut text = String::new();
        while let Some(event) = events.message().await.expect("it goes on") {
            if let Some(Event::Delta(delta)) = event.event {
                text.push_str(&delta.text);
            }
        }
        texts.push(text);
    }
    assert!(!texts[0].is_empty() && texts[0] == texts[1], "{texts:?}");
}

#[tokio::test]
async fn what_unpacks_out_of_proportion_or_not_at_all_is_refused_and_others_go_on() {
    let (server, _) = TestServer::fake(&[]).await;
    let connection = Connection::to(server.grpc).await;
    let bomb = packed(&vec![0; 3 << 20]);
    assert!(bomb.len() < 4096);
    let junk = Bytes::from_static(&[1, 0, 0, 0, 2, 7, 7]);
    let good = packed(&item("", "x = 1").encode_to_vec());
    for (message, expected) in [
        (bomb, Code::InvalidArgument),
        (junk, Code::InvalidArgument),
        (good, Code::Ok),
    ] {
        let (answer, mut body) = connection
            .open_with(EXPLAIN, &[("grpc-encoding", "gzip")])
            .await;
        body.send_data(message, true).expect("open");
        assert_eq!(status(answer).await, (expected as i32).to_string());
    }
}

#[tokio::test]
async fn another_encoding_is_refused_as_unimplemented() {
    let (server, _) = TestServer::fake(&[]).await;
    let connection = Connection::to(server.grpc).await;
    let (answer, mut body) = connection
        .open_with(EXPLAIN, &[("grpc-encoding", "deflate")])
        .await;
    body.send_data(framed(&item("", "x = 1")), true)
        .expect("open");
    assert_eq!(
        status(answer).await,
        (Code::Unimplemented as i32).to_string()
    );
}

#[tokio::test]
async fn a_python_client_compresses_without_further_ado() {
    let (server, _) = TestServer::fake(&[]).await;
    let mut command = Command::new(python());
    command.args(["-c", PYTHON, &server.grpc.to_string()]);
    command.arg(root().join("proto"));
    let ran = tokio::task::spawn_blocking(move || output(&mut command)).await;
    let ran = ran.expect("it ran");
    let text = String::from_utf8(ran.stdout).expect("text");
    assert_eq!(
        text.trim(),
        "['a', 'b'] accepted",
        "{}",
        String::from_utf8_lossy(&ran.stderr)
    );
}
