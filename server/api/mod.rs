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
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use crate::cache::Cache;
use crate::config::StreamOptions;
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
    pub started: std::time::Instant,
}

/// Serves gRPC until `stop`, then ends the connections as they fall idle.
///
/// # Errors
/// The reflection service cannot read its own descriptors, or the listener fails.
pub async fn serve_grpc(
    listener: TcpListener,
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
    // The builder's own setting does not reach a listener that it was given: with Nagle's algorithm on, small messages wait
    // for the client's delayed acknowledgements, 40 ms each.
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
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
        .serve_with_incoming_shutdown(incoming, stop.cancelled_owned())
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
