//! Connections that are opened to be there: silent ones, those that speak no more than they must, and more of them than
//! the process may have files. They make room for whoever calls, and descriptors are kept back for what must go on.

use std::net::SocketAddr;

use code_explainer::descriptors;
use code_explainer_client::Item;
use code_explainer_client::proto::explain_service_client::ExplainServiceClient;
use code_explainer_client::proto::explain_stream_response::Event;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tonic::transport::Endpoint;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::common::certificates::Files;
use crate::common::keys::{client, make_key};
use crate::common::programs::{ServerProcess, output, server as program};
use crate::common::server::{TestServer, http_get, metric};
use crate::common::sockets::{PREFACE, connect_from, until_closed};
use crate::common::stream::{TestStream, finish, is_accepted, is_last, item};

const OPEN: &str = "code_explainer_connections_open{protocol=\"grpc\"}";
const DISPLACED: &str =
    "code_explainer_connections_closed_total{protocol=\"grpc\",reason=\"displaced\"}";
const SILENT: &str = "code_explainer_connections_closed_total{protocol=\"grpc\",reason=\"silent\"}";
const OF_ADDRESS: &str =
    "code_explainer_connections_refused_total{protocol=\"grpc\",reason=\"address\"}";

async fn silent(host: u8, server: SocketAddr, number: usize) -> Vec<TcpStream> {
    let mut held = Vec::new();
    for _ in 0..number {
        held.push(connect_from(host, server).await);
    }
    held
}

#[tokio::test]
async fn silent_ones_make_room_for_those_who_call_and_nobody_who_calls_loses_a_call() {
    let (server, control) = TestServer::fake(&["--connections", "8"]).await;
    control.hold();
    let mut busy = TestStream::open(&server).await;
    busy.begin(item("a", "x = 1")).await;
    let _held = silent(1, server.grpc, 40).await;
    // Seven beside the busy one; those that came first are gone.
    server.until_metric(DISPLACED, 33.0).await;
    control.release();
    assert!(matches!(busy.wait_for("a", is_last).await, Event::Done(_)));
    let events = client(&server, "").explain(Item::new("y = 2")).await;
    finish(events.expect("a newcomer is served")).await;
}

#[tokio::test]
async fn who_watches_health_without_a_key_makes_room_for_who_has_one() {
    let (files, (token, line)) = (Files::new(), make_key("ci", "acme", "explain"));
    let book = files.write("book", &line);
    let (server, _) = TestServer::fake(&["--auth-file", &book, "--connections", "4"]).await;
    let mut watching = Vec::new();
    for _ in 0..4 {
        let mut health = HealthClient::new(server.channel().await);
        let request = HealthCheckRequest::default();
        let mut states = (health.watch(request).await.expect("needs no key")).into_inner();
        states.message().await.expect("open").expect("a state");
        watching.push(states);
    }
    assert_eq!(server.metric(OPEN).await, Some(4.0));
    let events = client(&server, &token).explain(Item::new("x = 1")).await;
    finish(events.expect("a known client is served")).await;
    assert_eq!(server.metric(DISPLACED).await, Some(1.0));
}

#[tokio::test]
async fn an_address_that_takes_all_it_may_leaves_the_others_theirs() {
    let flags = ["--connections", "8", "--connections-per-address", "2"];
    let (server, control) = TestServer::fake(&flags).await;
    control.hold();
    let mut busy = Vec::new();
    for id in ["a", "b"] {
        let mut stream = TestStream::open(&server).await;
        stream.explain(item(id, "x = 1")).await;
        stream.wait_for(id, is_accepted).await;
        busy.push(stream);
    }
    let mut third = connect_from(1, server.grpc).await;
    assert_eq!(until_closed(&mut third).await, 0);
    assert_eq!(server.metric(OF_ADDRESS).await, Some(1.0));
    let _other = silent(2, server.grpc, 2).await;
    server.until_metric(OPEN, 4.0).await;
    control.release();
    for (stream, id) in busy.iter_mut().zip(["a", "b"]) {
        assert!(matches!(stream.wait_for(id, is_last).await, Event::Done(_)));
    }
}

#[tokio::test]
async fn a_connection_without_a_call_is_closed_long_before_an_idle_one() {
    let (server, _) = TestServer::fake(&["--handshake-timeout", "300ms"]).await;
    let mut mute = connect_from(1, server.grpc).await;
    let mut polite = connect_from(1, server.grpc).await;
    polite.write_all(PREFACE).await.expect("sent");
    // It may hear the server's side of the preface, and a goodbye.
    until_closed(&mut mute).await;
    assert!(until_closed(&mut polite).await > 0, "it hears a goodbye");
    server.until_metric(SILENT, 2.0).await;
    server.until_metric(OPEN, 0.0).await;
}

/// The program, where so many files may be open.
fn limited(files: usize) -> std::process::Command {
    let limit = format!("ulimit -n {files}; exec \"$@\"");
    let served = program(&["serve", "--listen", "127.0.0.1:0"]);
    let mut command = std::process::Command::new("sh");
    command.args(["-c", &limit, "sh"]).arg(served.get_program());
    command.args(served.get_args());
    for (name, value) in served.get_envs() {
        if value.is_none() {
            command.env_remove(name);
        }
    }
    command.current_dir(crate::common::programs::root());
    command.args(["--http-listen", "127.0.0.1:0", "--kv-cache-tokens", "8192"]);
    command
}

#[tokio::test]
async fn two_thousand_silent_ones_under_a_limit_of_1024_files_stop_nothing() {
    assert!(descriptors::raise_limit() >= 4096, "for this test's own");
    let mut process = ServerProcess::start(limited(1024));
    let lowered = process.wait_for("fewer connections than --connections");
    assert!(lowered.contains("wanted=4096"), "{lowered}");
    let (grpc, http) = (process.address("grpc"), process.address("http"));
    process.wait_for(" ready");
    let mut held = Vec::new();
    for host in 1..=4 {
        held.extend(silent(host, grpc, 250).await);
        held.extend(silent(host, http, 250).await);
    }
    assert_eq!(http_get(http, "/healthz").await, (200, "alive\n".into()));
    assert_eq!(http_get(http, "/readyz").await.0, 200);
    let endpoint = Endpoint::from_shared(format!("http://{grpc}")).expect("a URI");
    let channel = endpoint.connect().await.expect("it listens");
    let health = HealthClient::new(channel.clone())
        .check(HealthCheckRequest::default())
        .await;
    let health = health.expect("told").into_inner().status();
    assert_eq!(health, ServingStatus::Serving);
    let mut wanted = item("", "x = 1");
    wanted.max_new_tokens = 4;
    let mut events = (ExplainServiceClient::new(channel).explain(wanted).await)
        .expect("a newcomer is served")
        .into_inner();
    while events.message().await.expect("no failure").is_some() {}
    assert_eq!(metric(http, "process_max_fds").await, Some(1024.0));
    let open = metric(http, "process_open_fds").await.expect("counted");
    assert!(open < 1024.0 - 64.0, "{open} are open");
    let refused = "code_explainer_connections_refused_total{protocol=\"grpc\",reason=\"limit\"}";
    assert_eq!(metric(http, refused).await, Some(0.0), "all were let in");
    drop(held);
    process.signal("TERM");
    assert_eq!(process.ended().code(), Some(0), "{:?}", process.said);
}

#[test]
fn a_limit_that_leaves_connections_no_room_is_refused() {
    let refused = output(&mut limited(128));
    let said = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(64), "{said}");
    assert!(said.contains("ulimit") && said.contains("128"), "{said}");
}
