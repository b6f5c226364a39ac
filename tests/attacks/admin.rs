//! AdminService without keys is for its own machine: what a proxy on it forwards is of somebody else.

use std::ffi::OsString;

use code_explainer::config::Command;
use code_explainer_client::proto::GetPerformanceReportRequest;
use code_explainer_client::proto::admin_service_client::AdminServiceClient;
use tonic::metadata::MetadataKey;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

use crate::common::certificates::Files;
use crate::common::keys::{client, make_key};
use crate::common::server::TestServer;
use crate::common::stream::item;

async fn report(channel: Channel, header: Option<(&'static str, &str)>) -> Result<(), Status> {
    let mut request = Request::new(GetPerformanceReportRequest {});
    if let Some((name, value)) = header {
        let name = MetadataKey::from_static(name);
        (request.metadata_mut()).insert(name, value.parse().expect("a value"));
    }
    let mut admin = AdminServiceClient::new(channel);
    admin.get_performance_report(request).await.map(drop)
}

#[tokio::test]
async fn what_is_forwarded_is_not_of_this_machine() {
    let (server, _) = TestServer::fake(&[]).await;
    report(server.channel().await, None)
        .await
        .expect("of this machine");
    for header in [
        ("forwarded", "for=192.0.2.60;proto=http"),
        ("via", "1.1 vegur"),
        ("x-forwarded-for", "127.0.0.1"),
        ("x-forwarded-proto", "http"),
        ("x-real-ip", "127.0.0.1"),
        ("x-envoy-expected-rq-timeout-ms", "15000"),
        ("l5d-client-id", "web.default.serviceaccount"),
    ] {
        let refused = report(server.channel().await, Some(header)).await;
        let status = refused.expect_err("forwarded");
        assert_eq!(status.code(), Code::PermissionDenied, "{header:?}");
        assert!(status.message().contains("--auth-file"), "{status}");
    }
    let refused = "code_explainer_calls_refused_total{reason=\"permission_denied\"}";
    assert_eq!(server.metric(refused).await, Some(7.0));
}

#[tokio::test]
async fn a_call_to_another_hosts_name_is_not_of_this_machine() {
    let (server, _) = TestServer::fake(&[]).await;
    let endpoint = Endpoint::from_shared(server.uri()).expect("a URI");
    let public = "http://explainer.example.com".parse().expect("a URI");
    let channel = endpoint.origin(public).connect().await.expect("it listens");
    let status = report(channel, None).await.expect_err("forwarded");
    assert_eq!(status.code(), Code::PermissionDenied);
}

#[tokio::test]
async fn what_is_forwarded_is_explained_all_the_same() {
    let (server, _) = TestServer::fake(&[]).await;
    let mut request = Request::new(item("", "x = 1"));
    let from = "192.0.2.60".parse().expect("a value");
    request.metadata_mut().insert("x-forwarded-for", from);
    let answer = server.client().await.explain(request).await;
    answer.expect("anybody may");
}

#[tokio::test]
async fn with_keys_alone_nobody_without_one_is_an_admin() {
    let (server, _) = TestServer::fake(&["--admin", "keys"]).await;
    let status = report(server.channel().await, None)
        .await
        .expect_err("no key");
    assert_eq!(status.code(), Code::PermissionDenied);
    server
        .client()
        .await
        .explain(item("", "x = 1"))
        .await
        .expect("anybody may");
}

#[tokio::test]
async fn where_it_is_off_nobody_is_an_admin() {
    let (server, _) = TestServer::fake(&["--admin", "off"]).await;
    let status = report(server.channel().await, None).await.expect_err("off");
    assert_eq!(status.code(), Code::Unimplemented);

    let files = Files::new();
    let (token, line) = make_key("root", "ops", "explain,admin");
    let book = files.write("book", &line);
    let (server, _) = TestServer::fake(&["--admin", "off", "--auth-file", &book]).await;
    let refused = client(&server, &token).report().await.expect_err("off");
    assert_eq!(refused.code(), Code::Unimplemented);
    client(&server, &token).model().await.expect("any key may");
}

#[tokio::test]
async fn where_it_is_open_it_is_so_on_any_address_but_not_to_what_is_forwarded() {
    let flags = ["--admin", "open", "--listen", "0.0.0.0:0"];
    let (mut server, _) = TestServer::fake(&flags).await;
    server.grpc.set_ip([127, 0, 0, 1].into());
    report(server.channel().await, None)
        .await
        .expect("of this machine");
    let header = Some(("x-forwarded-for", "192.0.2.60"));
    let refused = report(server.channel().await, header).await;
    assert_eq!(
        refused.expect_err("forwarded").code(),
        Code::PermissionDenied
    );
}

#[test]
fn open_and_keys_exclude_each_other() {
    let args = [
        "server",
        "serve",
        "--admin",
        "open",
        "--auth-file",
        "identities",
    ];
    let told = Command::from_args(args.map(OsString::from)).expect_err("both");
    let told = told.to_string();
    assert!(
        told.contains("--admin open") && told.contains("--auth-file"),
        "{told}"
    );
}
