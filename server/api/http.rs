//! HTTP for machines that watch: `/metrics`, `/healthz`, `/readyz`.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{Request, StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use hyper::body::Incoming;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::CancellationToken;
use tower::Service;

use crate::api::connections::{Connections, Peer, Protocol};
use crate::api::{Shared, door};
use crate::error::Error;
use crate::memory;
use crate::metrics::Snapshot;
use crate::scheduler::Gauges;

/// Serves HTTP until `stop`.
///
/// # Errors
/// None: only `stop` ends it. As for gRPC, so that the caller can treat them alike.
pub async fn serve_http(
    listener: TcpListener,
    shared: Arc<Shared>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let router = Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(|| async { "alive\n" }))
        .route("/readyz", get(ready))
        .with_state(shared.clone());
    let connections = Connections {
        limits: shared.connections,
        metrics: shared.metrics.clone(),
        protocol: Protocol::Http,
    };
    let answer = move |call: Request<Incoming>, peer: &Peer| {
        let guarded = shared.access.guards_metrics() && call.uri().path() == "/metrics";
        let refused = match guarded {
            true => door::may_read_metrics(&shared.access, peer, call.headers()).err(),
            false => None,
        };
        let mut router = router.clone();
        async move {
            match refused {
                None => {
                    let Ok(answer) = router.call(call).await;
                    answer
                }
                Some(Error::PermissionDenied) => StatusCode::FORBIDDEN.into_response(),
                Some(Error::CallersUnknown) => StatusCode::SERVICE_UNAVAILABLE.into_response(),
                Some(_) => StatusCode::UNAUTHORIZED.into_response(),
            }
        }
    };
    let incoming = TcpListenerStream::new(listener);
    connections.serve(incoming, || None, answer, stop).await;
    Ok(())
}

async fn ready(State(shared): State<Arc<Shared>>) -> impl IntoResponse {
    let state = shared.status.state();
    let code = if state.is_ready() {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (code, format!("{}\n{}", state.as_str(), disks(&shared)))
}

/// What a disk in trouble costs, in a line each: who is ready serves without.
fn disks(shared: &Shared) -> String {
    let (embeddings, corpus) = (shared.embedder.disk(), shared.retrieval.disk());
    let away = [
        (embeddings.away, "embeddings are not cached"),
        (corpus.away, "the corpus takes no changes and is not quoted"),
    ];
    let lines = away.into_iter().filter(|(away, _)| *away);
    let lines = lines.map(|(_, cost)| format!("the disk fails or is full: {cost}\n"));
    lines.collect()
}

async fn metrics(State(shared): State<Arc<Shared>>) -> impl IntoResponse {
    let mut memory = vec![("cpu", memory::resident_bytes())];
    let empty = Gauges::new(0);
    let mut gauges = &empty;
    if let Some(explainer) = shared.status.loaded() {
        let model = &explainer.model;
        gauges = explainer.scheduler.gauges();
        memory.push(("weights", model.weights_bytes));
        memory.push(("kv_pool", model.kv_pool_bytes));
        if model.device.starts_with("cuda") {
            // What the server keeps on the device; libtorch's scratch space comes on top.
            memory.push(("gpu", model.weights_bytes + model.kv_pool_bytes));
        }
    }
    let embedder = &shared.embedder;
    (shared.metrics.embeddings).scrape(&embedder.cache_stats(), embedder.waiting());
    (shared.metrics.retrieval).scrape(&shared.retrieval.stats());
    let cache = &shared.cache.stats();
    let text = shared.metrics.render(&Snapshot {
        gauges,
        cache,
        phase: shared.status.phase(),
        memory: &memory,
    });
    (
        [(
            header::CONTENT_TYPE,
            "text/plain; version=0.0.4; charset=utf-8",
        )],
        text,
    )
}
