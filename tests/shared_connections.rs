//! Behind a balancer many clients share a connection: whatever one of them does to its own calls, the others' go on.

use code_explainer_client::proto::explain_stream_request::Request as Wish;
use code_explainer_client::proto::{Cancel, ExplainStreamRequest};
use prost::bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::yield_now;

use crate::common::http2::{Connection, EXPLAIN, STREAM, framed, status};
use crate::common::server::TestServer;
use crate::common::stream::item;

/// More than the server's HTTP/2 library forgives a connection of its own accord.
const CALLS: usize = 3000;
const RUNNING: &str = "code_explainer_running_sequences";

#[tokio::test]
async fn clients_that_do_not_hear_that_their_calls_have_ended() {
    let (server, control) = TestServer::fake(&[]).await;
    control.hold();
    let balancer = Connection::to(server.grpc).await;
    let good = balancer.spawn_call(item("", "good = 1"));
    server.until_metric(RUNNING, 1.0).await;
    for _ in 0..CALLS {
        let (_response, mut body) = balancer.open("/codeexplainer.v1.Nothing/Is").await;
        for _ in 0..8 {
            // They end when the balancer has heard that there is no such call, between any two of these.
            let _ = body.send_data(Bytes::from_static(&[0; 64]), false);
            yield_now().await;
        }
    }
    control.release();
    assert_eq!(good.await.expect("it is answered"), "0");
}

#[tokio::test]
async fn clients_that_leave_while_they_are_answered() {
    let (server, control) = TestServer::fake(&[]).await;
    control.hold();
    let balancer = Connection::to(server.grpc).await;
    let good = balancer.spawn_call(item("", "good = 1"));
    server.until_metric(RUNNING, 1.0).await;
    control.release();
    for i in 0..CALLS {
        let (response, mut body) = balancer.open(EXPLAIN).await;
        let mut wanted = item("", &format!("bad = {}", i % 50));
        wanted.max_new_tokens = 64;
        body.send_data(framed(&wanted), true).expect("open");
        let mut answer = response.await.expect("it goes on").into_body();
        let _ = answer.data().await;
    }
    assert_eq!(good.await.expect("it is answered"), "0");
    let after = balancer.call(item("", "after = 1")).await;
    assert_eq!(after, "0");
}

#[tokio::test]
async fn clients_that_have_much_to_say_in_few_words() {
    let (server, control) = TestServer::fake(&[]).await;
    control.hold();
    let balancer = Connection::to(server.grpc).await;
    let good = balancer.spawn_call(item("", "good = 1"));
    server.until_metric(RUNNING, 1.0).await;
    let mut streams = Vec::new();
    for _ in 0..8 {
        let (response, mut body) = balancer.open(STREAM).await;
        for i in 0..1500 {
            let wish = Wish::Cancel(Cancel {
                id: format!("an item that has a name of some length {i}"),
            });
            let wish = ExplainStreamRequest {
                request: Some(wish),
            };
            body.send_data(framed(&wish), false).expect("open");
        }
        let wish = Wish::Explain(item("last", "x = 1"));
        let wish = ExplainStreamRequest {
            request: Some(wish),
        };
        body.send_data(framed(&wish), true).expect("open");
        streams.push(response);
    }
    control.release();
    assert_eq!(good.await.expect("it is answered"), "0");
    for stream in streams {
        assert_eq!(status(stream).await, "0");
    }
}

/// A frame of HTTP/2.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    let head = [&length[1..], &[kind, flags], &stream.to_be_bytes()];
    [head.concat().as_slice(), payload].concat()
}

#[tokio::test]
async fn clients_that_leave_all_at_once_before_they_are_looked_at() {
    const HEADERS: u8 = 1;
    const RST_STREAM: u8 = 3;
    const SETTINGS: u8 = 4;
    const PING: u8 = 6;
    const GOAWAY: u8 = 7;
    const END_HEADERS: u8 = 4;
    const CANCEL: [u8; 4] = [0, 0, 0, 8];
    let (server, _) = TestServer::fake(&[]).await;
    let mut tcp = TcpStream::connect(server.grpc).await.expect("it listens");
    // :method POST, :scheme http, :path and :authority as literals.
    let path = EXPLAIN.as_bytes();
    let head = [
        &[0x83, 0x86, 0x04, path.len() as u8],
        path,
        &[0x01, 1],
        b"s",
    ];
    let mut sent = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    sent.extend(frame(SETTINGS, 0, 0, &[]));
    for i in 0..256 * 3 {
        let stream = 2 * i + 1;
        sent.extend(frame(HEADERS, END_HEADERS, stream, &head.concat()));
        sent.extend(frame(RST_STREAM, 0, stream, &CANCEL));
    }
    sent.extend(frame(PING, 0, 0, b"still on"));
    tcp.write_all(&sent).await.expect("sent");
    loop {
        let mut head = [0; 9];
        tcp.read_exact(&mut head).await.expect("it goes on");
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; length as usize];
        tcp.read_exact(&mut payload).await.expect("it goes on");
        match head[3] {
            GOAWAY => panic!("told to go away: {}", String::from_utf8_lossy(&payload)),
            PING if payload == b"still on" => return,
            _ => {}
        }
    }
}
