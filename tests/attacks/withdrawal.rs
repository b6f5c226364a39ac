//! Who is not to be let in any more tries to stay: on a connection that is open, by an old session, or by seeing to it that
//! the server cannot read who that is.

use std::net::SocketAddr;
use std::time::Duration;

use code_explainer_client::Item;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tonic::Code;

use crate::common::certificates::{Authority, Certified, Files};
use crate::common::http2::{Connection, EXPLAIN, framed};
use crate::common::keys::{client, make_key};
use crate::common::programs::{ServerProcess, server as program};
use crate::common::server::{TestServer, http_get};
use crate::common::stream::{TestStream, item};
use crate::common::tls::TlsClient;

const UNAUTHENTICATED: &str = "16";
const PERMISSION_DENIED: &str = "7";
const OK: &str = "0";
const LONG: Duration = Duration::from_secs(3600);

/// A server that asks clients for certificates, with its files.
struct Asking {
    /// Of the server's own certificate.
    authority: Authority,
    files: Files,
    flags: Vec<String>,
}

impl Asking {
    /// For certificates of these.
    fn for_those_of(authorities: &[&Authority]) -> Self {
        let (authority, files) = (Authority::new(), Files::new());
        let mut flags = files.server_flags(&authority.server());
        flags.extend(["--tls-client-ca".into(), write_all(&files, authorities)]);
        let mut asking = Self {
            authority,
            files,
            flags,
        };
        asking.with("--reload-interval", "50ms");
        asking
    }

    fn with(&mut self, flag: &str, value: &str) {
        self.flags.extend([flag.into(), value.into()]);
    }

    async fn start(
        &self,
    ) -> (
        TestServer,
        std::sync::Arc<code_explainer_engine::fake::FakeControl>,
    ) {
        let flags: Vec<&str> = self.flags.iter().map(String::as_str).collect();
        let (server, control) = TestServer::fake(&flags).await;
        control.hold();
        (server, control)
    }

    fn client(&self, shows: &Certified) -> TlsClient {
        TlsClient::new(&self.authority, shows, &[])
    }
}

fn write_all(files: &Files, authorities: &[&Authority]) -> String {
    let pem: String = authorities
        .iter()
        .map(|authority| authority.pem())
        .collect();
    files.write("ca.pem", &pem)
}

/// A client on a connection of its own, with a call that the engine has not answered yet.
struct Visitor {
    connection: Connection,
    closed: JoinHandle<Result<(), h2::Error>>,
    call: JoinHandle<String>,
}

impl Visitor {
    async fn come(server: SocketAddr, client: &TlsClient, code: &str) -> Self {
        let io = client.connect(server).await.expect("let in");
        let (connection, closed) = Connection::over(io).await;
        let (response, mut body) = connection.open(EXPLAIN).await;
        body.send_data(framed(&item("", code)), true).expect("open");
        // Its headers come with the item's first event: it is accepted.
        let response = response.await.expect("let in");
        assert!(
            !response.headers().contains_key("grpc-status"),
            "{response:?}"
        );
        let call = tokio::spawn(async move { rest(response).await });
        Self {
            connection,
            closed,
            call,
        }
    }

    /// Its call ends as that of one who is not known, and its connection in good order.
    async fn until_sent_away(self) {
        assert_eq!(self.call.await.expect("read"), UNAUTHENTICATED);
        let closed = self.closed.await.expect("no panic");
        assert!(closed.is_ok(), "said goodbye: {closed:?}");
    }

    /// Nothing has happened to it.
    async fn until_answered(self) {
        assert_eq!(self.call.await.expect("read"), OK);
        assert_eq!(self.connection.call(item("", "again")).await, OK);
        assert!(!self.closed.is_finished());
    }
}

/// The status at the end of an answer that has begun.
async fn rest(response: tonic::codegen::http::Response<h2::RecvStream>) -> String {
    let mut answer = response.into_body();
    while let Some(data) = answer.data().await {
        let read = data.expect("the call goes on").len();
        (answer.flow_control().release_capacity(read)).expect("it was read");
    }
    let trailers = answer.trailers().await.expect("the call goes on");
    let trailers = trailers.expect("a call has an end");
    trailers["grpc-status"]
        .to_str()
        .expect("a number")
        .to_owned()
}

/// Whether a call comes through, on a new connection.
async fn is_let_in(server: &TestServer, client: &TlsClient) -> bool {
    let Ok(io) = client.connect(server.grpc).await else {
        return false;
    };
    let begun = h2::client::handshake(io).await;
    let Ok((requests, connection)) = begun else {
        return false;
    };
    tokio::spawn(connection);
    let Ok(mut requests) = requests.ready().await else {
        return false;
    };
    let path = "http://server/codeexplainer.v1.ModelService/GetModel";
    let head = tonic::codegen::http::Request::post(path)
        .header("content-type", "application/grpc")
        .body(())
        .expect("a request");
    let Ok((response, mut body)) = requests.send_request(head, false) else {
        return false;
    };
    let empty = code_explainer_client::proto::GetModelRequest::default();
    if body.send_data(framed(&empty), true).is_err() {
        return false;
    }
    match response.await {
        Ok(response) => !response.headers().contains_key("grpc-status"),
        Err(_) => false,
    }
}

#[tokio::test]
async fn an_authority_that_is_taken_out_of_the_file_ends_the_connections_that_it_let_in() {
    let (gone, kept) = (Authority::new(), Authority::new());
    let asking = Asking::for_those_of(&[&gone, &kept]);
    let (server, control) = asking.start().await;
    let (of_gone, of_kept) = (gone.client("a", ""), kept.client("b", ""));
    let (of_gone, of_kept) = (asking.client(&of_gone), asking.client(&of_kept));
    let leaves = Visitor::come(server.grpc, &of_gone, "x = 1").await;
    let stays = Visitor::come(server.grpc, &of_kept, "x = 2").await;

    write_all(&asking.files, &[&kept]);
    leaves.until_sent_away().await;
    assert!(
        !is_let_in(&server, &of_gone).await,
        "nor by its old session"
    );
    control.release();
    stays.until_answered().await;
    assert!(is_let_in(&server, &of_kept).await);
}

#[tokio::test]
async fn a_certificate_that_reaches_its_end_ends_its_connection_and_so_does_one_that_signed_it() {
    let authority = Authority::new();
    let asking = Asking::for_those_of(&[&authority]);
    let (server, control) = asking.start().await;
    let stays = asking.client(&authority.client("stays", ""));
    let stays = Visitor::come(server.grpc, &stays, "x = 1").await;
    let soon = Duration::from_secs(10);
    let own = asking.client(&authority.client_for("own", soon));
    let below = authority.below(soon);
    let below = TlsClient::new(&asking.authority, &below.client("below", ""), &[&below]);
    let leaves = Visitor::come(server.grpc, &own, "x = 2").await;
    let leaves_too = Visitor::come(server.grpc, &below, "x = 3").await;

    leaves.until_sent_away().await;
    leaves_too.until_sent_away().await;
    for client in [own, below] {
        assert!(!is_let_in(&server, &client).await, "nor by its old session");
    }
    control.release();
    stays.until_answered().await;
}

#[tokio::test]
async fn a_revoked_certificate_is_not_let_in_and_its_open_connection_ends() {
    let authority = Authority::new();
    let (good, bad) = (authority.client("good", ""), authority.client("bad", ""));
    let mut asking = Asking::for_those_of(&[&authority]);
    let list = asking.files.write("crl.pem", &authority.revokes(&[], LONG));
    asking.with("--tls-client-crl", &list);
    let (server, control) = asking.start().await;
    let (good, client) = (asking.client(&good), asking.client(&bad));
    let leaves = Visitor::come(server.grpc, &client, "x = 1").await;
    let stays = Visitor::come(server.grpc, &good, "x = 2").await;

    // What is no list changes nothing, and is told.
    asking.files.write("crl.pem", &authority.pem());
    let stale = "code_explainer_file_stale{file=\"tls_client\"}";
    server.until_metric(stale, 1.0).await;
    asking
        .files
        .write("crl.pem", &authority.revokes(&[&bad], LONG));
    leaves.until_sent_away().await;
    server.until_metric(stale, 0.0).await;
    assert!(!is_let_in(&server, &client).await);
    control.release();
    stays.until_answered().await;
    assert!(is_let_in(&server, &good).await);

    // A list that is past its next update tells of nobody that they are good.
    let past = authority.revokes(&[], Duration::ZERO);
    asking.files.write("crl.pem", &past);
    while is_let_in(&server, &good).await {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_certificate_that_gets_a_line_of_its_own_is_no_more_what_cert_star_made_it() {
    let authority = Authority::new();
    let mut asking = Asking::for_those_of(&[&authority]);
    let book = asking.files.write("book", "cert * roles=explain\n");
    asking.with("--auth-file", &book);
    let (server, control) = asking.start().await;
    let changed = asking.client(&authority.client("changed", "spiffe://acme/changed"));
    let other = asking.client(&authority.client("other", ""));
    let changed = Visitor::come(server.grpc, &changed, "x = 1").await;
    let other = Visitor::come(server.grpc, &other, "x = 2").await;

    let lines = "cert * roles=explain\ncert cn:changed tenant=ops roles=admin\n";
    asking.files.write("book", lines);
    assert_eq!(changed.call.await.expect("read"), UNAUTHENTICATED);
    // Its connection is as good as before, for what it may do now.
    let again = changed.connection.call(item("", "x = 3")).await;
    assert_eq!(again, PERMISSION_DENIED);
    control.release();
    other.until_answered().await;
}

/// Makes a file unreadable, in ways that a test can, whoever runs it.
fn take_away(files: &Files, name: &str, how: &str) {
    let path = files.path(name);
    std::fs::remove_file(&path).expect("it is there");
    match how {
        "deleted" => {}
        "a pipe that nobody writes" => {
            let made = std::process::Command::new("mkfifo").arg(&path).status();
            assert!(made.expect("mkfifo").success());
        }
        "a directory" => std::fs::create_dir(&path).expect("made"),
        other => panic!("{other} is no way"),
    }
}

fn put_back(files: &Files, name: &str, how: &str, text: &str) {
    if how == "a directory" {
        std::fs::remove_dir(files.path(name)).expect("it is there");
    }
    files.write(name, text);
}

async fn a_book_that_is(how: &str) {
    let files = Files::new();
    let (kept, kept_line) = make_key("kept", "acme", "explain,admin");
    let (gone, gone_line) = make_key("gone", "acme", "explain");
    let book = files.write("book", &(kept_line.clone() + &gone_line));
    let flags = [
        "--auth-file",
        &book,
        "--auth-grace",
        "300ms",
        "--reload-interval",
        "50ms",
    ];
    let (server, control) = TestServer::fake(&flags).await;
    control.hold();
    let add = |metadata: &mut tonic::metadata::MetadataMap| {
        let value = format!("Bearer {gone}").parse().expect("a header");
        metadata.insert("authorization", value);
    };
    let mut stream = TestStream::open_with(&server, add).await;
    stream.begin(item("a", "x = 1")).await;

    take_away(&files, "book", how);
    let ended = loop {
        match stream.try_next().await {
            Some(Ok(_)) => {}
            Some(Err(status)) => break status,
            None => panic!("{how}: the stream says why it ends"),
        }
    };
    assert_eq!(ended.code(), Code::Unavailable, "{how}");
    for token in [&kept, &gone] {
        let refused = client(&server, token).explain(Item::new("x = 2")).await;
        assert_eq!(
            refused.expect_err("nobody").code(),
            Code::Unavailable,
            "{how}"
        );
    }
    server
        .until_metric("code_explainer_callers_known", 0.0)
        .await;
    server
        .until_metric("code_explainer_file_stale{file=\"auth\"}", 1.0)
        .await;
    let (code, said) = server.get("/readyz").await;
    assert_eq!(code, 503, "{how}");
    assert!(said.contains("cannot be read"), "{said}");

    put_back(&files, "book", how, &kept_line);
    server.ready().await;
    control.release();
    client(&server, &kept).model().await.expect("known again");
    let refused = client(&server, &gone)
        .model()
        .await
        .expect_err("not any more");
    assert_eq!(refused.code(), Code::Unauthenticated, "{how}");
    server
        .until_metric("code_explainer_file_stale{file=\"auth\"}", 0.0)
        .await;
}

#[tokio::test]
async fn while_the_file_of_keys_cannot_be_read_nobody_is_let_in_after_a_grace() {
    for how in ["deleted", "a pipe that nobody writes", "a directory"] {
        a_book_that_is(how).await;
    }
}

#[tokio::test]
async fn while_the_authorities_cannot_be_read_no_certificate_counts_after_a_grace() {
    let authority = Authority::new();
    let mut asking = Asking::for_those_of(&[&authority]);
    asking.with("--auth-grace", "300ms");
    let (server, _control) = asking.start().await;
    let client = asking.client(&authority.client("a", ""));
    let visitor = Visitor::come(server.grpc, &client, "x = 1").await;
    // The server's own certificate takes nobody's rights away.
    take_away(&asking.files, "cert.pem", "deleted");
    server
        .until_metric("code_explainer_file_stale{file=\"tls\"}", 1.0)
        .await;
    take_away(&asking.files, "ca.pem", "deleted");
    assert_eq!(visitor.call.await.expect("read"), "14");
    assert!(!is_let_in(&server, &client).await);
    assert_eq!(server.get("/readyz").await.0, 503);
    write_all(&asking.files, &[&authority]);
    server.ready().await;
    assert!(is_let_in(&server, &client).await);
}

#[tokio::test]
async fn a_server_without_a_descriptor_left_still_reads_who_was_taken_out() {
    let files = Files::new();
    let (gone, gone_line) = make_key("gone", "acme", "explain,admin");
    let (kept, kept_line) = make_key("kept", "acme", "explain,admin");
    let book = files.write("book", &(gone_line + &kept_line));
    let flags = [
        "--kv-cache-tokens",
        "4096",
        "--reload-interval",
        "100ms",
        "--auth-file",
        &book,
    ];
    let addresses = ["--listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0"];
    let server = program(&[&["serve"][..], &addresses[..], &flags[..]].concat());
    // As many files as a careless service manager gives it.
    let mut limited = std::process::Command::new("sh");
    limited.args(["-c", "ulimit -n 320 && exec \"$0\" \"$@\""]);
    limited.arg(server.get_program()).args(server.get_args());
    for (name, value) in server.get_envs() {
        match value {
            Some(value) => limited.env(name, value),
            None => limited.env_remove(name),
        };
    }
    if let Some(directory) = server.get_current_dir() {
        limited.current_dir(directory);
    }
    let (grpc, http, _process) = tokio::task::spawn_blocking(move || {
        let mut process = ServerProcess::start(limited);
        let (grpc, http) = (process.address("grpc"), process.address("http"));
        process.wait_for(" ready");
        (grpc, http, process)
    })
    .await
    .expect("it starts");
    let connected = |token: &str| {
        let token = code_explainer_client::Token::new(token).expect("a header");
        let options = code_explainer_client::ConnectOptions {
            token: Some(token),
            ..Default::default()
        };
        code_explainer_client::Client::connect_with(&grpc.to_string(), &options)
            .expect("an address")
    };
    let (gone, kept) = (connected(&gone), connected(&kept));
    gone.model().await.expect("known");
    kept.model().await.expect("known");
    // What the HTTP side is asked by later is connected before there is nothing left.
    let mut silent = Vec::new();
    for _ in 0..160 {
        silent.push(
            TcpStream::connect(grpc)
                .await
                .expect("the queue of the port takes it"),
        );
    }
    files.write("book", &kept_line);
    let refused = loop {
        match gone.model().await {
            Ok(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            Err(refused) => break refused,
        }
    };
    assert_eq!(refused.code(), Code::Unauthenticated, "{refused}");
    kept.model().await.expect("the file was read");
    drop(silent);
    assert_eq!(http_get(http, "/healthz").await.0, 200);
}
