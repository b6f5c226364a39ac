//! Clients that ask and never read: what waits for them is bounded, and so is how long it waits.

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::common::server::TestServer;
use crate::common::sockets::{PREFACE, connect_from, connect_narrow, until_closed};

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

#[tokio::test]
async fn pipelined_scrapes_that_nobody_reads_are_answered_once() {
    let (server, _) = TestServer::fake(&[]).await;
    let answer = server.get("/metrics").await.1.len();
    let mut floods = JoinSet::new();
    for _ in 0..CLIENTS {
        let connection = connect_narrow(server.http).await;
        let scrape = b"GET /metrics HTTP/1.1\r\nHost: test\r\n\r\n";
        floods.spawn(flood(connection, scrape, 10_000));
        assert_eq!(server.get("/healthz").await, (200, "alive\n".into()));
    }
    assert_eq!(server.get("/readyz").await.0, 200);
    // The one that asks; theirs have ended, though nobody has read anything.
    let open = "code_explainer_connections_open{protocol=\"http\"}";
    server.until_metric(open, 1.0).await;
    while let Some(flood) = floods.join_next().await {
        let mut connection = flood.expect("no panic");
        let read = until_closed(&mut connection).await;
        assert!(read < 2 * answer, "{read} bytes, of {answer} a scrape");
    }
}

#[tokio::test]
async fn a_connection_carries_one_request() {
    let (server, _) = TestServer::fake(&[]).await;
    let mut pipelined = connect_from(1, server.http).await;
    let probe = b"GET /readyz HTTP/1.1\r\nHost: test\r\n\r\n".repeat(3);
    pipelined.write_all(&probe).await.expect("sent");
    // "HTTP/1.1 200 OK", a few headers, and "serving".
    let read = until_closed(&mut pipelined).await;
    assert!(read < 250, "{read} bytes are more than one answer");
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
