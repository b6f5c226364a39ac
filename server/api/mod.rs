//! Transport: gRPC and HTTP. Wire types in, streams out; what happens in between is elsewhere.
//!
//! - `explain`: the single call, and the door to the bidirectional `stream`.
//! - `embed`: vectors of texts.
//! - `convert`: events to wire types.
//! - `model`, `admin`: what is served, and how it fares; `admin_cache`, `admin_clear`, `admin_warm`: the caches.
//! - `corpus`: the operator's documents.
//! - [`http`]: metrics and probes.

mod admin;
mod admin_cache;
mod admin_clear;
mod admin_warm;
mod convert;
mod corpus;
mod embed;
mod explain;
pub mod http;
mod model;
mod stream;

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_stream::Stream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tonic::transport::server::{Connected, TcpIncoming};
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use crate::cache::Cache;
use crate::config::{Config, StreamOptions};
use crate::embed::Embedder;
use crate::identity::Identity;
use crate::metrics::Metrics;
use crate::proto;
use crate::proto::admin_service_server::AdminServiceServer;
use crate::proto::explain_service_server::ExplainServiceServer;
use crate::proto::model_service_server::ModelServiceServer;
use crate::request::RequestLimits;
use crate::retrieval::Retrieval;
use crate::session::Sessions;
use crate::status::{ServerStatus, State};

/// Services whose health is told, and the server as a whole.
const SERVICES: [&str; 4] = [
    "",
    "codeexplainer.v1.ExplainService",
    "codeexplainer.v1.ModelService",
    "codeexplainer.v1.AdminService",
];

/// What the services share.
pub struct Shared {
    /// Phase, model and running items.
    pub status: ServerStatus,
    /// What a request may ask for.
    pub request: RequestLimits,
    /// Items in flight on a stream at most.
    pub stream_items: usize,
    /// How streams are served.
    pub stream: StreamOptions,
    /// Streams that can be resumed.
    pub sessions: Sessions,
    /// This server's name.
    pub replica: Arc<str>,
    /// The explanation cache.
    pub cache: Arc<Cache>,
    /// The way to the embedding model.
    pub embedder: Arc<Embedder>,
    /// What is known of code that is near.
    pub retrieval: Arc<Retrieval>,
    /// Mixed into the embedding cache's keys.
    pub cache_secret: Arc<str>,
    /// Where to count.
    pub metrics: Arc<Metrics>,
    /// When the server started.
    pub started: Instant,
}

impl Shared {
    /// Of a server of this configuration that has not begun yet.
    ///
    /// # Errors
    /// The configured cache cannot be made.
    pub fn new(config: &Config) -> anyhow::Result<Arc<Self>> {
        let metrics = Arc::new(Metrics::new().context("the metrics")?);
        let embedder = Arc::new(Embedder::new(config.embed.clone(), metrics.clone()));
        let retrieval = Retrieval::new(config.retrieval.clone(), embedder.clone(), metrics.clone());
        Ok(Arc::new(Self {
            status: ServerStatus::new(),
            request: config.request,
            stream_items: config.stream_items,
            stream: config.stream.clone(),
            sessions: Sessions::new(config.stream.resume),
            replica: config.replica.as_str().into(),
            cache: Arc::new(Cache::new(config.cache.clone()).context("the cache")?),
            embedder,
            retrieval: Arc::new(retrieval),
            cache_secret: config.cache_secret.0.as_str().into(),
            metrics,
            started: Instant::now(),
        }))
    }
}

/// A connection that gRPC can be spoken on.
pub trait Connection: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static {}

impl<C: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static> Connection for C {}

/// The connections of a listener.
pub fn connections(
    listener: TcpListener,
) -> impl Stream<Item = std::io::Result<impl Connection + use<>>> + use<> {
    // The builder's own setting does not reach a listener that it was given: with Nagle's algorithm on, small messages wait
    // for the client's delayed acknowledgements, 40 ms each.
    TcpIncoming::from(listener).with_nodelay(Some(true))
}

/// Serves gRPC on connections as they come, until `stop`, then ends them as they fall idle.
///
/// # Errors
/// The reflection service cannot read its own descriptors, or the listener fails.
pub async fn serve_grpc<C: Connection>(
    connections: impl Stream<Item = std::io::Result<C>>,
    shared: Arc<Shared>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let (reporter, health) = tonic_health::server::health_reporter();
    // The first report comes before the first call can ask.
    let mut states = shared.status.watch();
    let state = *states.borrow_and_update();
    report(&reporter, state).await;
    tokio::spawn(follow(reporter, states));
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(proto::DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    // Room for an item that is somewhat too large, so that it gets an error of its own; far larger messages end the
    // stream.
    let message_bytes = shared.request.code_bytes.saturating_mul(4).max(4 << 20);
    let explain = ExplainServiceServer::new(explain::ExplainApi::new(shared.clone()))
        .max_decoding_message_size(message_bytes);
    Server::builder()
        .http2_keepalive_interval(Some(Duration::from_secs(30)))
        .http2_keepalive_timeout(Some(Duration::from_secs(20)))
        .http2_adaptive_window(Some(true))
        .add_service(explain)
        .add_service(ModelServiceServer::new(model::ModelApi::new(
            shared.clone(),
        )))
        .add_service(AdminServiceServer::new(admin::AdminApi::new(shared)))
        .add_service(health)
        .add_service(reflection().build_v1()?)
        .add_service(reflection().build_v1alpha()?)
        .serve_with_incoming_shutdown(connections, stop.cancelled_owned())
        .await?;
    Ok(())
}

/// Whom a call is for, as found out before it came to its service.
fn identity(call: &tonic::Extensions) -> Arc<Identity> {
    call.get::<Arc<Identity>>()
        .cloned()
        .unwrap_or_else(Identity::anonymous)
}

/// Keeps health in step with the server's state.
async fn follow(reporter: HealthReporter, mut states: watch::Receiver<State>) {
    while states.changed().await.is_ok() {
        let state = *states.borrow_and_update();
        report(&reporter, state).await;
    }
}

async fn report(reporter: &HealthReporter, state: State) {
    let status = if state.is_ready() {
        ServingStatus::Serving
    } else {
        ServingStatus::NotServing
    };
    for service in SERVICES {
        reporter.set_service_status(service, status).await;
    }
}
