//! A tenant goes on by a stream that was open before its rate was lowered, or waits for a rate to change.

use code_explainer_client::proto::explain_stream_response::Event;

use crate::common::certificates::Files;
use crate::common::keys::make_key;
use crate::common::server::TestServer;
use crate::common::stream::{TestStream, is_last, item};

const RELOADED: &str = "code_explainer_file_reloads_total{file=\"auth\",result=\"ok\"}";

/// A stream of a tenant, and how often the file was read again.
struct Tenant {
    server: TestServer,
    files: Files,
    key: String,
    stream: TestStream,
    reloads: f64,
    asked: usize,
}

impl Tenant {
    /// With a line of its own after the key's.
    async fn new(line: &str) -> Self {
        let files = Files::new();
        let (token, key) = make_key("one", "acme", "explain");
        let book = files.write("book", &format!("{key}{line}"));
        let flags = ["--auth-file", &book, "--reload-interval", "100ms"];
        let (server, _) = TestServer::fake(&flags).await;
        let stream = TestStream::open_with(&server, |metadata| {
            let value = format!("Bearer {token}").parse().expect("a header");
            metadata.insert("authorization", value);
        });
        let stream = stream.await;
        Self {
            server,
            files,
            key,
            stream,
            reloads: 0.0,
            asked: 0,
        }
    }

    /// The line becomes another one, while the stream is open.
    async fn change(&mut self, line: &str) {
        self.files.write("book", &format!("{}{line}", self.key));
        self.reloads += 1.0;
        self.server.until_metric(RELOADED, self.reloads).await;
    }

    /// Whether one more item is answered.
    async fn is_answered(&mut self) -> bool {
        self.asked += 1;
        let id = self.asked.to_string();
        self.stream.explain(item(&id, "x = 1")).await;
        match self.stream.wait_for(&id, is_last).await {
            Event::Done(_) => true,
            Event::Error(error) => {
                assert!(error.message.contains("items"), "{}", error.message);
                assert!(error.retry_delay.is_some(), "it says when to come back");
                false
            }
            other => panic!("{other:?} is no last event"),
        }
    }
}

#[tokio::test]
async fn a_lowered_rate_reaches_the_streams_that_are_open() {
    let mut tenant = Tenant::new("").await;
    for _ in 0..10 {
        assert!(tenant.is_answered().await, "nothing is said of it");
    }
    tenant.change("tenant acme items=2/day\n").await;
    assert!(tenant.is_answered().await && tenant.is_answered().await);
    assert!(!tenant.is_answered().await);
    tenant.change("tenant acme items=1/day\n").await;
    assert!(!tenant.is_answered().await);
    // Without a line there is no rate.
    tenant.change("").await;
    assert!(tenant.is_answered().await);
}

#[tokio::test]
async fn a_changed_rate_gives_nothing_back() {
    let mut tenant = Tenant::new("tenant acme items=3/day\n").await;
    for _ in 0..3 {
        assert!(tenant.is_answered().await);
    }
    assert!(!tenant.is_answered().await);
    for line in [
        "tenant acme items=4/day\n",
        "tenant acme items=3/day\n",
        "tenant acme items=3/day tokens=1000000/min\n",
        "tenant acme items=2/day\n",
    ] {
        tenant.change(line).await;
        assert!(!tenant.is_answered().await, "{line}");
    }
    // Nor does it help that there was none for a while.
    tenant.change("").await;
    assert!(tenant.is_answered().await);
    tenant.change("tenant acme items=3/day\n").await;
    assert!(!tenant.is_answered().await);
}
