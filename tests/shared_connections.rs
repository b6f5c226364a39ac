//! Behind a balancer many clients share a connection: whatever one of them does to its own calls, the others' go on.

use code_explainer_client::proto::explain_stream_request::Request as Wish;
use code_explainer_client::proto::{Cancel, ExplainStreamRequest};
use prost::bytes::Bytes;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::yield_now;

use crate::common::frames::{self, CANCEL, END_HEADERS, GOAWAY, HEADERS, PING, RST_STREAM, frame};
use crate::common::http2::{Connection, EXPLAIN, STREAM, framed, status};
use crate::common::server::TestServer;
use crate::common::sockets::PREFACE;
use crate::common::stream::item;

/// More than the server's HTTP/2 library forgives a connection of its own accord.
const CALLS: usize = 3000;
/// As the chart sets it where a balancer is in front: its clients are one address.
const BALANCED: [&str; 2] = ["--resets-per-address", "16384"];
const RUNNING: &str = "code_explainer_running_sequences";

#[tokio::test]
async fn clients_that_do_not_hear_that_their_calls_have_ended() {
    let (server, control) = TestServer::fake(&BALANCED).await;
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
    let (server, control) = TestServer::fake(&BALANCED).await;
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
    let (server, control) = TestServer::fake(&BALANCED).await;
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

#[tokio::test]
async fn clients_that_leave_all_at_once_before_they_are_looked_at() {
    let (server, _) = TestServer::fake(&[]).await;
    let mut tcp = TcpStream::connect(server.grpc).await.expect("it listens");
    let (head, mut sent) = (frames::call(EXPLAIN), PREFACE.to_vec());
    for i in 0..256 * 3 {
        let stream = 2 * i + 1;
        sent.extend(frame(HEADERS, END_HEADERS, stream, &head));
        sent.extend(frame(RST_STREAM, 0, stream, &CANCEL));
    }
    sent.extend(frame(PING, 0, 0, b"still on"));
    tcp.write_all(&sent).await.expect("sent");
    loop {
        let (kind, payload) = frames::next(&mut tcp).await.expect("it goes on");
        match kind {
            GOAWAY => panic!("told to go away: {}", String::from_utf8_lossy(&payload)),
            PING if payload == b"still on" => return,
            _ => {}
        }
    }
}
