//! A server's life, from its listeners to its last answer. The caller owns the edges: it binds, and it says when to
//! stop.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::access::{Access, AccessError};
use crate::api::{Shared, http::serve_http, serve_grpc};
use crate::cache::Cache;
use crate::config::Config;
use crate::embed::{EmbedError, Embedder, Load};
use crate::explain::{Explainer, InFlight};
use crate::metrics::Metrics;
use crate::model::{Model, ModelError, together};
use crate::scheduler::{EngineRules, GaveUp, Scheduler, SchedulerOptions};
use crate::status::{Phase, ServerStatus};
use crate::telemetry::Traces;

/// After the items have been answered: time for connections to say goodbye, and for the last traces.
const GOODBYE: Duration = Duration::from_secs(2);

/// How often the metrics' samples are moved into their buckets, and expired answers are freed.
const UPKEEP: Duration = Duration::from_secs(5);

/// How often the files of keys and certificates are looked at.
const RELOAD: Duration = Duration::from_secs(2);

/// Sockets that are bound.
pub struct Listeners {
    /// For gRPC.
    pub grpc: TcpListener,
    /// For HTTP.
    pub http: TcpListener,
}

impl Listeners {
    /// Binds the configured addresses.
    ///
    /// # Errors
    /// Names the address that cannot be bound.
    pub async fn bind(grpc: SocketAddr, http: SocketAddr) -> anyhow::Result<Self> {
        let bind = async |address: SocketAddr, what: &str| {
            let listener = TcpListener::bind(address).await;
            listener.with_context(|| format!("cannot listen on {address} for {what}"))
        };
        Ok(Self {
            grpc: bind(grpc, "gRPC").await?,
            http: bind(http, "HTTP").await?,
        })
    }
}

/// Why a server ended other than by being asked to.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The model cannot be served.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The embedding model cannot be served.
    #[error("the embedding model: {0}")]
    Embed(#[from] EmbedError),
    /// The files that say who may call are of no use.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// Something else.
    #[error(transparent)]
    Other(#[from] anyhow::Error),
}

/// Serves until `shutdown`; then says that it goes and serves on for the configured grace, and finishes the running items
/// within the configured time.
///
/// Probes and health are answered from the first moment; items once the model has been loaded by `open` and has run a
/// one-token forward pass.
///
/// # Errors
/// The model cannot be served, or the network side fails.
pub async fn run(
    listeners: Listeners,
    config: Config,
    open: impl FnOnce() -> Result<Model, ModelError> + Send + 'static,
    shutdown: impl Future<Output = ()>,
) -> Result<(), RunError> {
    let status = ServerStatus::new();
    let traces = Arc::new(Traces::new(
        config.otlp_endpoint.as_deref(),
        &config.replica,
    )?);
    let metrics = Arc::new(Metrics::new().context("the metrics")?);
    let embedder = Arc::new(Embedder::new(config.embed.clone(), metrics.clone()));
    let access = Arc::new(Access::open(&config.access)?);
    let shared = Arc::new(Shared {
        status: status.clone(),
        access: access.clone(),
        connections: config.connections,
        message_bytes: config.message_bytes,
        request: config.request,
        stream_items: config.stream_items,
        slow_reader_timeout: config.stream.slow_reader_timeout,
        replica: config.replica.as_str().into(),
        cache: Arc::new(Cache::new(config.cache.clone()).context("the cache")?),
        embedder: embedder.clone(),
        cache_secret: config.cache_secret.0.as_str().into(),
        metrics,
        started: Instant::now(),
    });
    let stop = CancellationToken::new();
    let _stop_with_me = stop.clone().drop_guard();
    tokio::spawn(upkeep(shared.clone(), stop.clone()));
    tokio::spawn(reload(access, shared.metrics.clone(), stop.clone()));
    let mut grpc = tokio::spawn(serve_grpc(listeners.grpc, shared.clone(), stop.clone()));
    let mut http = tokio::spawn(serve_http(listeners.http, shared.clone(), stop.clone()));

    tokio::pin!(shutdown);
    let mut engines = tokio::select! {
        engines = start_engines(&shared, &config, open, traces.clone()) => Some(engines?),
        () = &mut shutdown => None,
        ended = &mut grpc => return Ok(failed("gRPC", ended)?),
        ended = &mut http => return Ok(failed("HTTP", ended)?),
    };
    if let Some(engines) = &mut engines {
        tokio::select! {
            () = &mut shutdown => {}
            ended = &mut grpc => failed("gRPC", ended)?,
            ended = &mut http => failed("HTTP", ended)?,
            gave_up = &mut engines.supervised => Err(unsupervised(gave_up))?,
        }
        status.enter(Phase::Leaving);
        tracing::info!(grace = ?config.shutdown_grace, "no longer ready; serving those who have not heard of it");
        tokio::time::sleep(config.shutdown_grace).await;
    }
    status.enter(Phase::Draining);
    if let Some(engines) = engines {
        drain(&status, &engines.scheduler, config.drain_timeout).await;
        status.closing.cancel();
        engines.stop.cancel();
        if let Ok(Ok(threads)) = engines.supervised.await {
            end_of_threads(threads).await;
        }
    }
    status.closing.cancel();
    embedder.flush().await;
    stop.cancel();
    goodbye(grpc, http).await;
    // It blocks while it sends what is left.
    let _ = tokio::task::spawn_blocking(move || traces.shutdown(GOODBYE)).await;
    Ok(())
}

async fn upkeep(shared: Arc<Shared>, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(UPKEEP);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        shared.metrics.upkeep();
        shared.cache.sweep();
    }
}

/// Keeps keys and certificates as their files have them.
async fn reload(access: Arc<Access>, metrics: Arc<Metrics>, stop: CancellationToken) {
    let tell_end = |access: &Access, metrics: &Metrics| {
        if let Some(tls) = access.tls() {
            metrics.access.certificate_ends(tls.not_after);
        }
    };
    tell_end(&access, &metrics);
    let mut ticks = tokio::time::interval(RELOAD);
    while access.has_files() && stop.run_until_cancelled(ticks.tick()).await.is_some() {
        let (access, metrics) = (access.clone(), metrics.clone());
        let look = move || {
            access.reload(|file, good| metrics.access.reloaded(file, good));
            tell_end(&access, &metrics);
        };
        if tokio::task::spawn_blocking(look).await.is_err() {
            tracing::error!("reading changed files panicked");
        }
    }
}

/// Engines that are ready.
struct Engines {
    scheduler: Scheduler,
    /// Looks after their threads, and gives those that are left when it is stopped.
    supervised: JoinHandle<Result<Vec<std::thread::JoinHandle<()>>, GaveUp>>,
    stop: CancellationToken,
}

/// The supervisor should outlive the serving.
fn unsupervised(
    ended: Result<Result<Vec<std::thread::JoinHandle<()>>, GaveUp>, tokio::task::JoinError>,
) -> anyhow::Error {
    match ended {
        Ok(Ok(_)) => anyhow::anyhow!("the engines' supervisor ended by itself"),
        Ok(Err(gave_up)) => gave_up.into(),
        Err(panic) => panic.into(),
    }
}

async fn start_engines(
    shared: &Arc<Shared>,
    config: &Config,
    open: impl FnOnce() -> Result<Model, ModelError> + Send + 'static,
    traces: Arc<Traces>,
) -> Result<Engines, RunError> {
    let opened = tokio::task::spawn_blocking(open).await;
    let Model {
        text,
        digest,
        backends,
        step,
    } = opened.context("reading the model panicked")??;
    shared.status.enter(Phase::WarmingUp);
    let metrics = shared.metrics.clone();
    let options = SchedulerOptions {
        engine: EngineRules {
            step: step.unwrap_or(config.scheduler.engine.step),
            ..config.scheduler.engine
        },
        ..config.scheduler.clone()
    };
    let observer = Arc::new(move |step: &_| metrics.step(step));
    let (scheduler, starting) = Scheduler::start(backends, &options, observer);
    let metrics = shared.metrics.clone();
    let restarts = Arc::new(move |cause| metrics.life.restarted(cause));
    let ready = starting.ready(restarts).await;
    let (models, supervisor) = ready.map_err(ModelError::from)?;
    let model = together(models)?;
    tracing::info!(
        model = model.model,
        architecture = model.architecture,
        parameters = model.parameters,
        device = model.device,
        precision = %model.precision,
        kv_precision = %model.kv_precision,
        context = model.context_length,
        weights_mb = model.weights_bytes >> 20,
        kv_pool_mb = model.kv_pool_bytes >> 20,
        "the model is loaded"
    );
    if config.embed.load == Load::Start {
        shared.embedder.load().await?;
    }
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let (context_length, kv_precision) = (model.context_length, model.kv_precision);
    shared.status.serve(Arc::new(Explainer {
        text,
        scheduler: scheduler.clone(),
        options,
        cache: shared.cache.clone(),
        model,
        // A smaller KV pool cuts long answers short; another precision of the pool rounds otherwise.
        model_digest: format!("{digest}/{context_length}/{kv_precision}"),
        in_flight: InFlight::default(),
        single_flight: config.stream.single_flight,
        preparing: Arc::new(Semaphore::new(cores)),
        cache_secret: config.cache_secret.0.clone(),
        metrics: shared.metrics.clone(),
        traces,
        tasks: shared.status.items.clone(),
        closing: shared.status.closing.clone(),
    }));
    tracing::info!("ready");
    let stop = CancellationToken::new();
    tokio::spawn(follow(supervisor.working(), shared.status.clone()));
    let supervised = tokio::spawn(supervisor.run(stop.clone()));
    Ok(Engines {
        scheduler,
        supervised,
        stop,
    })
}

/// Keeps the readiness in step with what the supervisor sees.
async fn follow(mut working: tokio::sync::watch::Receiver<bool>, status: ServerStatus) {
    while working.changed().await.is_ok() {
        status.set_working(*working.borrow_and_update());
    }
}

/// New items are refused from here on; those that there are get until the deadline.
async fn drain(status: &ServerStatus, scheduler: &Scheduler, timeout: Duration) {
    scheduler.close();
    status.items.close();
    tracing::info!(items = status.items.len(), "finishing the running items");
    if tokio::time::timeout(timeout, status.items.wait())
        .await
        .is_err()
    {
        tracing::warn!(
            items = status.items.len(),
            "the time is up; giving up the rest"
        );
    }
    scheduler.stop();
    // What was given up is told so.
    let _ = tokio::time::timeout(GOODBYE, status.items.wait()).await;
}

/// An engine that hangs in a step does not keep the process.
async fn end_of_threads(threads: Vec<std::thread::JoinHandle<()>>) {
    let join = move || {
        threads
            .into_iter()
            .try_for_each(std::thread::JoinHandle::join)
    };
    match tokio::time::timeout(GOODBYE, tokio::task::spawn_blocking(join)).await {
        Ok(Ok(Ok(()))) => {}
        Ok(_) => tracing::error!("an engine's thread panicked"),
        Err(_) => tracing::error!("an engine's thread hangs; leaving it behind"),
    }
}

async fn goodbye(grpc: JoinHandle<anyhow::Result<()>>, http: JoinHandle<anyhow::Result<()>>) {
    for mut side in [grpc, http] {
        if tokio::time::timeout(GOODBYE, &mut side).await.is_err() {
            // A client that keeps its connection open has been told to go.
            side.abort();
        }
    }
}

/// The network side should outlive everything.
fn failed(
    what: &str,
    ended: Result<anyhow::Result<()>, tokio::task::JoinError>,
) -> anyhow::Result<()> {
    ended
        .with_context(|| format!("{what} panicked"))?
        .with_context(|| format!("{what} failed"))?;
    anyhow::bail!("{what} ended by itself")
}
