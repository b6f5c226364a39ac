//! HTTP for machines that watch: `/metrics`, `/healthz`, `/readyz`.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::api::Shared;
use crate::memory;
use crate::metrics::Snapshot;
use crate::scheduler::Gauges;

/// Serves HTTP until `stop`.
///
/// # Errors
/// The listener fails.
pub async fn serve_http(
    listener: TcpListener,
    shared: Arc<Shared>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let router = Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(|| async { "alive\n" }))
        .route("/readyz", get(ready))
        .with_state(shared);
    axum::serve(listener, router)
        .with_graceful_shutdown(stop.cancelled_owned())
        .await?;
    Ok(())
}

async fn ready(State(shared): State<Arc<Shared>>) -> impl IntoResponse {
    let state = shared.status.state();
    let code = if state.is_ready() {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (code, format!("{}\n", state.as_str()))
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
