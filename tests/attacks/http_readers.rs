//! Clients that ask and never read: what waits for them is bounded, and so is how long it waits.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::common::server::TestServer;
use crate::common::sockets::{PATIENCE, PREFACE, connect_from, connect_narrow, until_closed};

const CLIENTS: usize = 24;

const STALLED: &str =
    "code_explainer_connections_closed_total{protocol=\"grpc\",reason=\"stalled\"}";

/// Sends the same over and over, until the server has hung up or so much has been sent, and reads nothing.
async fn flood(mut connection: TcpStream, words: &[u8], times: usize) -> TcpStream {
    for _ in 0..times {
        if connection.write_all(words).await.is_err() {
            break;
        }
    }
    connection
}

/// What the systems of both sides keep for a connection whose client does not read, in bytes.
const IN_SOCKETS: usize = 512 << 10;

#[tokio::test]
async fn pipelined_scrapes_that_nobody_reads_are_given_up() {
    let (server, _) = TestServer::fake(&["--write-timeout", "500ms"]).await;
    let answer = server.get("/metrics").await.1.len();
    let mut floods = JoinSet::new();
    for _ in 0..CLIENTS {
        let connection = connect_narrow(server.http).await;
        let scrape = b"GET /metrics HTTP/1.1\r\nHost: test\r\n\r\n";
        floods.spawn(flood(connection, scrape, 100_000));
        assert_eq!(server.get("/healthz").await, (200, "alive\n".into()));
    }
    assert_eq!(server.get("/readyz").await.0, 200);
    // The one that asks; theirs have ended, though nobody has read anything.
    let open = "code_explainer_connections_open{protocol=\"http\"}";
    server.until_metric(open, 1.0).await;
    while let Some(flood) = floods.join_next().await {
        let mut connection = flood.expect("no panic");
        let read = until_closed(&mut connection).await;
        let most = IN_SOCKETS + 2 * answer;
        assert!(read < most, "{read} bytes, of {answer} a scrape");
    }
}

/// The next one of these may be answered before the last answer has been sent, so that answers would pile up.
#[tokio::test]
async fn an_answer_without_a_body_or_to_one_is_the_last() {
    let (server, _) = TestServer::fake(&[]).await;
    let expecting = "Content-Length: 1\r\nExpect: 100-continue\r\n";
    let chunked = "Transfer-Encoding: chunked\r\n";
    for (request, headers, body) in [
        ("GET /nothing", "", ""),
        ("HEAD /healthz", "", ""),
        ("POST /readyz", "", ""),
        ("GET /nothing", expecting, "x"),
        ("GET /healthz", expecting, "x"),
        ("GET /healthz", chunked, "1\r\nx\r\n0\r\n\r\n"),
    ] {
        let mut pipelined = connect_from(1, server.http).await;
        let one = format!("{request} HTTP/1.1\r\nHost: test\r\n{headers}\r\n{body}");
        let again = one.repeat(3);
        pipelined.write_all(again.as_bytes()).await.expect("sent");
        let mut read = Vec::new();
        let end = timeout(PATIENCE, pipelined.read_to_end(&mut read)).await;
        end.expect("it is closed").expect("no failure");
        let read = String::from_utf8(read).expect("text");
        assert_eq!(read.matches("HTTP/1.1 ").count(), 1, "{one}: {read}");
        assert!(read.contains("connection: close"), "{one}: {read}");
    }
}

#[tokio::test]
async fn who_pings_and_never_reads_is_given_up() {
    // Long enough for the first call, so that it is not that which it is closed for.
    let flags = ["--write-timeout", "500ms", "--handshake-timeout", "1h"];
    let (server, _) = TestServer::fake(&flags).await;
    let mut mute = connect_narrow(server.grpc).await;
    mute.write_all(PREFACE).await.expect("sent");
    let ping = *b"\0\0\x08\x06\0\0\0\0\0........";
    let flood = tokio::spawn(async move { flood(mute, &ping.repeat(1000), 10_000).await });
    server.until_metric(STALLED, 1.0).await;
    drop(flood.await.expect("no panic"));
}
