//! Limits of what connections may take.

use std::time::{Duration, Instant};

use code_explainer_client::proto::GetModelRequest;
use code_explainer_client::proto::explain_service_client::ExplainServiceClient;
use code_explainer_client::proto::explain_stream_response::Event;
use code_explainer_client::proto::model_service_client::ModelServiceClient;
use code_explainer_client::{Client, Item};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::{Code, Request};

use crate::common::server::TestServer;
use crate::common::sockets::{PATIENCE, until_closed};
use crate::common::stream::{TestStream, finish, is_last, item};

#[tokio::test]
async fn a_connection_too_many_is_closed_and_the_others_go_on() {
    let (server, control) = TestServer::fake(&["--connections", "2"]).await;
    control.hold();
    let (mut a, mut b) = (
        TestStream::open(&server).await,
        TestStream::open(&server).await,
    );
    for stream in [&mut a, &mut b] {
        stream.begin(item("a", "x = 1")).await;
    }
    let mut third = TcpStream::connect(server.grpc).await.expect("it listens");
    let read = third.read(&mut [0; 1]).await;
    assert!(matches!(read, Ok(0) | Err(_)), "closed: {read:?}");
    let counted = "code_explainer_connections_refused_total{protocol=\"grpc\",reason=\"limit\"}";
    assert_eq!(server.metric(counted).await, Some(1.0));
    control.release();
    assert!(matches!(b.wait_for("a", is_last).await, Event::Done(_)));
    drop((a, b));
    server
        .until_metric("code_explainer_connections_open{protocol=\"grpc\"}", 0.0)
        .await;
    server.channel().await;
}

#[tokio::test]
async fn an_idle_connection_is_closed_and_one_with_a_call_is_not() {
    let (server, control) = TestServer::fake(&["--connection-idle", "300ms"]).await;
    control.hold();
    let mut busy = TestStream::open(&server).await;
    busy.explain(item("a", "x = 1")).await;
    let _idle = server.channel().await;
    let open = "code_explainer_connections_open{protocol=\"grpc\"}";
    server.until_metric(open, 2.0).await;
    server.until_metric(open, 1.0).await;
    control.release();
    assert!(matches!(busy.wait_for("a", is_last).await, Event::Done(_)));
}

#[tokio::test]
async fn an_old_connection_lets_its_calls_end_and_the_client_makes_a_new_one() {
    let (server, control) = TestServer::fake(&["--connection-max-age", "300ms"]).await;
    let client = Client::connect(&server.uri()).expect("an address");
    control.hold();
    let before = client.explain(Item::new("x = 1")).await.expect("a call");
    let started = Instant::now();
    let (mut answered, mut lost) = (0, 0);
    while started.elapsed() < Duration::from_millis(1500) {
        // Calls go on all the while, on whichever connection; one that crosses the goodbye has to be made again.
        match client.model().await {
            Ok(_) => answered += 1,
            Err(error) => {
                assert!(error.is_connection() && error.is_retryable(), "{error}");
                lost += 1;
            }
        }
    }
    assert!(
        lost < 10 && answered > 10 * lost,
        "{answered} answered, {lost} lost"
    );
    // The first one, for its call, and another, which may have got old since the last call.
    let open = "code_explainer_connections_open{protocol=\"grpc\"}";
    while server.metric(open).await < Some(2.0) {
        let _ = client.model().await;
        assert!(started.elapsed() < PATIENCE, "the first one is gone");
    }
    control.release();
    finish(before).await;
}

#[tokio::test]
async fn large_headers_and_messages_are_refused() {
    let flags = ["--header-bytes", "2048", "--message-bytes", "4096"];
    let (server, _) = TestServer::fake(&flags).await;
    let mut client = server.client().await;
    let mut request = Request::new(item("", "x = 1"));
    let large = "h".repeat(4000).parse().expect("a value");
    request.metadata_mut().insert("x-large", large);
    let mut events = client
        .explain(request)
        .await
        .expect("a stream")
        .into_inner();
    let status = events.message().await.expect_err("headers of 4 kB");
    assert!(status.message().contains("431"), "{status}");
    let status = client
        .explain(item("", &"x".repeat(5000)))
        .await
        .expect_err("a message of 5 kB");
    assert_eq!(status.code(), Code::OutOfRange);
    client.explain(item("", "x = 1")).await.expect("goes on");
}

#[tokio::test]
async fn who_sends_a_request_line_and_no_more_is_cut_off() {
    let (server, _) = TestServer::fake(&["--handshake-timeout", "300ms"]).await;
    let mut slow = TcpStream::connect(server.http).await.expect("it listens");
    slow.write_all(b"GET /metrics HTTP/1.1\r\nHost:")
        .await
        .expect("sent");
    let mut rest = Vec::new();
    slow.read_to_end(&mut rest).await.expect("closed");
    assert!(!String::from_utf8_lossy(&rest).contains("200 OK"));
}

/// The answer to a GET on a connection that stays open.
async fn get(connection: &mut TcpStream, path: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n");
    connection
        .write_all(request.as_bytes())
        .await
        .expect("it is open");
    let (mut answer, mut part) = (String::new(), [0; 1 << 14]);
    loop {
        let read = connection.read(&mut part).await.expect("no failure");
        assert!(read > 0, "closed after {answer:?}");
        answer.push_str(std::str::from_utf8(&part[..read]).expect("ASCII"));
        let Some((head, body)) = answer.split_once("\r\n\r\n") else {
            continue;
        };
        let length = head
            .split("\r\n")
            .find_map(|line| line.strip_prefix("content-length: "));
        let length: usize = length.and_then(|n| n.parse().ok()).expect("a length");
        if body.len() == length {
            assert!(head.starts_with("HTTP/1.1 200 OK") && !head.contains("connection: close"));
            return body.to_owned();
        }
    }
}

#[tokio::test]
async fn http_stays_open_between_scrapes() {
    const HANDSHAKE: Duration = Duration::from_secs(1);
    let (server, _) = TestServer::fake(&["--handshake-timeout", "1s"]).await;
    let mut kept = TcpStream::connect(server.http).await.expect("it listens");
    for _ in 0..2 {
        assert_eq!(get(&mut kept, "/healthz").await, "alive\n");
        let open = "code_explainer_connections_open{protocol=\"http\"} 1\n";
        assert!(get(&mut kept, "/metrics").await.contains(open));
        // Longer than a new connection has for its first request.
        tokio::time::sleep(2 * HANDSHAKE).await;
    }
}

#[tokio::test]
async fn http_that_is_idle_is_closed_and_so_is_one_that_begins_a_request_and_no_more() {
    let (server, _) =
        TestServer::fake(&["--connection-idle", "1s", "--keepalive-timeout", "1s"]).await;
    for more in ["", "GET /metrics HTTP/1.1\r\nHost:"] {
        let mut idle = TcpStream::connect(server.http).await.expect("it listens");
        assert_eq!(get(&mut idle, "/healthz").await, "alive\n");
        idle.write_all(more.as_bytes()).await.expect("sent");
        assert_eq!(until_closed(&mut idle).await, 0);
    }
    let closed = "code_explainer_connections_closed_total{protocol=\"http\",reason=\"idle\"}";
    assert!(server.metric(closed).await >= Some(2.0));
}

#[tokio::test]
async fn a_call_too_many_waits_at_its_client_and_other_connections_do_not() {
    let (server, control) = TestServer::fake(&["--connection-streams", "1"]).await;
    control.hold();
    let channel = server.channel().await;
    let mut client = ExplainServiceClient::new(channel.clone());
    let first = client.explain(item("", "x = 1")).await;
    let mut first = first.expect("a stream").into_inner();
    let second = tokio::spawn(async move {
        ModelServiceClient::new(channel)
            .get_model(GetModelRequest {})
            .await
    });
    for _ in 0..5 {
        let elsewhere = ModelServiceClient::new(server.channel().await)
            .get_model(GetModelRequest {})
            .await;
        elsewhere.expect("an answer");
    }
    assert!(!second.is_finished(), "the connection has one call already");
    control.release();
    while first.message().await.expect("no failure").is_some() {}
    second.await.expect("no panic").expect("its turn");
}

#[tokio::test]
async fn a_client_that_answers_no_probe_is_cut_off() {
    let flags = ["--keepalive", "100ms", "--keepalive-timeout", "100ms"];
    let (server, _) = TestServer::fake(&flags).await;
    let mut mute = TcpStream::connect(server.grpc).await.expect("it listens");
    // The preface of HTTP/2, and settings that change nothing.
    mute.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")
        .await
        .expect("sent");
    let mut read = Vec::new();
    // Ends when the server has hung up.
    let _ = mute.read_to_end(&mut read).await;
    assert!(!read.is_empty(), "it has spoken before");
}
