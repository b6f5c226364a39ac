//! The disk under the data directory is full for a while.

use std::process::Command;
use std::time::Duration;

use code_explainer_client::proto::{Document, DocumentOutcome, EmbedRequest};
use code_explainer_client::{Client, Code, NewDocument};
use futures::{StreamExt, stream};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::common::minilm;
use crate::common::programs::output;
use crate::common::server::TestServer;

/// Set in the process whose files may not grow.
const LIMITED: &str = "CODE_EXPLAINER_TEST_FULL_DISK";

/// A file's bytes that may be written: none is as good as a disk that is full. It is the whole process's, which is
/// therefore one of its own.
fn fill(full: bool) {
    let Rlimit { maximum, .. } = getrlimit(Resource::Fsize);
    let current = if full { Some(1) } else { maximum };
    setrlimit(Resource::Fsize, Rlimit { current, maximum }).expect("below the maximum");
}

#[test]
fn embeddings_and_corpus_go_on_without_it_and_with_it_again() {
    if std::env::var_os(LIMITED).is_some() {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        return runtime.block_on(a_disk_that_is_full_for_a_while());
    }
    // A write beyond the limit ends a process that does not ignore the signal.
    let mut limited = Command::new("sh");
    limited
        .args(["-c", r#"trap "" XFSZ; exec "$0" "$@""#])
        .arg(std::env::current_exe().expect("this program"))
        .args([
            "attacks::full_disk::embeddings_and_corpus_go_on_without_it_and_with_it_again",
            "--exact",
            "--nocapture",
        ])
        .env(LIMITED, "1");
    let output = output(&mut limited);
    let (said, log) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(output.status.success(), "{said}\n{log}");
    assert!(said.contains("1 passed"), "{said}\n{log}");
}

struct Tenant {
    server: TestServer,
    client: Client,
}

impl Tenant {
    /// Whether a text's vector was in the cache.
    async fn is_cached(&self, text: &str) -> bool {
        let texts = vec![text.to_owned()];
        let mut client = self.server.client().await;
        let answer = client.embed(EmbedRequest { texts }).await;
        let answer = answer.expect("the model is there");
        answer.into_inner().embeddings[0].cached
    }

    async fn add(&self, id: &str) -> Result<DocumentOutcome, Code> {
        let document = NewDocument {
            id: id.into(),
            title: String::new(),
            text: format!("What {id} is about."),
        };
        let results = self.client.add_documents(stream::iter([document])).await;
        let mut results = results.expect("a stream");
        let result = results.next().await.expect("an outcome");
        result
            .map(|result| result.outcome())
            .map_err(|error| error.code())
    }

    async fn names(&self) -> Result<Vec<String>, Code> {
        let page = self.client.list_documents("", "").await;
        let page = page.map_err(|error| error.code())?;
        Ok(page.documents.into_iter().map(|d: Document| d.id).collect())
    }

    async fn until_cached(&self, vectors: f64) {
        let name = "code_explainer_embedding_cache_entries";
        self.server.until_metric(name, vectors).await;
    }

    async fn until_failing(&self, store: &str, failing: bool) {
        let name = format!("code_explainer_disk_failing{{store=\"{store}\"}}");
        let wanted = f64::from(u8::from(failing));
        self.server.until_metric(&name, wanted).await;
    }
}

async fn a_disk_that_is_full_for_a_while() {
    let directory = tempfile::tempdir().expect("a directory");
    let place = directory.path().display().to_string();
    let model = minilm::flags();
    let mut flags: Vec<&str> = model.iter().map(String::as_str).collect();
    flags.extend(["--data-dir", &place]);
    let server = TestServer::fake(&flags).await.0;
    let client = Client::connect(&server.uri()).expect("an address");
    let tenant = Tenant { server, client };
    assert!(!tenant.is_cached("before").await);
    tenant.until_cached(1.0).await;
    assert_eq!(tenant.add("before").await, Ok(DocumentOutcome::Added));
    tenant.until_cached(2.0).await;
    assert_eq!(tenant.server.get("/readyz").await.1, "serving\n");

    fill(true);
    assert_eq!(tenant.add("refused").await, Err(Code::Unavailable));
    tenant.until_failing("corpus", true).await;
    assert_eq!(tenant.add("refused").await, Err(Code::Unavailable));
    assert!(!tenant.is_cached("meanwhile").await);
    tenant.until_failing("embeddings", true).await;
    assert!(!tenant.is_cached("meanwhile").await);
    let (status, ready) = tenant.server.get("/readyz").await;
    assert_eq!(status, 200, "who can work without is ready");
    for cost in ["embeddings are not cached", "the corpus takes no changes"] {
        assert!(ready.contains(cost), "{ready}");
    }
    // It has been tried again, in vain.
    let errors = "code_explainer_disk_errors_total{store=\"corpus\"}";
    let tried = async {
        while tenant.server.metric(errors).await < Some(3.0) {
            tokio::task::yield_now().await;
        }
    };
    let patience = Duration::from_secs(60);
    tokio::time::timeout(patience, tried).await.expect("tried");
    tenant.until_failing("corpus", true).await;

    fill(false);
    tenant.until_failing("corpus", false).await;
    tenant.until_failing("embeddings", false).await;
    assert_eq!(tenant.server.get("/readyz").await.1, "serving\n");
    assert_eq!(tenant.names().await, Ok(vec!["before".to_owned()]));
    assert!(tenant.is_cached("before").await);
    assert_eq!(tenant.add("after").await, Ok(DocumentOutcome::Added));
    assert!(!tenant.is_cached("after").await);
    // Two texts and two passages, and none of those that came meanwhile.
    tenant.until_cached(4.0).await;
    assert!(tenant.is_cached("after").await);
}
