//! The chart's download of a model: it goes on with what was fetched, and throws away what is no beginning of the file.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use axum::Router;
use axum::body::Bytes;
use axum::http::header::{CONTENT_RANGE, RANGE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;

use crate::common::programs::{output, root};

const LENGTH: usize = 100_000;

fn model() -> Vec<u8> {
    (0..LENGTH).map(|n| (n * n % 251) as u8).collect()
}

/// From the byte that is asked for on.
fn part(headers: &HeaderMap) -> Response {
    let whole = model();
    let Some(range) = headers.get(RANGE) else {
        return Bytes::from(whole).into_response();
    };
    let range = range.to_str().expect("a range");
    let from: usize = (range
        .strip_prefix("bytes=")
        .and_then(|range| range.strip_suffix('-')))
    .and_then(|from| from.parse().ok())
    .expect("from there to the end");
    if from >= LENGTH {
        return StatusCode::RANGE_NOT_SATISFIABLE.into_response();
    }
    let range = format!("bytes {from}-{}/{LENGTH}", LENGTH - 1);
    let rest = Bytes::from(whole).slice(from..);
    (StatusCode::PARTIAL_CONTENT, [(CONTENT_RANGE, range)], rest).into_response()
}

/// Where the model is to be had: from a server that sends parts, and from one that does not.
async fn addresses() -> [String; 2] {
    let parts = get(async |headers: HeaderMap| part(&headers));
    let whole = get(async || Bytes::from(model()));
    let router = Router::new().route("/parts", parts).route("/whole", whole);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move { axum::serve(listener, router).await });
    ["parts", "whole"].map(|path| format!("http://{address}/{path}"))
}

fn sha256(file: &Path) -> String {
    let sum = output(Command::new("sha256sum").arg(file));
    let text = String::from_utf8(sum.stdout).expect("text");
    text.split(' ').next().expect("a sum").to_owned()
}

struct Volume {
    directory: tempfile::TempDir,
    sum: String,
}

impl Volume {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let right = directory.path().join("right");
        std::fs::write(&right, model()).expect("written");
        let sum = sha256(&right);
        Self { directory, sum }
    }

    fn model(&self) -> PathBuf {
        self.directory.path().join("a/b/m.gguf")
    }

    fn part(&self) -> PathBuf {
        self.model().with_extension("gguf.part")
    }

    /// Runs what the chart runs.
    async fn fetch(&self, address: &str) -> Output {
        let script = root().join("charts/code-explainer/files/fetch-model.sh");
        let script = std::fs::read_to_string(script).expect("the chart's");
        let mut shell = Command::new("sh");
        shell.args(["-ec", &script]);
        shell.env("MODEL_FILE", self.model());
        shell.env("MODEL_URL", address);
        shell.env("MODEL_SHA256", &self.sum);
        let ran = tokio::task::spawn_blocking(move || output(&mut shell));
        ran.await.expect("it ends")
    }
}

#[tokio::test]
async fn what_was_fetched_is_gone_on_with_and_what_is_damaged_is_thrown_away() {
    let longer = [model(), b"more".to_vec()].concat();
    let beginnings = [
        None,
        Some(Vec::new()),
        Some(model()[..LENGTH / 2].to_vec()),
        Some(model()),
        Some(vec![0; LENGTH / 2]),
        Some(vec![0; LENGTH]),
        Some(longer),
    ];
    for address in addresses().await {
        for begun in &beginnings {
            let volume = Volume::new();
            std::fs::create_dir_all(volume.model().parent().expect("a parent")).expect("made");
            if let Some(begun) = begun {
                std::fs::write(volume.part(), begun).expect("written");
            }
            let ran = volume.fetch(&address).await;
            assert!(ran.status.success(), "{ran:?}");
            assert_eq!(std::fs::read(volume.model()).expect("it is there"), model());
            assert!(!volume.part().exists());
            // The pod's next start needs nobody.
            let again = volume.fetch("http://127.0.0.1:1/").await;
            assert!(again.status.success(), "{again:?}");
        }
    }
}

#[tokio::test]
async fn a_file_of_another_sum_and_one_that_is_not_there_say_so_and_leave_nothing() {
    let [address, _] = addresses().await;
    let mut volume = Volume::new();
    let nothing = volume.fetch(&format!("{address}/nowhere")).await;
    let said = String::from_utf8_lossy(&nothing.stderr);
    assert!(!nothing.status.success() && said.contains("404"), "{said}");
    assert!(said.contains("check model.url.address"), "{said}");
    volume.sum = volume.sum.chars().rev().collect();
    let other = volume.fetch(&address).await;
    let said = String::from_utf8_lossy(&other.stderr);
    assert!(!other.status.success(), "{said}");
    assert!(
        said.contains("check model.url.address and model.url.sha256"),
        "{said}"
    );
    assert!(!volume.part().exists() && !volume.model().exists());
}
