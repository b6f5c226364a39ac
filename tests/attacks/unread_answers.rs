//! Answers that nobody reads: each waits in the one place where it is kept, however many ask for it.

use std::process::{Command, Stdio};
use std::time::Duration;

use code_explainer_client::proto::explain_service_client::ExplainServiceClient;
use code_explainer_host::memory::resident_bytes;
use tonic::transport::Endpoint;

use crate::common::server::TestServer;
use crate::common::stream::{TestStream, is_last, item};

/// Set for the process that is measured: this program again, since memory is the whole process's.
const ALONE: &str = "CODE_EXPLAINER_TEST_UNREAD";
const STREAMS: usize = 40;
const HITS: usize = 250;
const TOKENS: i32 = 1000;
const PARKED: &str = "code_explainer_items_parked";
/// An answer that was copied for each of those who do not read it took 37 KB.
const BYTES_EACH: u64 = 12 << 10;

#[test]
fn ten_thousand_hits_that_nobody_reads_take_little_memory() {
    let alone = Command::new(std::env::current_exe().expect("this program"))
        .args([
            "attacks::unread_answers::a_process_of_its_own",
            "--exact",
            "--nocapture",
        ])
        .env(ALONE, "1")
        .stdin(Stdio::null())
        .output()
        .expect("it runs");
    let said = String::from_utf8_lossy(&alone.stdout);
    assert!(alone.status.success(), "{alone:?}");
    let each = said.lines().find_map(|line| line.split_once("each took "));
    let (_, each) = each.unwrap_or_else(|| panic!("it measured: {said}"));
    let each: u64 = each.trim().parse().expect("a number");
    println!("each hit that nobody reads takes {each} bytes");
    assert!(each < BYTES_EACH, "{each} bytes for each hit");
}

/// A stream over which nothing is read, with many hits on the one answer.
async fn unread(server: &TestServer) -> TestStream {
    let endpoint = Endpoint::from_shared(server.uri()).expect("a URI");
    let endpoint = endpoint.initial_stream_window_size(1024);
    let channel = endpoint.connect().await.expect("the server listens");
    TestStream::open_on(ExplainServiceClient::new(channel)).await
}

async fn ask(stream: &TestStream) {
    for n in 0..HITS {
        let mut wanted = item(&format!("{n}"), "x = 1");
        wanted.max_new_tokens = TOKENS;
        stream.explain(wanted).await;
    }
}

/// Waits until nearly all of them wait. What goes into a connection's own buffers answers a few.
async fn until_parked(server: &TestServer, streams: usize) {
    let most = (streams * HITS) as f64 * 0.8;
    let reached = async {
        while server.metric(PARKED).await.unwrap_or(0.0) < most {
            tokio::task::yield_now().await;
        }
    };
    let reached = tokio::time::timeout(Duration::from_secs(120), reached).await;
    reached.expect("they wait");
}

#[tokio::test]
async fn a_process_of_its_own() {
    if std::env::var_os(ALONE).is_none() {
        return;
    }
    let (server, _) = TestServer::fake(&["--slow-reader-timeout", "10m"]).await;
    let mut first = TestStream::open(&server).await;
    let mut wanted = item("first", "x = 1");
    wanted.max_new_tokens = TOKENS;
    first.explain(wanted).await;
    first.wait_for("first", is_last).await;
    // The first stream's costs are everybody's.
    let mut streams = vec![unread(&server).await];
    ask(&streams[0]).await;
    until_parked(&server, 1).await;
    let before = resident_bytes();
    for n in 1..=STREAMS {
        let stream = unread(&server).await;
        ask(&stream).await;
        streams.push(stream);
        until_parked(&server, n + 1).await;
    }
    let grown = resident_bytes().saturating_sub(before);
    println!("each took {}", grown / (STREAMS * HITS) as u64);
    // Another tenant of the machine is served meanwhile, and who reads on has all of it.
    let mut wanted = item("another", "y = 1");
    wanted.max_new_tokens = 8;
    first.explain(wanted).await;
    first.wait_for("another", is_last).await;
    let late = streams.last_mut().expect("the last one");
    let outcomes = late.collect(HITS).await;
    assert!(outcomes.values().all(|outcome| outcome.done.is_some()));
    let lengths: std::collections::HashSet<_> = outcomes.values().map(|o| o.text.len()).collect();
    assert_eq!(lengths.len(), 1, "all have the same answer");
}
