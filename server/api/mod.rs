//! Transport: gRPC and HTTP. Wire types in, streams out; what happens in between is elsewhere.
//!
//! - `connections`: accepted, encrypted, closed; `limits`: of what; `places`: how many, and who makes room; `calls`: on each;
//!   `patience`: how much of it may be in vain, by `origin`; `io`: how their clients leave; `write_timeout`: when they do not
//!   read; `leftover`: what they still send.
//! - `door`: whose a call is, and whether they may make it; `local`: whether it is of this machine; `withdrawal`: until when. `caller`: what it brings along.
//! - `reception`: what a call's client may send. `methods`: how much that is; `body`: as it comes; `budget`: who pays for
//!   the room that it takes; `refusal`: why no more of it is read; `inbound`: the messages of a stream. `lobby`: calls that
//!   need no credentials. `ending`: answers that end before they are through.
//! - `explain`: the single call, and the door to the bidirectional `stream`.
//! - `embed`: vectors of texts.
//! - `convert`: events to wire types. `codec`: bytes to messages, within the `bounds` of what these may repeat; `unreadable`: items that are none.
//! - `model`, `admin`: what is served, and how it fares; `admin_cache`, `admin_clear`, `admin_warm`: the caches.
//! - `corpus`: the operator's documents.
//! - [`inference`]: the same explanations by the Open Inference Protocol.
//! - [`http`]: metrics and probes.

mod admin;
mod admin_cache;
mod admin_clear;
mod admin_warm;
mod body;
mod bounds;
mod budget;
mod caller;
mod calls;
pub(crate) mod codec;
mod connections;
mod convert;
mod corpus;
mod door;
mod embed;
mod ending;
mod explain;
pub mod http;
mod inbound;
pub mod inference;
mod io;
mod leftover;
mod limits;
mod lobby;
mod local;
mod methods;
mod model;
mod no_connection;
mod origin;
mod packed;
mod patience;
mod places;
mod reception;
mod refusal;
mod stream;
mod unreadable;
mod withdrawal;
mod write_timeout;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

pub use limits::ConnectionLimits;
pub(crate) use places::CLOSING;
pub use reception::RequestBytes;

use anyhow::Context;
use axum::http::Request;
use code_explainer_cache::Cache;
use hyper::body::Incoming;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_stream::Stream;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::codec::CompressionEncoding;
use tonic::service::Routes;
use tonic::transport::server::TcpIncoming;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;
use tower::Service;

use crate::access::Access;
use crate::config::{Config, StreamOptions};
use crate::embed::Embedder;
use crate::explain::WaitingEvents;
use crate::heartbeat::Heartbeat;
use crate::metrics::Metrics;
use crate::proto;
use crate::proto::admin_service_server::AdminServiceServer;
use crate::proto::explain_service_server::ExplainServiceServer;
use crate::proto::inference::grpc_inference_service_server::GrpcInferenceServiceServer;
use crate::proto::model_service_server::ModelServiceServer;
use crate::request::RequestLimits;
use crate::retrieval::Retrieval;
use crate::session::Sessions;
use crate::status::{ServerStatus, State};
use connections::{Connections, Peer, Protocol};
use ending::until;
use leftover::ReadToEnd;
use reception::Reception;
use withdrawal::until_withdrawn;

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
    /// What requests may take until they are received.
    pub request_bytes: RequestBytes,
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
    /// Events that wait to be read.
    pub events: WaitingEvents,
    /// Mixed into the embedding cache's keys.
    pub cache_secret: Arc<str>,
    /// Where to count.
    pub metrics: Arc<Metrics>,
    /// Whether the threads that serve calls move.
    pub heartbeat: Arc<Heartbeat>,
    /// When the server started.
    pub started: Instant,
}

impl Shared {
    /// Of a server of this configuration that has not begun yet.
    ///
    /// # Errors
    /// The files that say who may call are of no use, or the configured cache cannot be made.
    pub fn new(config: &Config) -> anyhow::Result<Arc<Self>> {
        let metrics = Arc::new(Metrics::new().context("the metrics")?);
        let embedder = Arc::new(Embedder::new(config.embed.clone(), metrics.clone()));
        let retrieval = Retrieval::new(config.retrieval.clone(), embedder.clone(), metrics.clone());
        Ok(Arc::new(Self {
            status: ServerStatus::new(),
            access: Arc::new(Access::open(&config.access)?),
            connections: config.connections,
            request_bytes: config.request_bytes,
            request: config.request,
            stream_items: config.stream_items,
            stream: config.stream.clone(),
            sessions: Sessions::new(config.stream.resume),
            replica: config.replica.as_str().into(),
            cache: Arc::new(Cache::new(config.cache.clone()).context("the cache")?),
            embedder,
            retrieval: Arc::new(retrieval),
            events: WaitingEvents::default(),
            cache_secret: config.cache_secret.0.as_str().into(),
            metrics,
            heartbeat: Arc::new(Heartbeat::new(config.hang_timeout)),
            started: Instant::now(),
        }))
    }
}

/// A connection that gRPC can be spoken on.
pub trait Connection: AsyncRead + AsyncWrite + Unpin + Send + 'static {
    /// Where it comes from; `None`: connections are not counted by that.
    fn address(&self) -> Option<IpAddr>;
}

impl Connection for TcpStream {
    fn address(&self) -> Option<IpAddr> {
        // A client that has hung up has no address any more.
        self.peer_addr().ok().map(|address| address.ip())
    }
}

/// The connections of a listener.
pub fn connections(
    listener: TcpListener,
) -> impl Stream<Item = std::io::Result<impl Connection + use<>>> + use<> {
    // With Nagle's algorithm on, small messages wait for the client's delayed acknowledgements, 40 ms each.
    TcpIncoming::from(listener).with_nodelay(Some(true))
}

/// Serves gRPC on connections as they come, until `stop`, then ends them as they fall idle.
///
/// # Errors
/// The reflection service cannot read its own descriptors.
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
    let bytes = shared.request_bytes.message;
    let mut routes = Routes::builder();
    routes
        .add_service(
            ExplainServiceServer::new(explain::ExplainApi::new(shared.clone()))
                .max_decoding_message_size(bytes)
                .accept_compressed(CompressionEncoding::Gzip)
                .send_compressed(CompressionEncoding::Gzip),
        )
        .add_service(
            ModelServiceServer::new(model::ModelApi::new(shared.clone()))
                .max_decoding_message_size(bytes)
                .accept_compressed(CompressionEncoding::Gzip)
                .send_compressed(CompressionEncoding::Gzip),
        )
        .add_service(
            AdminServiceServer::new(admin::AdminApi::new(shared.clone()))
                .max_decoding_message_size(bytes)
                .accept_compressed(CompressionEncoding::Gzip)
                .send_compressed(CompressionEncoding::Gzip),
        )
        .add_service(
            GrpcInferenceServiceServer::new(inference::InferenceApi::new(shared.clone()))
                .max_decoding_message_size(bytes)
                .accept_compressed(CompressionEncoding::Gzip)
                .send_compressed(CompressionEncoding::Gzip),
        )
        .add_service(health)
        .add_service(reflection().build_v1()?)
        .add_service(reflection().build_v1alpha()?);
    let routes = routes.routes().prepare();
    let served = Connections::new(shared.connections, shared.metrics.clone(), Protocol::Grpc);
    let access = shared.access.clone();
    let tls = move || access.handshake();
    let reception = Reception::new(shared.request_bytes, shared.metrics.clone());
    let reception = Arc::new(reception);
    let answer = move |call: Request<Incoming>, peer: &Peer| {
        let mut call = call.map(ReadToEnd::new);
        let admitted = door::admit(&shared.access, &shared.metrics, peer, &mut call);
        if let Ok(Some(_)) = &admitted {
            peer.is_known();
        }
        let received = admitted.and_then(|caller| {
            let received = reception.receive(call, caller.as_deref(), peer)?;
            Ok((caller, received))
        });
        let mut routes = routes.clone();
        async move {
            match received {
                Ok((caller, received)) => {
                    let answer = async {
                        let Ok(answer) = routes.call(received.call.map(Body::new)).await;
                        answer
                    };
                    match received.ended {
                        None => until_withdrawn(caller, answer).await,
                        Some(ended) => until(ended, answer).await,
                    }
                }
                Err(status) => status.into_http(),
            }
        }
    };
    served.serve(connections, tls, answer, stop).await;
    Ok(())
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
