//! One tenant's texts fill the queue of the embedding model; another one has a short text.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use code_explainer::access::rates::Rates;
use code_explainer::embed::{Embedder, Embedding, Lane, Opened};
use code_explainer::error::Error;
use code_explainer::metrics::Metrics;
use code_explainer_client::proto::EmbedRequest;
use code_explainer_engine::{Encoder, EncoderInfo, EngineError};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tonic::Code;
use tonic_types::StatusExt;

use crate::common::minilm;
use crate::common::server::{TestServer, config};

/// For a machine that does much else; reaching it is a failure.
const PATIENCE: Duration = Duration::from_secs(60);

/// Says what is in each batch before it waits to be let go on.
struct Gated {
    info: EncoderInfo,
    begun: mpsc::Sender<Vec<usize>>,
    go_on: Receiver<()>,
}

impl Encoder for Gated {
    fn info(&self) -> &EncoderInfo {
        &self.info
    }

    fn encode(&mut self, texts: &[&[u32]]) -> Result<Vec<Vec<f32>>, EngineError> {
        let lengths = texts.iter().map(|tokens| tokens.len()).collect();
        // The test may be over.
        let _ = self.begun.try_send(lengths);
        let _ = self.go_on.recv();
        Ok(vec![vec![1.0; self.info.dimensions]; texts.len()])
    }
}

/// An embedder whose batches a test steps through.
struct Stepped {
    embedder: Arc<Embedder>,
    begun: mpsc::Receiver<Vec<usize>>,
    go_on: Sender<()>,
}

impl Stepped {
    fn new() -> Self {
        let (tell, begun) = mpsc::channel(4096);
        let (go_on, wait) = channel();
        let encoder = Mutex::new(Some((tell, wait)));
        let open = move || {
            let (begun, go_on) = encoder.lock().expect("whole").take().expect("opened once");
            let tokenizer = minilm::load().0;
            let info = EncoderInfo {
                model: "stepped".into(),
                digest: "stepped".into(),
                dimensions: 4,
                positions: 256,
                vocabulary: tokenizer.vocabulary(),
                device: "none".into(),
                weights_bytes: 0,
            };
            Ok(Opened {
                tokenizer,
                encoder: Box::new(Gated { info, begun, go_on }),
            })
        };
        let metrics = Arc::new(Metrics::new().expect("metrics"));
        let embedder = Embedder::with_opener(config(&[]).embed, metrics, Box::new(open));
        Self {
            embedder: Arc::new(embedder),
            begun,
            go_on,
        }
    }

    fn ask(
        &self,
        lane: Lane,
        tenant: &'static [u8],
        texts: Vec<String>,
    ) -> JoinHandle<Result<Vec<Embedding>, Error>> {
        let embedder = self.embedder.clone();
        let rates = Rates::unlimited();
        tokio::spawn(async move { embedder.embed(lane, tenant, &rates, texts).await })
    }

    /// The lengths of the texts of the batch that begins now.
    async fn batch(&mut self) -> Vec<usize> {
        let begun = tokio::time::timeout(PATIENCE, self.begun.recv()).await;
        begun.expect("a batch begins").expect("there is a model")
    }

    async fn next_batch(&mut self) -> Vec<usize> {
        self.go_on.send(()).expect("there is a model");
        self.batch().await
    }

    async fn until(&self, what: &str, count: impl Fn(&Embedder) -> usize, wanted: usize) {
        let reached = async {
            while count(&self.embedder) != wanted {
                tokio::task::yield_now().await;
            }
        };
        let reached = tokio::time::timeout(PATIENCE, reached).await;
        let found = count(&self.embedder);
        assert!(reached.is_ok(), "{what} are {found}, not {wanted}");
    }
}

fn texts(call: usize) -> Vec<String> {
    (0..256).map(|n| format!("{call} and {n}")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_short_text_beside_anothers_six_calls_is_in_the_next_batch() {
    let mut stepped = Stepped::new();
    let first = stepped.ask(Lane::Request, b"greedy", texts(0));
    let running = stepped.batch().await.len();
    let mut more: Vec<_> = (1..4)
        .map(|call| stepped.ask(Lane::Request, b"greedy", texts(call)))
        .collect();
    let full = 1024;
    stepped
        .until("texts that wait", Embedder::queued, full - running)
        .await;
    for call in 4..6 {
        let refused = stepped.ask(Lane::Request, b"greedy", texts(call)).await;
        let refused = refused.expect("no panic").expect_err("it has it all");
        assert!(matches!(refused, Error::QueueFull { .. }), "{refused:?}");
    }

    // The queue is full, and who has filled it makes room.
    let text = "a text of twelve tokens, by one who has no others";
    let newcomer = stepped.ask(Lane::Request, b"newcomer", vec![text.into()]);
    stepped
        .until(
            "texts that wait",
            Embedder::queued,
            full - 256 - running + 1,
        )
        .await;
    let displaced = loop {
        if let Some(at) = more.iter().position(JoinHandle::is_finished) {
            break more.swap_remove(at);
        }
        tokio::task::yield_now().await;
    };
    let displaced = displaced.await.expect("no panic").expect_err("displaced");
    assert!(displaced.retry_after().is_some(), "{displaced:?}");
    // An explanation's look-up has room of its own, and goes first.
    let query = stepped.ask(Lane::Query, b"greedy", vec!["a query".into()]);
    stepped
        .until(
            "texts that wait",
            Embedder::queued,
            full - 256 - running + 2,
        )
        .await;
    assert_eq!(stepped.next_batch().await.len(), 1, "the query");
    let batch = stepped.next_batch().await;
    assert!(batch.iter().any(|&length| length >= 12), "{batch:?}");
    query.await.expect("no panic").expect("its vector");
    stepped.next_batch().await;
    newcomer.await.expect("no panic").expect("its vector");

    // Who goes takes along all that has not begun.
    first.abort();
    more.iter().for_each(JoinHandle::abort);
    stepped.until("texts", Embedder::waiting, 0).await;
    assert_eq!(stepped.embedder.queued(), 0);
    let next = stepped.ask(Lane::Request, b"newcomer", vec!["another text".into()]);
    stepped.until("texts that wait", Embedder::queued, 1).await;
    assert_eq!(stepped.next_batch().await.len(), 1);
    stepped.go_on.send(()).expect("there is a model");
    next.await.expect("no panic").expect("its vector");
}

#[tokio::test]
async fn texts_pay_their_tokens_before_they_are_computed_and_cached_ones_are_free() {
    let model = minilm::flags();
    let flags: Vec<&str> = model.iter().map(String::as_str).collect();
    let flags = [&flags[..], &["--rate-tokens", "40/h"]].concat();
    let server = TestServer::fake(&flags).await.0;
    let embed = async |texts: &[&str]| {
        let texts = texts.iter().map(ToString::to_string).collect();
        let answer = server.client().await.embed(EmbedRequest { texts }).await;
        answer.map(|answer| answer.into_inner().embeddings)
    };
    let long = "one two three four five six seven eight nine ten eleven twelve";
    let first = embed(&[long, long]).await.expect("there are 40");
    assert!(first[0].tokens > 12 && first[0].tokens <= 20, "{first:?}");
    server
        .until_metric("code_explainer_embedding_cache_entries", 1.0)
        .await;
    embed(&[&long.replace("one", "ten")]).await.expect("again");
    server
        .until_metric("code_explainer_embedding_cache_entries", 2.0)
        .await;
    let other = long.replace("one", "six");
    let refused = embed(&[&other]).await.expect_err("they are used up");
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert!(refused.message().contains("40/h tokens"), "{refused}");
    let wait = refused.get_details_retry_info().expect("when to come back");
    assert!(wait.retry_delay > Some(Duration::from_secs(60)));
    let never = embed(&[&"word ".repeat(100)]).await.expect_err("too long");
    assert!(never.get_details_retry_info().is_none(), "{never}");
    let cached = embed(&[long, long]).await.expect("for nothing");
    assert!(cached.iter().all(|embedding| embedding.cached));
    for (name, wanted) in [
        ("code_explainer_rate_limited_total{what=\"tokens\"}", 2.0),
        (
            "code_explainer_embedding_texts_total{source=\"model\"}",
            3.0,
        ),
    ] {
        assert_eq!(server.metric(name).await, Some(wanted), "{name}");
    }
}
