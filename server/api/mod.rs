//! Transport: gRPC and HTTP. Wire types in, streams out; what happens in between is elsewhere.
//!
//! - `connections`: accepted, bounded, encrypted, closed. `door`: whose a call is, and whether they may make it.
//! - `explain`: the bidirectional stream and the single call.
//! - `embed`: vectors of texts.
//! - `convert`: events to wire types.
//! - `model`, `admin`: what is served, and how it fares.
//! - [`inference`]: the same explanations by the Open Inference Protocol.
//! - [`http`]: metrics and probes.

mod admin;
mod connections;
mod convert;
mod door;
mod embed;
mod explain;
pub mod http;
pub mod inference;
mod model;

use std::sync::Arc;
use std::time::Duration;

pub use connections::ConnectionLimits;

use axum::http::Request;
use axum::serve::{Listener, ListenerExt};
use hyper::body::Incoming;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::service::Routes;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use connections::{Connections, Peer, Protocol};
use tower::Service;

use crate::access::Access;
use crate::cache::Cache;
use crate::embed::Embedder;
use crate::error::Error;
use crate::identity::Identity;
use crate::metrics::Metrics;
use crate::proto;
use crate::proto::admin_service_server::AdminServiceServer;
use crate::proto::explain_service_server::ExplainServiceServer;
use crate::proto::inference::grpc_inference_service_server::GrpcInferenceServiceServer;
use crate::proto::model_service_server::ModelServiceServer;
use crate::request::RequestLimits;
use crate::status::{ServerStatus, State};

/// Services whose health is told, and the server as a whole.
const SERVICES: [&str; 5] = [
    "",
    "codeexplainer.v1.ExplainService",
    "codeexplainer.v1.ModelService",
    "codeexplainer.v1.AdminService",
    "inference.GRPCInferenceService",
];

/// What the services share.
pub struct Shared {
    /// Phase, model and running items.
    pub status: ServerStatus,
    /// Who may call.
    pub access: Arc<Access>,
    /// What connections may take.
    pub connections: ConnectionLimits,
    /// The largest message, in bytes.
    pub message_bytes: usize,
    /// What a request may ask for.
    pub request: RequestLimits,
    /// Items in flight on a stream at most.
    pub stream_items: usize,
    /// An item that finds no room for its next event for as long as this is shed.
    pub slow_reader_timeout: Duration,
    /// This server's name.
    pub replica: Arc<str>,
    /// The explanation cache.
    pub cache: Arc<Cache>,
    /// The way to the embedding model.
    pub embedder: Arc<Embedder>,
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
/// The reflection service cannot read its own descriptors.
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
    let bytes = shared.message_bytes;
    let mut routes = Routes::builder();
    routes
        .add_service(
            ExplainServiceServer::new(explain::ExplainApi::new(shared.clone()))
                .max_decoding_message_size(bytes),
        )
        .add_service(
            ModelServiceServer::new(model::ModelApi::new(shared.clone()))
                .max_decoding_message_size(bytes),
        )
        .add_service(
            AdminServiceServer::new(admin::AdminApi::new(shared.clone()))
                .max_decoding_message_size(bytes),
        )
        .add_service(
            GrpcInferenceServiceServer::new(inference::InferenceApi::new(shared.clone()))
                .max_decoding_message_size(bytes),
        )
        .add_service(health)
        .add_service(reflection().build_v1()?)
        .add_service(reflection().build_v1alpha()?);
    let routes = routes.routes().prepare();
    let connections = Connections {
        limits: shared.connections,
        metrics: shared.metrics.clone(),
        protocol: Protocol::Grpc,
    };
    let access = shared.access.clone();
    let tls = move || access.tls().map(|tls| tls.grpc.clone());
    let answer = move |mut call: Request<Incoming>, peer: &Peer| {
        let admitted = door::admit(&shared.access, &shared.metrics, peer, &mut call);
        let mut routes = routes.clone();
        async move {
            match admitted {
                Ok(()) => {
                    let Ok(answer) = routes.call(call.map(Body::new)).await;
                    answer
                }
                Err(status) => status.into_http(),
            }
        }
    };
    connections
        .serve(undelayed(listener), tls, answer, stop)
        .await;
    Ok(())
}

/// A token goes out when it is there, not when a packet is full.
fn undelayed(listener: TcpListener) -> impl Listener {
    listener.tap_io(|io| {
        // Where it fails the connection is gone, which reading it tells.
        let _ = io.set_nodelay(true);
    })
}

/// Whom a call is for, as found out before it came to its service.
///
/// # Errors
/// [`Error::Unauthenticated`]: it came in by another way than the door.
fn identity(call: &tonic::Extensions) -> Result<Arc<Identity>, Error> {
    call.get().cloned().ok_or(Error::Unauthenticated)
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
