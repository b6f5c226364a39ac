//! TLS: the certificate is the file's, also when it changes; clients show who they are by certificates of their own.

use code_explainer_client::{Client, ConnectOptions, Error, Item, TlsOptions};
use tonic::Code;

use crate::common::certificates::{Authority, Certified, Files};
use crate::common::server::TestServer;

fn client(server: &TestServer, authority: &Authority, identity: Option<&Certified>) -> Client {
    let options = ConnectOptions {
        tls: TlsOptions {
            ca: Some(authority.pem().into()),
            identity: identity.map(|c| (c.certificate.clone().into(), c.key.clone().into())),
            server_name: Some("localhost".into()),
        },
        ..ConnectOptions::default()
    };
    Client::connect_with(&format!("https://{}", server.grpc), &options).expect("good PEM")
}

async fn start(flags: &[String]) -> TestServer {
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    TestServer::fake(&flags).await.0
}

/// Until new connections are made by the authority's certificate, within the test's patience.
async fn until_served_by(server: &TestServer, authority: &Authority) {
    while client(server, authority, None).model().await.is_err() {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_changed_certificate_is_served_to_new_connections_and_old_ones_live_on() {
    let (first, second, files) = (Authority::new(), Authority::new(), Files::new());
    let flags = files.server_flags(&first.server());
    let server = start(&flags).await;
    let old = client(&server, &first, None);
    old.model().await.expect("the first certificate");
    let wrong = client(&server, &second, None)
        .model()
        .await
        .expect_err("not known");
    assert!(wrong.is_connection() && wrong.is_untrusted(), "{wrong}");

    // A bad file changes nothing, and is counted.
    files.write(
        "cert.pem",
        "-----BEGIN CERTIFICATE-----\nnonsense\n-----END CERTIFICATE-----\n",
    );
    server
        .until_metric(
            "code_explainer_file_reloads_total{file=\"tls\",result=\"failed\"}",
            1.0,
        )
        .await;
    client(&server, &first, None)
        .model()
        .await
        .expect("still the first");

    files.server_flags(&second.server());
    until_served_by(&server, &second).await;
    old.model()
        .await
        .expect("the old connection was not dropped");
    let gone = client(&server, &first, None)
        .model()
        .await
        .expect_err("replaced");
    assert!(gone.is_connection(), "{gone}");
}

#[tokio::test]
async fn without_tls_nothing_is_said() {
    let (authority, files) = (Authority::new(), Files::new());
    let server = start(&files.server_flags(&authority.server())).await;
    let plain = Client::connect(&server.grpc.to_string()).expect("an address");
    assert!(plain.model().await.expect_err("refused").is_connection());
    server
        .until_metric(
            "code_explainer_connections_refused_total{protocol=\"grpc\",reason=\"handshake\"}",
            1.0,
        )
        .await;
}

#[tokio::test]
async fn a_client_certificate_is_an_identity_that_may_explain_and_not_administer() {
    let (authority, stranger, files) = (Authority::new(), Authority::new(), Files::new());
    let mut flags = files.server_flags(&authority.server());
    flags.extend([
        "--tls-client-ca".into(),
        files.write("ca.pem", &authority.pem()),
    ]);
    let server = start(&flags).await;
    let known = client(&server, &authority, Some(&authority.client("ci", "")));
    known
        .explain(Item::new("x = 1"))
        .await
        .expect("may explain");
    let refused = known.report().await.expect_err("may not administer");
    assert_eq!(refused.code(), Code::PermissionDenied);
    for other in [None, Some(stranger.client("ci", ""))] {
        let refused = client(&server, &authority, other.as_ref()).model().await;
        let refused = refused.expect_err("no certificate that counts");
        assert!(matches!(refused, Error::Connection { .. }), "{refused:?}");
    }
}

#[tokio::test]
async fn certificates_are_found_in_the_file_by_their_names() {
    let (authority, files) = (Authority::new(), Files::new());
    let mut flags = files.server_flags(&authority.server());
    let book = "cert uri:spiffe://acme/ops tenant=ops roles=admin\ncert cn:reader tenant=acme roles=explain\n";
    for (flag, value) in [
        ("--tls-client-ca", files.write("ca.pem", &authority.pem())),
        ("--tls-client-auth", "optional".into()),
        ("--auth-file", files.write("book", book)),
    ] {
        flags.extend([flag.to_owned(), value]);
    }
    let server = start(&flags).await;
    let by = |certificate: Option<Certified>| client(&server, &authority, certificate.as_ref());
    let ops = by(Some(authority.client("anything", "spiffe://acme/ops")));
    ops.report().await.expect("an admin");
    let refused = ops
        .explain(Item::new("x = 1"))
        .await
        .expect_err("no more than that");
    assert_eq!(refused.code(), Code::PermissionDenied);
    let reader = by(Some(authority.client("reader", "")));
    reader
        .explain(Item::new("x = 1"))
        .await
        .expect("may explain");
    for unknown in [by(Some(authority.client("nobody", ""))), by(None)] {
        let refused = unknown.model().await.expect_err("in no line");
        assert_eq!(refused.code(), Code::Unauthenticated);
        assert!(!refused.to_string().contains("nobody"), "{refused}");
    }
}
