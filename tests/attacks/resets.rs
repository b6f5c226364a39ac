//! Calls that are taken back as soon as they are made: next to nothing for who makes them, and work for the server.

use code_explainer_client::Item;

use crate::common::http2::{Connection, STREAM};
use crate::common::keys::client;
use crate::common::server::TestServer;
use crate::common::sockets::connect_from;
use crate::common::stream::{TestStream, finish, is_accepted, is_last, item};

const QUEUED: &str = "code_explainer_queue_depth";
const FLOODS: &str = "code_explainer_connections_closed_total{protocol=\"grpc\",reason=\"flood\"}";

/// Sixteen for each of the calls that a connection may have open.
const ALLOWED: usize = 16 * 8;

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
    let (server, control) = TestServer::fake(&["--connection-streams", "8"]).await;
    control.hold();
    let mut busy = TestStream::open(&server).await;
    busy.explain(item("a", "x = 1")).await;
    busy.wait_for("a", is_accepted).await;
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
async fn one_that_takes_back_what_it_may_is_served() {
    let (server, _) = TestServer::fake(&["--connection-streams", "8"]).await;
    let connection = Connection::to(server.grpc).await;
    for taken_back in 0..ALLOWED {
        assert!(take_back(&connection).await, "{taken_back}");
    }
    assert_eq!(connection.call(item("", "z = 3")).await, "0");
    assert_eq!(server.metric(FLOODS).await, Some(0.0));
}
