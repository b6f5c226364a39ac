//! Calls that are taken back as soon as they are made: next to nothing for who makes them, and work for the server.

use code_explainer_client::Item;
use tokio::io::AsyncWriteExt;

use crate::common::frames::{
    self, CANCEL, END_HEADERS, GOAWAY, HEADERS, REFUSED_STREAM, RST_STREAM, frame,
};
use crate::common::http2::{Connection, STREAM};
use crate::common::keys::client;
use crate::common::server::TestServer;
use crate::common::sockets::{PREFACE, connect_from};
use crate::common::stream::{TestStream, finish, is_last, item};

const QUEUED: &str = "code_explainer_queue_depth";
const RUNNING: &str = "code_explainer_running_sequences";
const CONNECTIONS: &str = "code_explainer_connections_open{protocol=\"grpc\"}";
const FLOODS: &str = "code_explainer_connections_closed_total{protocol=\"grpc\",reason=\"flood\"}";

const HTTP_FLOODS: &str =
    "code_explainer_connections_closed_total{protocol=\"http\",reason=\"flood\"}";

const ALLOWED: usize = 128;
const FLAGS: [&str; 2] = ["--resets-per-address", "128"];

/// Makes a call, waits until the server works on it, and takes it back. False where the connection is closed.
async fn take_back(connection: &Connection) -> bool {
    let Ok((answer, mut request)) = connection.try_open_with(STREAM, &[]).await else {
        return false;
    };
    let begun = answer.await.is_ok();
    request.send_reset(h2::Reason::CANCEL);
    begun
}

#[tokio::test]
async fn a_connection_that_takes_back_call_after_call_ends_and_nobodys_calls_do() {
    let (server, control) = TestServer::fake(&FLAGS).await;
    control.hold();
    let mut busy = TestStream::open(&server).await;
    busy.begin(item("a", "x = 1")).await;
    server.until_metric(RUNNING, 1.0).await;
    let from = connect_from(2, server.grpc).await;
    let (connection, ended) = Connection::over(from).await;
    // Of another client, behind the same balancer.
    let other = connection.spawn_call(item("", "w = 0"));
    server.until_metric(QUEUED, 1.0).await;
    let mut taken_back = 0;
    while taken_back < 100 * ALLOWED && take_back(&connection).await {
        taken_back += 1;
    }
    assert!(taken_back >= ALLOWED, "so many are anybody's: {taken_back}");
    assert!(taken_back < 100 * ALLOWED, "it is closed");
    server.until_metric(FLOODS, 1.0).await;
    control.release();
    assert_eq!(other.await.expect("no panic"), "0");
    ended.await.expect("no panic").ok();
    busy.wait_for("a", is_last).await;
    let events = client(&server, "").explain(Item::new("y = 2")).await;
    finish(events.expect("others are served")).await;
    // Its own address is served again, when it has waited.
    let again = connect_from(2, server.grpc).await;
    let (connection, _) = Connection::over(again).await;
    assert_eq!(connection.call(item("", "z = 3")).await, "0");
}

#[tokio::test]
async fn connections_that_their_client_leaves_count_for_its_address_and_for_no_other() {
    let (server, _) = TestServer::fake(&FLAGS).await;
    let mut taken_back = 0;
    // Each is left after half of what is allowed.
    while server.metric(FLOODS).await == Some(0.0) && taken_back < 100 * ALLOWED {
        let (connection, _) = Connection::over(connect_from(2, server.grpc).await).await;
        for _ in 0..ALLOWED / 2 {
            taken_back += usize::from(take_back(&connection).await);
        }
    }
    assert!(taken_back >= ALLOWED, "so many are anybody's: {taken_back}");
    assert!(taken_back < 100 * ALLOWED, "it is found out");
    let (neighbour, _) = Connection::over(connect_from(3, server.grpc).await).await;
    for taken_back in 0..ALLOWED {
        assert!(take_back(&neighbour).await, "{taken_back}");
    }
    assert_eq!(neighbour.call(item("", "z = 3")).await, "0");
}

#[tokio::test]
async fn who_leaves_with_its_calls_has_taken_them_back() {
    let (server, _) = TestServer::fake(&FLAGS).await;
    // What is taken back by hand is less than is allowed.
    for round in 0..ALLOWED / 2 {
        let (connection, left) = Connection::over(connect_from(2, server.grpc).await).await;
        let mut open = Vec::new();
        for _ in 0..ALLOWED / 2 {
            let Ok((answer, request)) = connection.try_open_with(STREAM, &[]).await else {
                break;
            };
            open.push((answer.await.is_ok(), request));
        }
        left.abort();
        server.until_metric(CONNECTIONS, 0.0).await;
        let (connection, _) = Connection::over(connect_from(2, server.grpc).await).await;
        take_back(&connection).await;
        if server.metric(FLOODS).await > Some(0.0) {
            assert!(round > 0, "some are anybody's");
            return;
        }
    }
    panic!("it is not found out");
}

#[tokio::test]
async fn one_that_goes_on_after_its_goodbye_is_read_for_so_many_calls_and_no_more() {
    const STREAMS: usize = 8;
    let flags = ["--resets-per-address", "1", "--connection-streams", "8"];
    let (server, _) = TestServer::fake(&flags).await;
    let mut connection = connect_from(2, server.grpc).await;
    let (call, mut stream) = (frames::call(STREAM), 1);
    let mut begin = PREFACE.to_vec();
    // One more than the address may.
    for _ in 0..2 {
        begin.extend(frame(HEADERS, END_HEADERS, stream, &call));
        begin.extend(frame(RST_STREAM, 0, stream, &CANCEL));
        stream += 2;
    }
    connection.write_all(&begin).await.expect("it is open");
    loop {
        let (kind, _) = frames::next(&mut connection)
            .await
            .expect("a goodbye first");
        if kind == GOAWAY {
            break;
        }
    }
    let mut refused = 0;
    'open: loop {
        let next = frame(HEADERS, END_HEADERS, stream, &call);
        if connection.write_all(&next).await.is_err() {
            break;
        }
        stream += 2;
        loop {
            match frames::next(&mut connection).await {
                Err(_) => break 'open,
                Ok((RST_STREAM, why)) => {
                    assert_eq!(why, REFUSED_STREAM, "it may be made elsewhere");
                    refused += 1;
                    break;
                }
                Ok(_) => {}
            }
        }
    }
    assert!(refused <= 4 * STREAMS, "{refused}");
    server.until_metric(FLOODS, 1.0).await;
}

#[tokio::test]
async fn probes_are_nobodys_flood() {
    let (server, _) = TestServer::fake(&["--resets-per-address", "1"]).await;
    for _ in 0..20 {
        assert_eq!(server.metric(HTTP_FLOODS).await, Some(0.0));
    }
}

#[tokio::test]
async fn one_that_takes_back_what_it_may_is_served() {
    let (server, _) = TestServer::fake(&FLAGS).await;
    let connection = Connection::to(server.grpc).await;
    for taken_back in 0..ALLOWED {
        assert!(take_back(&connection).await, "{taken_back}");
    }
    assert_eq!(connection.call(item("", "z = 3")).await, "0");
    assert_eq!(server.metric(FLOODS).await, Some(0.0));
}
