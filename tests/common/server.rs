//! Servers in this process: with a fake engine that a test steers, and one with the real model that all tests share.

use std::ffi::OsString;
use std::future::pending;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use code_explainer::config::{Command, Config};
use code_explainer::model::{Model, ModelError};
use code_explainer::run::RunError;
use code_explainer::{Listeners, run};
use code_explainer_client::proto::explain_service_client::ExplainServiceClient;
use code_explainer_engine::fake::{FakeBackend, FakeControl};
use code_explainer_engine::{Backend, EngineError};
use code_explainer_scheduler::Loader;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tonic::transport::{Channel, Endpoint};

use crate::common::smollm;

/// Long enough for a machine that does much else; reaching it is a failure.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running server. Dropping it stops it with its runtime.
pub(crate) struct TestServer {
    pub(crate) grpc: SocketAddr,
    pub(crate) http: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    done: JoinHandle<Result<(), RunError>>,
}

/// Settings as on a command line, on free ports.
pub(crate) fn config(flags: &[&str]) -> Config {
    let mut args = vec!["server", "serve"];
    for flag in ["--listen", "--http-listen"] {
        if !flags.contains(&flag) {
            args.extend([flag, "127.0.0.1:0"]);
        }
    }
    // Nobody has to hear first that a test's server goes.
    if !flags.contains(&"--shutdown-grace") {
        args.extend(["--shutdown-grace", "0s"]);
    }
    let args = args.iter().chain(flags).map(OsString::from);
    match Command::from_args(args).unwrap_or_else(|e| panic!("{e}")) {
        Command::Serve(config) => *config,
        other => panic!("{other:?} is not what was written"),
    }
}

/// Makes fake engines, all of them steered by the same hand.
pub(crate) fn fake_loader(control: &Arc<FakeControl>) -> Loader {
    let control = control.clone();
    Box::new(move || {
        let vocabulary = smollm::text().vocabulary_size();
        let backend = FakeBackend::steered(vocabulary, 2048, 512, 16, control.clone());
        Ok(Box::new(backend))
    })
}

/// A loader that works once.
pub(crate) fn once(
    load: impl FnOnce() -> Result<Box<dyn Backend>, EngineError> + Send + 'static,
) -> Loader {
    let load = Mutex::new(Some(load));
    Box::new(move || {
        let load = load.lock().expect("whole").take();
        load.expect("it is loaded once")()
    })
}

impl TestServer {
    /// A server with the fake engine: 512 blocks of 16 tokens, a context of 2048.
    pub(crate) async fn fake(flags: &[&str]) -> (Self, Arc<FakeControl>) {
        let control = Arc::new(FakeControl::default());
        let server = Self::engines(flags, vec![fake_loader(&control)]).await;
        server.ready().await;
        (server, control)
    }

    /// A server whose engine is made by `load`, when it comes to it; perhaps not ready yet.
    pub(crate) async fn loading(
        flags: &[&str],
        load: impl FnOnce() -> Result<Box<dyn Backend>, EngineError> + Send + 'static,
    ) -> Self {
        Self::engines(flags, vec![once(load)]).await
    }

    /// A server with several engines.
    pub(crate) async fn engines(flags: &[&str], backends: Vec<Loader>) -> Self {
        let open = || {
            let text = smollm::text().clone();
            Ok(Model {
                text,
                digest: "fake".into(),
                backends,
                step: None,
            })
        };
        Self::opening(config(flags), open).await
    }

    /// A server that reads its model by `open`.
    pub(crate) async fn opening(
        config: Config,
        open: impl FnOnce() -> Result<Model, ModelError> + Send + 'static,
    ) -> Self {
        let listeners = Listeners::bind(config.listen, config.http_listen)
            .await
            .expect("ports");
        let grpc = listeners.grpc.local_addr().expect("an address");
        let http = listeners.http.local_addr().expect("an address");
        let (stop, stopped) = oneshot::channel();
        let shutdown = async {
            if stopped.await.is_err() {
                pending::<()>().await;
            }
        };
        let done = tokio::spawn(run(listeners, config, open, shutdown));
        Self {
            grpc,
            http,
            stop: Some(stop),
            done,
        }
    }

    /// The server with the real model, which lives as long as the tests.
    pub(crate) async fn real() -> &'static Self {
        static REAL: OnceLock<TestServer> = OnceLock::new();
        let server = tokio::task::spawn_blocking(|| {
            REAL.get_or_init(|| {
                let runtime = Box::leak(Box::new(
                    tokio::runtime::Builder::new_multi_thread()
                        .enable_all()
                        .build()
                        .expect("a runtime"),
                ));
                runtime.block_on(async {
                    let config = config(&["--cache-size", "0"]);
                    let (path, engine) = (smollm::model_path(), config.engine.clone());
                    let server =
                        Self::opening(config, move || Model::open(&path, vec![engine])).await;
                    server.ready().await;
                    server
                })
            })
        });
        server.await.expect("the real model loads")
    }

    /// As SIGTERM would.
    pub(crate) fn terminate(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
    }

    /// How the server ended.
    pub(crate) async fn ended(&mut self) -> Result<(), RunError> {
        (&mut self.done).await.expect("the server does not panic")
    }

    pub(crate) fn uri(&self) -> String {
        format!("http://{}", self.grpc)
    }

    pub(crate) async fn channel(&self) -> Channel {
        let endpoint = Endpoint::from_shared(self.uri()).expect("a URI");
        endpoint.connect().await.expect("the server listens")
    }

    pub(crate) async fn client(&self) -> ExplainServiceClient<Channel> {
        ExplainServiceClient::new(self.channel().await)
    }

    /// Waits until `/readyz` says so.
    pub(crate) async fn ready(&self) {
        while self.get("/readyz").await.0 != 200 {
            tokio::task::yield_now().await;
        }
    }

    /// Status and body of an HTTP GET.
    pub(crate) async fn get(&self, path: &str) -> (u16, String) {
        http_get(self.http, path).await
    }

    /// Waits until a metric has a value.
    pub(crate) async fn until_metric(&self, name: &str, wanted: f64) {
        let reached = async {
            while self.metric(name).await != Some(wanted) {
                tokio::task::yield_now().await;
            }
        };
        if tokio::time::timeout(PATIENCE, reached).await.is_err() {
            panic!("{name} is {:?}, not {wanted}", self.metric(name).await);
        }
    }

    /// The value of a metric's line, found by its name and labels as Prometheus writes them.
    pub(crate) async fn metric(&self, name: &str) -> Option<f64> {
        metric(self.http, name).await
    }
}

/// The same of any server, by its HTTP address.
pub(crate) async fn metric(http: SocketAddr, name: &str) -> Option<f64> {
    let (_, text) = http_get(http, "/metrics").await;
    let line = text
        .lines()
        .find(|l| l.rsplit_once(' ').is_some_and(|(n, _)| n == name))?;
    line.rsplit_once(' ')?.1.parse().ok()
}

/// Status and body of an HTTP GET, by hand: one request, one answer, connection closed.
pub(crate) async fn http_get(address: SocketAddr, path: &str) -> (u16, String) {
    http_get_with(address, path, "").await
}

/// The same with headers, each with its line's end.
pub(crate) async fn http_get_with(address: SocketAddr, path: &str, headers: &str) -> (u16, String) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut connection = tokio::net::TcpStream::connect(address)
        .await
        .expect("HTTP listens");
    let request =
        format!("GET {path} HTTP/1.1\r\nHost: test\r\n{headers}Connection: close\r\n\r\n");
    connection
        .write_all(request.as_bytes())
        .await
        .expect("it reads");
    let mut answer = String::new();
    connection
        .read_to_string(&mut answer)
        .await
        .expect("it answers");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|s| s.parse().ok())
        .expect("a status");
    (status, body.to_owned())
}
