//! Two servers as processes of their own, with the real model, and a real Redis between them.

use std::collections::HashMap;
use std::net::SocketAddr;

use code_explainer_client::proto::explain_service_client::ExplainServiceClient;
use code_explainer_client::proto::{CacheMode, ExplainRequest};
use tonic::transport::Endpoint;

use crate::common::programs::{ServerProcess, server};
use crate::common::redis::{RedisServer, eventually};
use crate::common::server::metric;
use crate::common::stream::{Outcome, TestStream, is_delta, item};

const GENERATED: &str = "code_explainer_tokens_total{kind=\"generated\"}";
const FOLLOWED: &str = "code_explainer_redis_shared_answers_total{role=\"followed\"}";
const TAKEN_OVER: &str = "code_explainer_redis_shared_answers_total{role=\"taken_over\"}";

/// A server.
struct Process {
    process: ServerProcess,
    grpc: SocketAddr,
    http: SocketAddr,
}

/// Two that share a Redis.
async fn pair(lease: &'static str) -> (RedisServer, Process, Process) {
    let start = move || {
        let redis = RedisServer::start();
        let url = redis.url();
        let start = || {
            let mut command = server(&["serve", "--listen", "127.0.0.1:0"]);
            command.args(["--http-listen", "127.0.0.1:0", "--kv-cache-tokens", "8192"]);
            command.args(["--redis-url", &url, "--redis-timeout", "20s"]);
            command.args(["--redis-lease", lease, "--stream-items", "1000"]);
            ServerProcess::start(command)
        };
        let [one, two] = [start(), start()].map(|mut process| {
            let (grpc, http) = (process.address("grpc"), process.address("http"));
            process.wait_for(" ready");
            Process {
                process,
                grpc,
                http,
            }
        });
        (redis, one, two)
    };
    let pair = tokio::task::spawn_blocking(start).await;
    pair.expect("a Redis and two servers")
}

impl Process {
    async fn stream(&self) -> TestStream {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.grpc)).expect("a URI");
        let channel = endpoint.connect().await.expect("it listens");
        TestStream::open_on(ExplainServiceClient::new(channel)).await
    }

    async fn metric(&self, name: &str) -> f64 {
        metric(self.http, name).await.unwrap_or(0.0)
    }

    async fn all(&self, count: usize) -> HashMap<String, Outcome> {
        let mut stream = self.stream().await;
        for n in 0..count {
            stream.explain(item(&n.to_string(), "x = 1")).await;
        }
        stream.collect(count).await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_identical_items_on_two_processes_cost_one_generation() {
    let (_redis, one, two) = pair("20s").await;
    let generated = async || one.metric(GENERATED).await + two.metric(GENERATED).await;
    let before = generated().await;
    let (first, second) = tokio::join!(one.all(500), two.all(500));
    let text = first["0"].text.clone();
    assert!(!text.is_empty());
    assert_eq!(first.len() + second.len(), 1000);
    for outcome in first.values().chain(second.values()) {
        assert!(outcome.error.is_none(), "{:?}", outcome.error);
        assert!(outcome.done.is_some());
        assert_eq!(outcome.text, text);
    }
    let generated = generated().await - before;
    assert_eq!(generated, 16.0, "the tokens of one answer");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_answer_of_a_process_that_is_killed_is_finished_by_the_other() {
    let (_redis, one, two) = pair("2s").await;
    let wanted = |id| ExplainRequest {
        max_new_tokens: 192,
        ..item(id, "def f(x):\n    return x + 1\n")
    };
    let mut first = one.stream().await;
    first.explain(wanted("a")).await;
    first.wait_for("a", is_delta).await;
    let mut second = two.stream().await;
    second.explain(wanted("b")).await;
    let second = tokio::spawn(async move { second.collect(1).await.remove("b") });
    let followed = async || (two.metric(FOLLOWED).await >= 1.0).then_some(());
    eventually("the other one streams what it makes", followed).await;
    one.process.signal("KILL");
    let outcome = second.await.expect("no panic").expect("its outcome");
    assert!(outcome.error.is_none(), "{:?}", outcome.error);
    assert!(two.metric(TAKEN_OVER).await >= 1.0);
    let alone = ExplainRequest {
        cache_mode: CacheMode::Bypass.into(),
        ..wanted("c")
    };
    let mut third = two.stream().await;
    third.explain(alone).await;
    let whole = third.collect(1).await.remove("c").expect("its outcome");
    assert_eq!(outcome.text, whole.text, "no gap, and nothing twice");
}
