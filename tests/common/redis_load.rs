//! Load over gRPC on a server whose Redis suffers: every item is answered, and rightly, and how long each took.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use code_explainer_client::proto::explain_response::Event;
use code_explainer_client::proto::explain_service_client::ExplainServiceClient;
use code_explainer_client::proto::{CacheLevel, CacheMode, ExplainRequest};
use tokio::task::JoinHandle;
use tonic::Status;
use tonic::transport::Channel;

use super::redis::eventually;
use super::server::TestServer;
use super::stream::item;

/// Who ask at once.
const CLIENTS: u64 = 16;
/// Who ask the twin meanwhile.
const TWIN_CLIENTS: u64 = 4;
/// Snippets that they ask about.
const SNIPPETS: u64 = 300;

type Client = ExplainServiceClient<Channel>;

/// Clients that go on asking until they are stopped. Others ask a twin that has no Redis: what takes it longer is the
/// machine's fault.
pub(crate) struct Load {
    server: TestServer,
    _twin: TestServer,
    client: Client,
    shared: Arc<Shared>,
    clients: Vec<JoinHandle<()>>,
}

struct Shared {
    stop: AtomicBool,
    answered: AtomicU64,
    /// From Redis.
    hits: AtomicU64,
    latencies: Mutex<Vec<Duration>>,
    /// Of the twin's answers.
    twin_latencies: Mutex<Vec<Duration>>,
    /// The right answers.
    wanted: Vec<String>,
}

impl Load {
    /// A server with these settings and without memory of its own, so that every hit is one of Redis.
    pub(crate) async fn start(redis: &[&str]) -> Self {
        let flags: Vec<&str> = ["--cache-size", "0"].iter().chain(redis).copied().collect();
        let (server, _) = TestServer::fake(&flags).await;
        let client = server.client().await;
        let (twin, _) = TestServer::fake(&["--cache-size", "0"]).await;
        let twin_client = twin.client().await;
        let shared = Arc::new(Shared {
            stop: AtomicBool::new(false),
            answered: AtomicU64::new(0),
            hits: AtomicU64::new(0),
            latencies: Mutex::default(),
            twin_latencies: Mutex::default(),
            wanted: right_answers(&twin_client).await,
        });
        let ask = |n| tokio::spawn(ask_on(client.clone(), Arc::clone(&shared), n));
        let ask_twin = |n| tokio::spawn(ask_twin(twin_client.clone(), Arc::clone(&shared), n));
        let clients = (0..CLIENTS).map(ask).chain((0..TWIN_CLIENTS).map(ask_twin));
        let clients = clients.collect();
        Self {
            server,
            _twin: twin,
            client,
            shared,
            clients,
        }
    }

    /// Waits for so many more answers.
    pub(crate) async fn answers(&self, more: u64) {
        self.until(&self.shared.answered, more, "they go on asking")
            .await;
    }

    /// Waits until Redis has had so many more of them.
    pub(crate) async fn hits(&self, more: u64) {
        self.until(&self.shared.hits, more, "Redis has answers")
            .await;
    }

    async fn until(&self, counter: &AtomicU64, more: u64, what: &str) {
        let wanted = counter.load(Ordering::Relaxed) + more;
        let reached = async || {
            self.all_are_well();
            (counter.load(Ordering::Relaxed) >= wanted).then_some(())
        };
        eventually(what, reached).await;
    }

    /// Answers so far, and those that Redis had.
    pub(crate) fn counts(&self) -> (u64, u64) {
        let [answers, hits] = [&self.shared.answered, &self.shared.hits];
        (
            answers.load(Ordering::Relaxed),
            hits.load(Ordering::Relaxed),
        )
    }

    /// Waits until every answer is in Redis, on whatever shard it belongs to.
    pub(crate) async fn all_are_shared(&self) {
        let all = async || {
            for n in 0..SNIPPETS {
                let wanted = ExplainRequest {
                    cache_mode: CacheMode::Only.into(),
                    ..snippet(n)
                };
                let (_, level) = ask(&mut self.client.clone(), wanted).await.ok()?;
                assert_eq!(level, CacheLevel::Redis);
            }
            Some(())
        };
        eventually("every answer is shared", all).await;
    }

    /// Whether Redis is asked, rather than left alone.
    pub(crate) async fn redis_is_asked(&self) -> bool {
        self.metric("code_explainer_redis_available").await == 1.0
    }

    pub(crate) async fn metric(&self, name: &str) -> f64 {
        self.server.metric(name).await.expect("it is there")
    }

    /// The 99th percentile of the answers' times since it was last asked, and that of the twin's.
    pub(crate) fn p99(&self) -> (Duration, Duration) {
        let p99 = |latencies: &Mutex<Vec<Duration>>| {
            let mut times = std::mem::take(&mut *latencies.lock().expect("no panic"));
            times.sort_unstable();
            let count = times.len();
            assert!(count >= 50, "only {count} answers");
            times[count * 99 / 100]
        };
        (
            p99(&self.shared.latencies),
            p99(&self.shared.twin_latencies),
        )
    }

    /// Panics if a client has: it got an error or a wrong answer.
    fn all_are_well(&self) {
        assert!(self.clients.iter().all(|client| !client.is_finished()));
    }

    pub(crate) async fn stop(self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        for client in self.clients {
            client.await.expect("no client got an error");
        }
    }
}

fn snippet(n: u64) -> ExplainRequest {
    ExplainRequest {
        language: "python".into(),
        max_new_tokens: 8,
        ..item("", &format!("x = {n}"))
    }
}

/// Those of a server that has no caches.
async fn right_answers(twin: &Client) -> Vec<String> {
    let mut answers = Vec::new();
    for n in 0..SNIPPETS {
        let answer = ask(&mut twin.clone(), snippet(n)).await;
        let (text, level) = answer.expect("an answer");
        assert_eq!(level, CacheLevel::Unspecified);
        answers.push(text);
    }
    answers
}

async fn ask_on(mut client: Client, shared: Arc<Shared>, first: u64) {
    let mut n = first;
    while !shared.stop.load(Ordering::Relaxed) {
        // Every snippet in turn: 7 and their number have no common divisor.
        n = (n + 7) % SNIPPETS;
        let asked = Instant::now();
        let answer = ask(&mut client, snippet(n)).await;
        let took = asked.elapsed();
        let (text, level) = answer.expect("whatever Redis does, an item is answered");
        assert_eq!(text, shared.wanted[n as usize], "{level:?}");
        shared.latencies.lock().expect("no panic").push(took);
        shared.answered.fetch_add(1, Ordering::Relaxed);
        if level == CacheLevel::Redis {
            shared.hits.fetch_add(1, Ordering::Relaxed);
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

async fn ask_twin(mut client: Client, shared: Arc<Shared>, first: u64) {
    for n in (first..).map(|n| n % SNIPPETS) {
        if shared.stop.load(Ordering::Relaxed) {
            return;
        }
        let asked = Instant::now();
        let answer = ask(&mut client, snippet(n)).await;
        let took = asked.elapsed();
        answer.expect("nothing happens to it");
        (shared.twin_latencies.lock().expect("no panic")).push(took);
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

async fn ask(client: &mut Client, wanted: ExplainRequest) -> Result<(String, CacheLevel), Status> {
    let mut events = client.explain(wanted).await?.into_inner();
    let (mut text, mut end) = (String::new(), None);
    // Read to its end: connections are closed on clients that often are not interested in it.
    while let Some(response) = events.message().await? {
        match response.event {
            Some(Event::Delta(delta)) => text.push_str(&delta.text),
            Some(Event::Accepted(_) | Event::Queued(_)) => {}
            other => end = other,
        }
    }
    match end {
        Some(Event::Done(done)) => Ok((text, done.receipt.expect("a receipt").cache())),
        other => Err(Status::internal(format!("{other:?}"))),
    }
}
