//! Bodies that do not end: what their clients announce, they hold only as far as there is room, and not for long.

use code_explainer_client::Item;
use code_explainer_client::proto::explain_stream_request::Request as Wish;
use code_explainer_client::proto::explain_stream_response::Event;
use code_explainer_client::proto::{ExplainRequest, ExplainStreamRequest};
use h2::SendStream;
use h2::client::ResponseFuture;
use prost::bytes::Bytes;
use tonic::Code;

use crate::common::certificates::Files;
use crate::common::http2::{Connection, EXPLAIN, STREAM, declared, framed, status};
use crate::common::keys::{client, make_key};
use crate::common::server::TestServer;
use crate::common::stream::{TestStream, is_last, item};

const CHECK: &str = "/grpc.health.v1.Health/Check";
const WATCH: &str = "/grpc.health.v1.Health/Watch";
const IN_FLIGHT: &str = "code_explainer_request_bytes_in_flight";
/// What open calls take: of one message, and of many.
const CALL: f64 = 8192.0;
const STREAM_CALL: f64 = 73728.0;
const LARGE: u32 = 4 << 20;

fn refused(reason: &str) -> String {
    format!("code_explainer_requests_refused_total{{reason=\"{reason}\"}}")
}

/// Calls that announce a large message and send a little of it.
async fn announce(
    connection: &Connection,
    path: &str,
    headers: &[(&str, &str)],
    calls: usize,
) -> Vec<(ResponseFuture, SendStream<Bytes>)> {
    let mut open = Vec::new();
    for _ in 0..calls {
        let (response, mut body) = connection.open_with(path, headers).await;
        // The server may have refused it already.
        let _ = body.send_data(declared(LARGE), false);
        let _ = body.send_data(Bytes::from_static(&[0; 1024]), false);
        open.push((response, body));
    }
    open
}

#[tokio::test]
async fn probes_that_announce_much_end_at_once_and_hold_nothing() {
    let files = Files::new();
    let (token, line) = make_key("ci", "acme", "explain");
    let book = files.write("book", &line);
    let (server, _) = TestServer::fake(&["--auth-file", &book]).await;
    let attacker = Connection::to(server.grpc).await;
    for (response, _body) in announce(&attacker, CHECK, &[], 150).await {
        assert_eq!(status(response).await, "11", "out of range");
    }
    assert_eq!(server.metric(&refused("too_large")).await, Some(150.0));
    assert_eq!(server.metric(IN_FLIGHT).await, Some(0.0));
    let answer = client(&server, &token).explain(Item::new("x = 1")).await;
    answer.expect("a good client");
    let (response, mut body) = attacker.open(CHECK).await;
    body.send_data(declared(0), true).expect("open");
    assert_eq!(status(response).await, "0", "a good probe");
}

#[tokio::test]
async fn calls_that_are_not_let_in_or_not_known_hold_nothing() {
    let files = Files::new();
    let (token, line) = make_key("ci", "acme", "explain");
    let book = files.write("book", &line);
    let (server, _) = TestServer::fake(&["--auth-file", &book]).await;
    let attacker = Connection::to(server.grpc).await;
    for (response, _body) in announce(&attacker, EXPLAIN, &[], 50).await {
        assert_eq!(status(response).await, "16", "unauthenticated");
    }
    let key = format!("Bearer {token}");
    let headers = [("authorization", key.as_str())];
    let nothing = "/codeexplainer.v1.Nothing/Is";
    for (response, _body) in announce(&attacker, nothing, &headers, 50).await {
        assert_eq!(status(response).await, "12", "unimplemented");
    }
    let model = "/codeexplainer.v1.ModelService/GetModel";
    for (response, _body) in announce(&attacker, model, &headers, 50).await {
        assert_eq!(status(response).await, "11", "out of range");
    }
    server.until_metric(IN_FLIGHT, 0.0).await;
}

#[tokio::test]
async fn a_tenant_that_announces_much_has_its_share_and_the_others_go_on() {
    let files = Files::new();
    let (bad, bad_line) = make_key("bad", "bad", "explain");
    let (good, good_line) = make_key("good", "good", "explain");
    let book = files.write("book", &(bad_line + &good_line));
    let budget = 64 << 20;
    let room = budget.to_string();
    let flags = ["--auth-file", &book, "--request-bytes-in-flight", &room];
    let (server, _) = TestServer::fake(&flags).await;
    let attacker = Connection::to(server.grpc).await;
    let key = format!("Bearer {bad}");
    let headers = [("authorization", key.as_str())];
    let open = announce(&attacker, EXPLAIN, &headers, 150).await;
    // Three messages find room in a share of 16 MiB beside what 150 open calls take; their announcements say so.
    let message = f64::from(LARGE) + 5.0;
    server
        .until_metric(IN_FLIGHT, 150.0 * CALL + 3.0 * message)
        .await;
    let share = f64::from(budget) / 4.0;
    for n in 0..20 {
        let item = Item::new(format!("x = {n}"));
        let answer = client(&server, &good).explain(item).await;
        answer.expect("others have room");
        let held = server.metric(IN_FLIGHT).await.expect("it is counted");
        assert!(held <= share + 2.0 * CALL, "{held}");
    }
    // Who goes gives back all that it has.
    drop(open);
    server.until_metric(IN_FLIGHT, 0.0).await;
    let answer = client(&server, &bad).explain(Item::new("y = 1")).await;
    answer.expect("there is room again");
}

#[tokio::test]
async fn a_message_that_does_not_come_ends_its_call_and_a_silent_stream_goes_on() {
    let (server, _) = TestServer::fake(&["--message-timeout", "500ms"]).await;
    let silent = TestStream::open(&server).await;
    let attacker = Connection::to(server.grpc).await;
    let (unary, mut of_unary) = attacker.open(EXPLAIN).await;
    let begun = framed(&item("", "x = 1"));
    (of_unary.send_data(begun.slice(..7), false)).expect("open");
    // Of a message that has come, the end of its body does not.
    let (endless, mut of_endless) = attacker.open(EXPLAIN).await;
    of_endless.send_data(begun.clone(), false).expect("open");
    let (nothing, _of_nothing) = attacker.open(EXPLAIN).await;
    let (stream, mut of_stream) = attacker.open(STREAM).await;
    (of_stream.send_data(declared(100).slice(..2), false)).expect("open");
    for response in [unary, endless, nothing, stream] {
        assert_eq!(status(response).await, "4", "deadline exceeded");
    }
    assert_eq!(server.metric(&refused("too_slow")).await, Some(4.0));
    server.until_metric(IN_FLIGHT, STREAM_CALL).await;
    let mut silent = silent;
    silent.explain(item("a", "x = 1")).await;
    assert!(matches!(
        silent.wait_for("a", is_last).await,
        Event::Done(_)
    ));
}

#[tokio::test]
async fn a_second_message_where_one_is_taken_is_refused() {
    let (server, _) = TestServer::fake(&[]).await;
    let attacker = Connection::to(server.grpc).await;
    let (response, mut body) = attacker.open(EXPLAIN).await;
    let message = framed(&item("", "x = 1"));
    body.send_data(message.clone(), false).expect("open");
    body.send_data(message, false).expect("open");
    assert_eq!(status(response).await, "3", "invalid argument");
}

#[tokio::test]
async fn messages_that_are_not_compressed_as_they_say_are_refused() {
    let (server, _) = TestServer::fake(&[]).await;
    let attacker = Connection::to(server.grpc).await;
    for (encoding, code) in [("gzip", "3"), ("zstd", "12"), ("identity", "13")] {
        let (response, mut body) =
            (attacker.open_with(EXPLAIN, &[("grpc-encoding", encoding)])).await;
        let mut message = framed(&item("", "x = 1")).to_vec();
        message[0] = 1;
        let _ = body.send_data(message.into(), true);
        assert_eq!(status(response).await, code, "{encoding}");
    }
    server.until_metric(IN_FLIGHT, 0.0).await;
}

#[tokio::test]
async fn probes_that_stay_make_room_for_others() {
    /// As many calls without credentials as may be open, and those of one more connection.
    const CONNECTIONS: usize = 4096 / 256 + 1;
    let (server, _) = TestServer::fake(&[]).await;
    let mut open = Vec::new();
    for _ in 0..CONNECTIONS {
        let connection = Connection::to(server.grpc).await;
        for _ in 0..256 {
            let (response, mut body) = connection.open(WATCH).await;
            body.send_data(declared(0), true).expect("open");
            open.push(response);
        }
    }
    let first = open.swap_remove(0);
    assert_eq!(status(first).await, "8", "resource exhausted");
    let another = Connection::to(server.grpc).await;
    let (response, mut body) = another.open(CHECK).await;
    body.send_data(declared(0), true).expect("open");
    assert_eq!(status(response).await, "0", "it finds room");
    let last = open.pop().expect("the last");
    last.await.expect("it goes on");
}

fn large(id: &str) -> ExplainRequest {
    item(id, &"x = 1\n".repeat(500_000))
}

#[tokio::test]
async fn large_messages_of_good_clients_are_read_and_leave_no_room_taken() {
    let (server, _) = TestServer::fake(&[]).await;
    let connection = Connection::to(server.grpc).await;
    // 3 MB are too much code, which their item is told.
    assert_eq!(connection.call(large("")).await, "3");
    server.until_metric(IN_FLIGHT, 0.0).await;
    let mut stream = TestStream::open(&server).await;
    for id in ["a", "b", "c"] {
        stream.explain(large(id)).await;
        let Event::Error(error) = stream.wait_for(id, is_last).await else {
            panic!("too much code")
        };
        assert_eq!(
            (error.field.as_str(), Code::from(error.code)),
            ("code", Code::InvalidArgument)
        );
        server.until_metric(IN_FLIGHT, STREAM_CALL).await;
    }
    stream.explain(item("d", "x = 1")).await;
    assert!(matches!(
        stream.wait_for("d", is_last).await,
        Event::Done(_)
    ));
}

#[tokio::test]
async fn many_messages_at_once_wait_for_room_and_are_all_read() {
    // Room for one message of the largest kind, or for about 60 of these.
    let flags = [
        "--message-bytes",
        "1048576",
        "--request-bytes-in-flight",
        "4400000",
        "--queue-items",
        "1000",
    ];
    let (server, _) = TestServer::fake(&flags).await;
    let connection = Connection::to(server.grpc).await;
    let mut calls = Vec::new();
    for n in 0..120 {
        let (response, mut body) = connection.open(EXPLAIN).await;
        // A comment that is left out of what the model is asked.
        let code = format!("x = {n}\n#{}", "-".repeat(60_000));
        let mut wanted = item("", &code);
        wanted.max_new_tokens = 1;
        let message = framed(&wanted);
        let half = message.len() / 2;
        body.send_data(message.slice(..half), false).expect("open");
        calls.push((response, body, message.slice(half..)));
    }
    for (response, mut body, rest) in calls {
        body.send_data(rest, true).expect("open");
        let status = status(response).await;
        assert!(
            ["0", "3"].contains(&status.as_str()),
            "{status}: it was read"
        );
    }
    for reason in ["no_room", "too_slow"] {
        assert_eq!(server.metric(&refused(reason)).await, Some(0.0));
    }
}

#[tokio::test]
async fn many_streams_at_once_are_served() {
    let (server, _) = TestServer::fake(&[]).await;
    let connection = Connection::to(server.grpc).await;
    let mut streams = Vec::new();
    for n in 0..250 {
        let (response, mut body) = connection.open(STREAM).await;
        let wish = Wish::Explain(item("a", &format!("x = {n}")));
        let wish = ExplainStreamRequest {
            request: Some(wish),
        };
        // A byte at a time, as far as the message's length goes.
        let message = framed(&wish);
        for at in 0..8 {
            body.send_data(message.slice(at..at + 1), false)
                .expect("open");
        }
        body.send_data(message.slice(8..), true).expect("open");
        streams.push(response);
    }
    for stream in streams {
        assert_eq!(status(stream).await, "0");
    }
    server.until_metric(IN_FLIGHT, 0.0).await;
}
