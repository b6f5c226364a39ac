//! A server's life, from its listeners to its last answer. The caller owns the edges: it binds, and it says when to
//! stop.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use code_explainer_host::fair_semaphore::FairSemaphore;
use code_explainer_host::machine::Machine;
use code_explainer_scheduler::{EngineRules, GaveUp, Scheduler, SchedulerOptions};
use tokio::net::{TcpListener, TcpSocket};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinHandle;
use tokio_stream::Stream;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::access::Access;
use crate::api::{Connection, Shared, connections, http::serve_http, serve_grpc};
use crate::config::Config;
use crate::embed::{EmbedError, Load};
use crate::explain::{Admission, Explainer, InFlight, Snippets};
use crate::model::{Model, ModelError, together};
use crate::status::{Phase, ServerStatus};
use crate::telemetry::Traces;

/// Connections that wait to be accepted, as far as the system lets them (`net.core.somaxconn`). One for which there is no
/// room is tried again by its client after a second.
const BACKLOG: u32 = 4096;

/// After the items have been answered: time for connections to say goodbye, and for the last traces.
const GOODBYE: Duration = Duration::from_secs(2);

/// How often the metrics' samples are moved into their buckets, and expired answers are freed.
const UPKEEP: Duration = Duration::from_secs(5);

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
        let bind = |address: SocketAddr, what: &str| {
            let listener = listen(address);
            listener.with_context(|| format!("cannot listen on {address} for {what}"))
        };
        Ok(Self {
            grpc: bind(grpc, "gRPC")?,
            http: bind(http, "HTTP")?,
        })
    }
}

/// As `TcpListener::bind`, which lets 128 wait alone.
fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Where a server meets the world. What it has of its own beside this is what it was given in its configuration.
pub struct ServerIo<I> {
    /// Connections for gRPC, as they come.
    pub grpc: I,
    /// For HTTP; `None`: nobody asks.
    pub http: Option<TcpListener>,
    /// What it works on.
    pub machine: Machine,
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
    let edges = ServerIo {
        grpc: connections(listeners.grpc),
        http: Some(listeners.http),
        machine: Machine::Threads,
    };
    if let Some(warning) = config.cache_warning() {
        tracing::warn!("{warning}");
    }
    let shared = Shared::new(&config)?;
    if shared.access.admin_is_open() {
        tracing::warn!(
            "AdminService is open: whoever can connect from this machine may read what it tells, clear the caches and \
             change the corpus, and so may all whom a forwarder on it lets through that adds no headers; --admin keys \
             or --admin off closes it"
        );
    }
    let hangups = signal(SignalKind::hangup()).context("SIGHUP cannot be handled")?;
    let reads_again = look_again_at(shared.access.clone(), hangups);
    tokio::select! {
        ended = run_on(edges, shared, config, open, shutdown) => ended,
        never = reads_again => match never {},
    }
}

/// SIGHUP asks for files to be read again.
async fn look_again_at(access: Arc<Access>, mut hangups: Signal) -> Infallible {
    loop {
        hangups.recv().await;
        access.look_again();
    }
}

/// The same between edges of the caller's own, who may look at what its parts share.
///
/// # Errors
/// As [`run`].
pub async fn run_on<C: Connection>(
    edges: ServerIo<impl Stream<Item = std::io::Result<C>> + Send + 'static>,
    shared: Arc<Shared>,
    config: Config,
    open: impl FnOnce() -> Result<Model, ModelError> + Send + 'static,
    shutdown: impl Future<Output = ()>,
) -> Result<(), RunError> {
    let ServerIo {
        grpc,
        http,
        machine,
    } = edges;
    let status = shared.status.clone();
    let traces = Arc::new(Traces::new(
        config.otlp_endpoint.as_deref(),
        &config.replica,
    )?);
    let stop = CancellationToken::new();
    let _stop_with_me = stop.clone().drop_guard();
    tokio::spawn(upkeep(shared.clone(), stop.clone()));
    let (access, metrics) = (shared.access.clone(), shared.metrics.clone());
    let told = status.clone();
    let keeps_up = access.keep_up(
        config.access.reload_interval,
        metrics,
        machine.clone(),
        move |known| told.set_callers_known(known),
        stop.clone(),
    );
    tokio::spawn(keeps_up);
    let mut grpc = tokio::spawn(serve_grpc(grpc, shared.clone(), stop.clone()));
    if http.is_some() {
        tokio::spawn(shared.heartbeat.clone().beat(stop.clone()));
    }
    let mut http = tokio::spawn(http_side(http, shared.clone(), stop.clone()));

    tokio::pin!(shutdown);
    let mut engines = tokio::select! {
        engines = start_engines(&shared, &config, open, traces.clone(), &machine) => Some(engines?),
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
        drop(engines.stop);
        if let Ok(Ok(threads)) = engines.supervised.await {
            end_of_threads(threads, &machine).await;
        }
    }
    status.closing.cancel();
    let stored = async {
        shared.retrieval.settled().await;
        shared.embedder.flush().await;
    };
    if tokio::time::timeout(GOODBYE, stored).await.is_err() {
        tracing::warn!("what was to be stored takes too long; leaving it behind");
    }
    stop.cancel();
    goodbye(grpc, http).await;
    // It blocks while it sends what is left.
    machine.block(move || traces.shutdown(GOODBYE)).await;
    Ok(())
}

async fn http_side(
    listener: Option<TcpListener>,
    shared: Arc<Shared>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    match listener {
        Some(listener) => serve_http(listener, shared, stop).await,
        None => {
            stop.cancelled().await;
            Ok(())
        }
    }
}

async fn upkeep(shared: Arc<Shared>, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(UPKEEP);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        shared.metrics.upkeep();
        shared.cache.upkeep();
        shared.embedder.upkeep();
    }
}

/// Engines that are ready.
struct Engines {
    scheduler: Scheduler,
    /// Looks after their threads, and gives those that are left when it is stopped.
    supervised: JoinHandle<Result<Vec<std::thread::JoinHandle<()>>, GaveUp>>,
    /// Whoever lets go of the engines lets go of who looks after them.
    stop: DropGuard,
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
    machine: &Machine,
) -> Result<Engines, RunError> {
    let opened = machine.compute(|| {
        // What is made once per process is not charged to the first item that needs it.
        code_explainer_code::redact::warm_up();
        code_explainer_code::prompt::warm_up();
        open()
    });
    let opened = opened.await;
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
    let (scheduler, starting) = Scheduler::start(backends, &options, observer, machine.clone());
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
        // Opened now, so that the first who asks need not wait; what is wrong with it is in the log.
        let _ = shared.retrieval.store().await;
    }
    let (context_length, kv_precision) = (model.context_length, model.kv_precision);
    shared.status.serve(Arc::new(Explainer {
        text,
        scheduler: scheduler.clone(),
        options,
        cache: shared.cache.clone(),
        model,
        // A smaller KV pool cuts long answers short; another precision of the pool rounds otherwise.
        model_digest: format!("{digest}/{context_length}/{kv_precision}"),
        snippets: Snippets::default(),
        normalize: config.cache_normalize,
        redact_secrets: config.redact_secrets,
        code_cpu_time: config.code_cpu_time,
        retrieval: shared.retrieval.clone(),
        in_flight: InFlight::default(),
        single_flight: config.stream.single_flight,
        reports_load: (config.stream.report_load).tells(shared.access.knows_tenants()),
        preparing: FairSemaphore::new(machine.cores()),
        machine: machine.clone(),
        cache_secret: config.cache_secret.0.clone(),
        metrics: shared.metrics.clone(),
        traces,
        admission: Admission::new(config.stream.in_flight_items),
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
        stop: stop.drop_guard(),
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
async fn end_of_threads(threads: Vec<std::thread::JoinHandle<()>>, machine: &Machine) {
    let join = move || {
        threads
            .into_iter()
            .try_for_each(std::thread::JoinHandle::join)
    };
    match tokio::time::timeout(GOODBYE, machine.compute(join)).await {
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
