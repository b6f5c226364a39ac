//! Load on a cache while its Redis suffers: right answers or none, and how long each look-up took.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use code_explainer::cache::{Cache, CachedDelta, Level, Plan, Told};
use tokio::task::JoinHandle;

use super::cache::{answer, deltas, key};
use super::redis::eventually;

/// Who ask at once.
const CLIENTS: u64 = 16;
/// Snippets that they ask about.
const SNIPPETS: u64 = 300;

/// Clients that go on asking until they are stopped.
pub(crate) struct Load {
    cache: Arc<Cache>,
    shared: Arc<Shared>,
    clients: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    asked: AtomicU64,
    /// From Redis, and right.
    hits: AtomicU64,
    latencies: Mutex<Vec<Duration>>,
}

impl Load {
    pub(crate) fn start(cache: Cache) -> Self {
        let (cache, shared) = (Arc::new(cache), Arc::new(Shared::default()));
        let client = |n| tokio::spawn(ask_on(Arc::clone(&cache), Arc::clone(&shared), n));
        let clients = (0..CLIENTS).map(client).collect();
        Self {
            cache,
            shared,
            clients,
        }
    }

    pub(crate) fn cache(&self) -> &Cache {
        &self.cache
    }

    /// Waits for so many more look-ups.
    pub(crate) async fn asked(&self, more: u64) {
        self.until(&self.shared.asked, more, "they go on asking")
            .await;
    }

    /// Waits until Redis has answered so many more look-ups.
    pub(crate) async fn hits(&self, more: u64) {
        self.until(&self.shared.hits, more, "Redis answers").await;
    }

    async fn until(&self, counter: &AtomicU64, more: u64, what: &str) {
        let wanted = counter.load(Ordering::Relaxed) + more;
        let reached = async || {
            self.alive();
            (counter.load(Ordering::Relaxed) >= wanted).then_some(())
        };
        eventually(what, reached).await;
    }

    /// The 99th percentile of look-ups since it was last asked, and their number.
    pub(crate) fn p99(&self) -> (Duration, usize) {
        let mut times = std::mem::take(&mut *self.shared.latencies.lock().expect("no panic"));
        times.sort_unstable();
        let count = times.len();
        assert!(count >= 100, "only {count} look-ups");
        (times[count * 99 / 100], count)
    }

    /// Panics if a client has: it found a wrong answer.
    fn alive(&self) {
        assert!(self.clients.iter().all(|client| !client.is_finished()));
    }

    pub(crate) async fn stop(self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        for client in self.clients {
            client.await.expect("no client found a wrong answer");
        }
    }
}

fn text(n: u64) -> String {
    format!("snippet number {n} ").repeat(1 + n as usize % 40)
}

async fn ask_on(cache: Arc<Cache>, shared: Arc<Shared>, client: u64) {
    let mut n = client;
    while !shared.stop.load(Ordering::Relaxed) {
        // Every snippet in turn: 7 and their number have no common divisor.
        n = (n + 7) % SNIPPETS;
        let started = Instant::now();
        let plan = cache.plan(&key(&n.to_string())).await;
        let took = started.elapsed();
        shared.latencies.lock().expect("no panic").push(took);
        shared.asked.fetch_add(1, Ordering::Relaxed);
        serve(&cache, &shared, n, plan).await;
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// As a flight does.
async fn serve(cache: &Cache, shared: &Shared, n: u64, mut plan: Plan) {
    let (key, text) = (key(&n.to_string()), text(n));
    loop {
        match plan {
            Plan::Replay(level, found) => {
                assert_eq!((level, found.text()), (Level::Redis, text));
                shared.hits.fetch_add(1, Ordering::Relaxed);
                return;
            }
            Plan::Make => return cache.put(key, answer(&text)),
            Plan::Lead(leader) => {
                for delta in deltas(&text) {
                    leader.tell(&delta);
                    tokio::task::yield_now().await;
                }
                return cache.finish(leader, key, answer(&text));
            }
            Plan::Follow(mut follower) => {
                let mut told: Vec<CachedDelta> = Vec::new();
                loop {
                    match follower.next().await {
                        Told::Deltas(more) => told.extend(more),
                        Told::Done(done) => {
                            assert_eq!((told, done.text()), (deltas(&text), text));
                            return;
                        }
                        Told::Lost => break,
                    }
                }
                plan = cache.plan(&key).await;
            }
        }
    }
}
