//! Files that say who may call, written by somebody who should not, or with a mistake; and keys that may do little.

use std::process::Output;

use tonic::Code;

use crate::common::certificates::{Authority, Files};
use crate::common::keys::{client, make_key};
use crate::common::programs::{ServerProcess, output, server as program};
use crate::common::server::{TestServer, http_get_with};

const STALE: &str = "code_explainer_file_stale{file=\"auth\"}";
const FAILED: &str = "code_explainer_file_reloads_total{file=\"auth\",result=\"failed\"}";

fn serve(flags: &[&str]) -> Output {
    let addresses = ["--listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0"];
    output(&mut program(
        &[&["serve"][..], &addresses[..], flags].concat(),
    ))
}

#[test]
fn files_that_others_can_write_are_refused_at_start_and_the_words_say_chmod() {
    let (authority, files) = (Authority::new(), Files::new());
    let own = authority.server();
    let (certificate, key) = (
        files.write("cert.pem", &own.certificate),
        files.write("key.pem", &own.key),
    );
    let ca = files.write("ca.pem", &authority.pem());
    let (_, line) = make_key("ci", "acme", "explain");
    let book = files.write("book", &line);
    let all = [
        "--tls-cert",
        &certificate,
        "--tls-key",
        &key,
        "--tls-client-ca",
        &ca,
        "--auth-file",
        &book,
    ];
    for name in ["book", "key.pem", "cert.pem", "ca.pem"] {
        for mode in [0o620, 0o602] {
            files.set_mode(name, mode);
            let ended = serve(&all);
            let said = String::from_utf8_lossy(&ended.stderr);
            assert_eq!(ended.status.code(), Some(64), "{name}: {said}");
            assert!(said.contains(name) && said.contains("chmod go-w"), "{said}");
        }
        files.set_mode(name, 0o644);
    }
    files.set_mode("", 0o777);
    let ended = serve(&all);
    let said = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(64), "{said}");
    assert!(said.contains("chmod go-w that directory"), "{said}");
}

#[tokio::test]
async fn a_file_that_others_can_write_lets_nobody_in_and_takes_nobody_out() {
    let files = Files::new();
    let (owner, owner_line) = make_key("owner", "acme", "explain");
    let (thief, thief_line) = make_key("thief", "acme", "explain,admin");
    let book = files.write("book", &owner_line);
    let flags = ["--auth-file", &book, "--reload-interval", "50ms"];
    let (server, _) = TestServer::fake(&flags).await;
    std::fs::write(files.path("new"), thief_line).expect("written");
    files.set_mode("new", 0o666);
    std::fs::rename(files.path("new"), files.path("book")).expect("in place");
    server.until_metric(STALE, 1.0).await;
    let refused = client(&server, &thief)
        .model()
        .await
        .expect_err("not believed");
    assert_eq!(refused.code(), Code::Unauthenticated);
    client(&server, &owner)
        .model()
        .await
        .expect("the old file counts");
}

#[tokio::test]
async fn a_bad_line_changes_nothing_and_is_told_at_once() {
    let files = Files::new();
    let (gone, gone_line) = make_key("gone", "acme", "explain");
    let (new, new_line) = make_key("new", "acme", "explain");
    let book = files.write("book", &gone_line);
    let flags = ["--auth-file", &book, "--reload-interval", "50ms"];
    let (server, _) = TestServer::fake(&flags).await;
    assert_eq!(server.metric(STALE).await, Some(0.0));
    files.write("book", &(new_line.clone() + "tenant acme items=many\n"));
    server.until_metric(STALE, 1.0).await;
    server.until_metric(FAILED, 1.0).await;
    client(&server, &gone)
        .model()
        .await
        .expect("nothing of it counts");
    let refused = client(&server, &new).model().await.expect_err("nothing");
    assert_eq!(refused.code(), Code::Unauthenticated);
    files.write("book", &new_line);
    server.until_metric(STALE, 0.0).await;
    client(&server, &new)
        .model()
        .await
        .expect("all of it counts");
    client(&server, &gone)
        .model()
        .await
        .expect_err("and nothing else");
}

#[test]
fn the_log_names_the_file_and_the_line_and_no_secret_that_is_in_it() {
    let files = Files::new();
    let (token, line) = make_key("ci", "acme", "explain");
    let book = files.write("book", &line);
    let flags = [
        "--kv-cache-tokens",
        "4096",
        "--reload-interval",
        "50ms",
        "--auth-file",
        &book,
    ];
    let addresses = ["--listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0"];
    let mut process = ServerProcess::start(program(
        &[&["serve"][..], &addresses[..], &flags[..]].concat(),
    ));
    process.wait_for(" ready");
    // The token where its line should be: the likeliest of mistakes.
    files.write("book", &format!("{line}{token}\n"));
    // The file may be read while it is only half written, which is told as well.
    let said = process.wait_for("line 2");
    assert!(said.contains(&book) && said.contains("of no use"), "{said}");
    assert!(said.contains("ERROR"), "{said}");
    assert!(!process.said.concat().contains(&token), "{said}");
}

#[tokio::test]
async fn a_key_for_metrics_reads_metrics_and_may_do_nothing_else() {
    let files = Files::new();
    let (metrics, metrics_line) = make_key("prometheus", "ops", "metrics");
    let (admin, admin_line) = make_key("root", "ops", "admin");
    let (reader, reader_line) = make_key("ci", "acme", "explain");
    let book = files.write("book", &(metrics_line + &admin_line + &reader_line));
    let (server, _) = TestServer::fake(&["--auth-file", &book, "--metrics-auth", "on"]).await;
    let status = async |token: &str| {
        let header = format!("Authorization: Bearer {token}\r\n");
        http_get_with(server.http, "/metrics", &header).await.0
    };
    assert_eq!(status(&metrics).await, 200);
    assert_eq!(status(&admin).await, 200);
    assert_eq!(status(&reader).await, 403);
    let client = client(&server, &metrics);
    let refused = [
        client
            .explain(code_explainer_client::Item::new("x = 1"))
            .await
            .err(),
        client.report().await.err(),
        client.model().await.err(),
        client.embed(vec!["a text".to_owned()]).await.err(),
    ];
    for refused in refused {
        assert_eq!(refused.expect("refused").code(), Code::PermissionDenied);
    }
}
