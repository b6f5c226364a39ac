//! A client takes another tenant's name, in another kind of credential, to read what that one's answers have left.

use code_explainer_client::{CacheLevel, Client, ConnectOptions, Item, TlsOptions, Token};

use crate::common::certificates::{Authority, Certified, Files};
use crate::common::keys::make_key;
use crate::common::server::TestServer;
use crate::common::stream::finish;

struct Site {
    authority: Authority,
    server: TestServer,
}

impl Site {
    async fn with(book: Option<&str>) -> Self {
        let (authority, files) = (Authority::new(), Files::new());
        let mut flags = files.server_flags(&authority.server());
        let ca = files.write("ca.pem", &authority.pem());
        flags.extend(["--tls-client-ca".into(), ca]);
        if let Some(book) = book {
            flags.extend(["--auth-file".into(), files.write("book", book)]);
            flags.extend(["--tls-client-auth".into(), "optional".into()]);
        }
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        let (server, _) = TestServer::fake(&flags).await;
        Self { authority, server }
    }

    /// Whether an answer was there already, which somebody of the same tenant must have asked for.
    async fn finds_an_answer(&self, shows: Option<&Certified>, token: Option<&str>) -> bool {
        let options = ConnectOptions {
            tls: TlsOptions {
                ca: Some(self.authority.pem().into()),
                identity: shows.map(|c| (c.certificate.clone().into(), c.key.clone().into())),
                server_name: Some("localhost".into()),
            },
            token: token.map(|token| Token::new(token).expect("a header")),
            ..ConnectOptions::default()
        };
        let address = format!("https://{}", self.server.grpc);
        let client = Client::connect_with(&address, &options).expect("good PEM");
        let asked = client.explain(Item::new("the secret of acme = 1")).await;
        let done = finish(asked.expect("may explain")).await;
        done.receipt.cache == CacheLevel::Memory
    }
}

#[tokio::test]
async fn one_name_in_certificates_of_several_kinds_and_in_a_key_is_several_tenants() {
    let (token, line) = make_key("ci", "acme", "explain");
    for book in [None, Some(line + "cert * roles=explain\n")] {
        let site = Site::with(book.as_deref()).await;
        let (common, dns) = (
            site.authority.client("acme", ""),
            site.authority.client_of_dns("acme"),
        );
        // What looks like another kind is in the name of its own.
        let (uri, posing) = (
            site.authority.client("x", "acme"),
            site.authority.client("dns:acme", ""),
        );
        if book.is_some() {
            assert!(!site.finds_an_answer(None, Some(&token)).await, "the first");
            assert!(site.finds_an_answer(None, Some(&token)).await, "its own");
        }
        for certificate in [&common, &dns, &uri, &posing] {
            let found = site.finds_an_answer(Some(certificate), None).await;
            assert!(!found, "{book:?}: another's answer");
            assert!(
                site.finds_an_answer(Some(certificate), None).await,
                "its own"
            );
        }
    }
}

#[tokio::test]
async fn lines_of_the_file_make_them_one_on_purpose() {
    let (token, line) = make_key("ci", "acme", "explain");
    let (other, other_line) = make_key("proxy", "cn:acme", "explain");
    let book =
        line + &other_line + "cert dns:acme tenant=acme roles=explain\ncert * roles=explain\n";
    let site = Site::with(Some(&book)).await;
    assert!(!site.finds_an_answer(None, Some(&token)).await, "the first");
    let dns = site.authority.client_of_dns("acme");
    assert!(site.finds_an_answer(Some(&dns), None).await, "by its line");
    let common = site.authority.client("acme", "");
    assert!(!site.finds_an_answer(Some(&common), None).await, "by none");
    assert!(
        site.finds_an_answer(None, Some(&other)).await,
        "by its name"
    );
}
