//! Hits over gRPC, beside a bare tonic server that streams the same messages from a constant.
//!
//! Every server has a runtime of its own with one worker thread, and so has the client. The rounds of all take turns, and
//! each number is the median of its rounds.

use std::error::Error;
use std::net::SocketAddr;
use std::pin::Pin;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use code_explainer::config;
use code_explainer::model::Model;
use code_explainer::{Listeners, run};
use code_explainer_client::proto::explain_service_client::ExplainServiceClient;
use code_explainer_client::proto::explain_service_server::{ExplainService, ExplainServiceServer};
use code_explainer_client::proto::{
    CacheLevel, EmbedRequest, EmbedResponse, ExplainRequest, ExplainResponse, ExplainStreamRequest,
    ExplainStreamResponse, explain_response,
};
use code_explainer_engine::fake::FakeBackend;
use code_explainer_text::Text;
use code_explainer_weights::Checkpoint;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio_stream::{Stream, StreamExt};
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Server};
use tonic::{Request, Response, Status, Streaming};

const ROUNDS: usize = 7;
const ROUND: Duration = Duration::from_millis(600);
/// Calls at once, where throughput is measured.
const CALLS: usize = 16;
const MODEL: &str = "models/SmolLM2-135M-Instruct.Q4_1.gguf";
/// What is asked for: 700 bytes of code, whose language is to be detected.
const CODE: &str = include_str!("snippet.py");

/// Measures all, prints a table, and gives the numbers.
pub(crate) fn run_all() -> Result<Value, Box<dyn Error>> {
    let client = one_worker()?;
    let text = Arc::new(Text::from_checkpoint(&Checkpoint::open(MODEL.as_ref())?)?);
    let redis = Redis::start()?;
    let url = format!("redis://127.0.0.1:{}", redis.port);
    let memory = Explainer::start(&text, &[])?;
    // Without a memory of its own, each hit is one of Redis.
    let remote = Explainer::start(&text, &["--cache-size", "0", "--redis-url", &url])?;
    let mut answers = Vec::new();
    for server in [&memory, &remote] {
        let answer = client.block_on(async {
            let mut channel = connect(server.address).await?;
            explain(&mut channel).await?;
            // The write to Redis is behind the answer.
            loop {
                let answer = explain(&mut channel).await?;
                if level(&answer) != CacheLevel::Unspecified {
                    return Ok::<_, Box<dyn Error>>(answer);
                }
            }
        })?;
        answers.push(answer);
    }
    let bare = Bare::start(answers[0].clone())?;
    let messages = answers[0].len();

    let mut rows = Vec::new();
    for (name, address) in [
        ("bare", bare.address),
        ("memory hit", memory.address),
        ("redis hit", remote.address),
    ] {
        rows.push((name, address, Vec::new(), Vec::new()));
    }
    let mut gets = Vec::new();
    for _ in 0..ROUNDS {
        for (_, address, throughputs, latencies) in &mut rows {
            throughputs.push(client.block_on(throughput(*address))?);
            latencies.push(client.block_on(latency(*address))?);
        }
        gets.push(client.block_on(raw_get(&url))?);
    }
    let raw_get = median(&mut gets);
    println!("\nhits over gRPC: {messages} messages an answer, {CALLS} calls at once, then one");
    println!(
        "{:<12}{:>12}{:>10}{:>12}{:>10}",
        "", "answers/s", "x bare", "p50 µs", "x bare"
    );
    let mut numbers = serde_json::Map::new();
    let mut base = None;
    for (name, _, throughputs, latencies) in &mut rows {
        let (rate, p50) = (median(throughputs), median(latencies));
        let (bare_rate, bare_p50) = *base.get_or_insert((rate, p50));
        println!(
            "{name:<12}{rate:>12.0}{:>10.2}{p50:>12.1}{:>10.2}",
            rate / bare_rate,
            p50 / bare_p50
        );
        numbers.insert(
            (*name).into(),
            json!({
                "answers_per_second": rate,
                "of_bare_throughput": rate / bare_rate,
                "p50_us": p50,
                "of_bare_p50": p50 / bare_p50,
            }),
        );
    }
    println!("{:<12}{:>12}{:>10}{raw_get:>12.1}", "raw GET", "", "");
    numbers.insert("raw_get_p50_us".into(), raw_get.into());
    numbers.insert("messages".into(), messages.into());
    Ok(numbers.into())
}

fn one_worker() -> std::io::Result<Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
}

/// A server of ours with the fake engine.
struct Explainer {
    address: SocketAddr,
    _runtime: Runtime,
}

impl Explainer {
    fn start(text: &Arc<Text>, flags: &[&str]) -> Result<Self, Box<dyn Error>> {
        let runtime = one_worker()?;
        let fixed = [
            "s",
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--http-listen",
            "127.0.0.1:0",
        ];
        let args = fixed.iter().chain(flags).map(std::ffi::OsString::from);
        let config::Command::Serve(config) = config::Command::from_args(args)? else {
            return Err("the command is serve".into());
        };
        let listeners = runtime.block_on(Listeners::bind(config.listen, config.http_listen))?;
        let address = listeners.grpc.local_addr()?;
        let text = text.clone();
        let open = move || {
            let vocabulary = text.vocabulary_size();
            let load: code_explainer_scheduler::Loader = Box::new(move || {
                let (backend, _control) = FakeBackend::new(vocabulary, 2048, 512, 16);
                Ok(Box::new(backend))
            });
            Ok(Model {
                text,
                digest: "fake".into(),
                backends: vec![load],
                step: None,
            })
        };
        runtime.spawn(run(listeners, *config, open, std::future::pending()));
        Ok(Self {
            address,
            _runtime: runtime,
        })
    }
}

/// The same messages from a constant.
struct Bare {
    address: SocketAddr,
    _runtime: Runtime,
}

struct Constant(Vec<ExplainResponse>);

impl Bare {
    fn start(answer: Vec<ExplainResponse>) -> Result<Self, Box<dyn Error>> {
        let runtime = one_worker()?;
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0"))?;
        let address = listener.local_addr()?;
        let service = ExplainServiceServer::new(Constant(answer));
        // As ours is set up.
        let server = Server::builder()
            .initial_stream_window_size(64 << 10)
            .initial_connection_window_size(8 << 20)
            .add_service(service)
            .serve_with_incoming(TcpIncoming::from(listener).with_nodelay(Some(true)));
        runtime.spawn(server);
        Ok(Self {
            address,
            _runtime: runtime,
        })
    }
}

type Responses<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl ExplainService for Constant {
    type ExplainStream = Responses<ExplainResponse>;
    type ExplainStreamStream = Responses<ExplainStreamResponse>;

    async fn explain(
        &self,
        _: Request<ExplainRequest>,
    ) -> Result<Response<Self::ExplainStream>, Status> {
        let messages = self.0.clone().into_iter().map(Ok);
        Ok(Response::new(Box::pin(tokio_stream::iter(messages))))
    }

    async fn explain_stream(
        &self,
        _: Request<Streaming<ExplainStreamRequest>>,
    ) -> Result<Response<Self::ExplainStreamStream>, Status> {
        Err(Status::unimplemented("it is not measured"))
    }

    async fn embed(&self, _: Request<EmbedRequest>) -> Result<Response<EmbedResponse>, Status> {
        Err(Status::unimplemented("it is not measured"))
    }
}

async fn connect(address: SocketAddr) -> Result<ExplainServiceClient<Channel>, Box<dyn Error>> {
    let endpoint = Channel::from_shared(format!("http://{address}"))?;
    Ok(ExplainServiceClient::new(endpoint.connect().await?))
}

async fn explain(
    client: &mut ExplainServiceClient<Channel>,
) -> Result<Vec<ExplainResponse>, Box<dyn Error>> {
    loop {
        let request = ExplainRequest {
            code: CODE.into(),
            max_new_tokens: 64,
            ignore_eos: true,
            ..ExplainRequest::default()
        };
        match client.explain(request).await {
            Ok(answer) => {
                let messages: Result<Vec<_>, _> = answer.into_inner().collect().await;
                return Ok(messages?);
            }
            // It is loading.
            Err(status) if status.code() == tonic::Code::Unavailable => {
                tokio::task::yield_now().await;
            }
            Err(status) => return Err(status.into()),
        }
    }
}

fn level(answer: &[ExplainResponse]) -> CacheLevel {
    match answer.last().and_then(|last| last.event.as_ref()) {
        Some(explain_response::Event::Done(done)) => done
            .receipt
            .as_ref()
            .map_or(CacheLevel::Unspecified, |r| r.cache()),
        _ => CacheLevel::Unspecified,
    }
}

/// Answers a second with many calls at once on one connection.
async fn throughput(address: SocketAddr) -> Result<f64, Box<dyn Error>> {
    let client = connect(address).await?;
    let started = Instant::now();
    let calls = (0..CALLS).map(|_| {
        let mut client = client.clone();
        async move {
            let mut answers = 0_u32;
            while started.elapsed() < ROUND {
                explain(&mut client)
                    .await
                    .map_err(|error| error.to_string())?;
                answers += 1;
            }
            Ok::<_, String>(answers)
        }
    });
    let answers: u32 = futures::future::try_join_all(calls).await?.iter().sum();
    Ok(f64::from(answers) / started.elapsed().as_secs_f64())
}

/// Median time of a whole answer, one call after the other, in microseconds.
async fn latency(address: SocketAddr) -> Result<f64, Box<dyn Error>> {
    let mut client = connect(address).await?;
    let (mut times, started) = (Vec::new(), Instant::now());
    while started.elapsed() < ROUND {
        let asked = Instant::now();
        explain(&mut client).await?;
        times.push(asked.elapsed().as_secs_f64() * 1e6);
    }
    Ok(median(&mut times))
}

/// Median time of a raw GET of the one value that there is, in microseconds.
async fn raw_get(url: &str) -> Result<f64, Box<dyn Error>> {
    let client = redis::Client::open(url)?;
    let mut connection = client.get_multiplexed_async_connection().await?;
    let mut keys = redis::cmd("KEYS");
    let keys: Vec<String> = (keys.arg("code-explainer:v*"))
        .query_async(&mut connection)
        .await?;
    let key = keys.first().ok_or("redis has no answer")?;
    let (mut times, started) = (Vec::new(), Instant::now());
    while started.elapsed() < ROUND {
        let asked = Instant::now();
        let value: Vec<u8> = redis::cmd("GET")
            .arg(key)
            .query_async(&mut connection)
            .await?;
        times.push(asked.elapsed().as_secs_f64() * 1e6);
        assert!(!value.is_empty(), "the value is there");
    }
    Ok(median(&mut times))
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// A Redis of the benchmark's own, killed when it is dropped.
struct Redis {
    port: u16,
    process: Child,
    _directory: tempfile::TempDir,
}

impl Redis {
    fn start() -> Result<Self, Box<dyn Error>> {
        let path = Command::new("scripts/redis-server-path").output()?;
        let path = String::from_utf8(path.stdout)?;
        let port = std::net::TcpListener::bind("127.0.0.1:0")?
            .local_addr()?
            .port();
        let directory = tempfile::tempdir()?;
        let process = Command::new(path.trim())
            .args([
                "--port",
                &port.to_string(),
                "--save",
                "",
                "--bind",
                "127.0.0.1",
            ])
            .arg("--dir")
            .arg(directory.path())
            .stdout(Stdio::null())
            .spawn()?;
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            std::thread::yield_now();
        }
        Ok(Self {
            port,
            process,
            _directory: directory,
        })
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
