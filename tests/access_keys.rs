//! Keys: who has one is let in, as what its line says; who has none learns nothing.

use code_explainer_client::{CacheLevel, Client, Item};
use tonic::Code;

use crate::common::certificates::Files;
use crate::common::keys::{client, make_key};
use crate::common::server::{TestServer, http_get_with};
use crate::common::stream::finish;

#[tokio::test]
async fn a_key_may_do_what_its_line_says_and_a_wrong_one_nothing() {
    let files = Files::new();
    let (reader, reader_line) = make_key("ci", "acme", "explain");
    let (admin, admin_line) = make_key("root", "ops", "admin");
    assert!(!reader_line.contains(&reader), "the file has no token");
    let book = files.write("book", &(reader_line + &admin_line));
    let (server, _) = TestServer::fake(&["--auth-file", &book]).await;

    client(&server, &reader)
        .explain(Item::new("x = 1"))
        .await
        .expect("may explain");
    client(&server, &reader).model().await.expect("any key may");
    let refused = client(&server, &reader)
        .report()
        .await
        .expect_err("may not");
    assert_eq!(refused.code(), Code::PermissionDenied);
    client(&server, &admin).report().await.expect("an admin");
    let refused = client(&server, &admin).explain(Item::new("x = 1")).await;
    assert_eq!(refused.expect_err("may not").code(), Code::PermissionDenied);

    let mut told = Vec::new();
    let cut = &reader[..reader.len() - 1];
    for wrong in ["", "cex_", cut, &reader.to_uppercase()] {
        let refused = client(&server, wrong).model().await.expect_err("refused");
        assert_eq!(refused.code(), Code::Unauthenticated);
        told.push(refused.to_string());
    }
    told.dedup();
    assert_eq!(told.len(), 1, "nobody learns what was wrong: {told:?}");
    let counted = "code_explainer_calls_refused_total{reason=\"unauthenticated\"}";
    assert_eq!(server.metric(counted).await, Some(4.0));
}

#[tokio::test]
async fn health_needs_no_key_and_reflection_does() {
    use tonic_health::pb::HealthCheckRequest;
    use tonic_health::pb::health_client::HealthClient;
    let (files, (_, line)) = (Files::new(), make_key("ci", "acme", "explain"));
    let (server, _) = TestServer::fake(&["--auth-file", &files.write("book", &line)]).await;
    let mut health = HealthClient::new(server.channel().await);
    health
        .check(HealthCheckRequest::default())
        .await
        .expect("probes have no credentials");
    let mut reflection =
        tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient::new(
            server.channel().await,
        );
    let refused = reflection
        .server_reflection_info(tokio_stream::empty())
        .await;
    assert_eq!(refused.expect_err("refused").code(), Code::Unauthenticated);
}

#[tokio::test]
async fn a_changed_file_counts_at_once_and_a_bad_one_not_at_all() {
    let (files, (first, first_line), (second, second_line)) = (
        Files::new(),
        make_key("a", "acme", "explain"),
        make_key("b", "acme", "explain"),
    );
    let book = files.write("book", &first_line);
    let (server, _) = TestServer::fake(&["--auth-file", &book]).await;
    client(&server, &first).model().await.expect("known");

    files.write("book", "key broken");
    let reloads = |result: &str| {
        format!("code_explainer_file_reloads_total{{file=\"auth\",result=\"{result}\"}}")
    };
    server.until_metric(&reloads("failed"), 1.0).await;
    client(&server, &first)
        .model()
        .await
        .expect("the old file counts");

    files.write("book", &second_line);
    server.until_metric(&reloads("ok"), 1.0).await;
    client(&server, &second).model().await.expect("known now");
    let refused = client(&server, &first)
        .model()
        .await
        .expect_err("not any more");
    assert_eq!(refused.code(), Code::Unauthenticated);
}

#[tokio::test]
async fn metrics_may_be_for_admins_alone_and_probes_never_are() {
    let (files, (reader, reader_line), (admin, admin_line)) = (
        Files::new(),
        make_key("a", "acme", "explain"),
        make_key("b", "ops", "admin"),
    );
    let book = files.write("book", &(reader_line + &admin_line));
    let (server, _) = TestServer::fake(&["--auth-file", &book, "--metrics-auth", "on"]).await;
    let status = async |token: &str| {
        let header = format!("Authorization: Bearer {token}\r\n");
        http_get_with(server.http, "/metrics", &header).await.0
    };
    assert_eq!(status(&admin).await, 200);
    assert_eq!(status(&reader).await, 403);
    assert_eq!(status("wrong").await, 401);
    assert_eq!(server.get("/metrics").await.0, 401);
    assert_eq!(server.get("/readyz").await.0, 200);
}

#[tokio::test]
async fn nobody_is_an_admin_of_a_server_that_the_network_reaches_and_that_asks_for_no_key() {
    let (loopback, _) = TestServer::fake(&[]).await;
    client(&loopback, "")
        .report()
        .await
        .expect("its own machine");
    let (open, _) = TestServer::fake(&["--listen", "0.0.0.0:0"]).await;
    let port = open.grpc.port();
    let client = Client::connect(&format!("127.0.0.1:{port}")).expect("an address");
    client
        .explain(Item::new("x = 1"))
        .await
        .expect("may explain");
    let refused = client.report().await.expect_err("may not");
    assert_eq!(refused.code(), Code::PermissionDenied);
}

#[tokio::test]
async fn tenants_share_neither_answers_nor_prefixes() {
    let (files, (a, a_line), (b, b_line)) = (
        Files::new(),
        make_key("a", "acme", "explain"),
        make_key("b", "other", "explain"),
    );
    let book = files.write("book", &(a_line + &b_line));
    let (server, _) = TestServer::fake(&["--auth-file", &book]).await;
    let code = "def add(a, b):\n    return a + b\n".repeat(20);
    let ask = async |token: &str| {
        let answer = client(&server, token)
            .explain(Item::new(&*code))
            .await
            .expect("an answer");
        let done = finish(answer).await;
        (
            done.receipt.cache == CacheLevel::Memory,
            done.usage.cached_tokens,
        )
    };
    assert_eq!(ask(&a).await, (false, 0));
    assert!(ask(&a).await.0, "from the cache");
    assert_eq!(
        ask(&b).await,
        (false, 0),
        "the other tenant begins from nothing"
    );
}
