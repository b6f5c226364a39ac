//! HTTP for machines that watch: `/metrics`, `/healthz`, `/readyz`.
//!
//! On a thread and a runtime of its own, so that probes are answered when the threads that serve calls are busy, or hang,
//! which is what a probe asks. Nothing that an answer to a probe needs waits for anything: an atomic number, and a state
//! whose lock is held for a copy. Metrics take locks of everybody's; they are put together on one more thread, for one
//! scrape after the other.
//!
//! gRPC's health service is not here: who asks the port that serves calls wants to know whether that one answers.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use axum::extract::State;
use axum::http::{HeaderValue, Method, Request, StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use code_explainer_host::memory;
use code_explainer_scheduler::Gauges;
use hyper::body::{Body, Incoming};
use socket2::SockRef;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, oneshot};
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::CancellationToken;
use tower::Service;

use crate::api::connections::{Connections, Peer, Protocol};
use crate::api::limits::HTTP_SEND_BUFFER;
use crate::api::{Shared, door};
use crate::descriptors;
use crate::error::Error;
use crate::metrics::Snapshot;

/// What handlers share.
#[derive(Clone)]
struct Watched {
    shared: Arc<Shared>,
    /// One scrape after the other; those of clients that have gone leave the queue.
    turn: Arc<Semaphore>,
}

/// Serves HTTP until `stop`, on a thread of its own.
///
/// # Errors
/// There is no such thread to be had, or it panicked.
pub async fn serve_http(
    listener: TcpListener,
    shared: Arc<Shared>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let listener = listener.into_std().context("the listener")?;
    // Connections have it from their listener.
    (SockRef::from(&listener).set_send_buffer_size(HTTP_SEND_BUFFER)).context("the listener")?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(1)
        .build()
        .context("a runtime for probes")?;
    let (tell, told) = oneshot::channel();
    let serve = move || {
        let served = runtime.block_on(async {
            let listener = TcpListener::from_std(listener).context("the listener")?;
            serve_here(listener, shared, stop).await;
            anyhow::Ok(())
        });
        // A scrape that waits for a lock does not keep it.
        runtime.shutdown_background();
        let _ = tell.send(served);
    };
    let thread = std::thread::Builder::new().name("http".to_owned());
    thread.spawn(serve).context("a thread for probes")?;
    told.await.context("the thread for probes panicked")?
}

async fn serve_here(listener: TcpListener, shared: Arc<Shared>, stop: CancellationToken) {
    let router = Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(alive))
        .route("/readyz", get(ready))
        .with_state(Watched {
            shared: shared.clone(),
            turn: Arc::new(Semaphore::new(1)),
        });
    let limits = shared.connections.of_http();
    let connections = Connections::new(limits, shared.metrics.clone(), Protocol::Http);
    let answer = move |call: Request<Incoming>, peer: &Peer| {
        let plain = call.method() == Method::GET && call.body().is_end_stream();
        let guarded = shared.access.guards_metrics() && call.uri().path() == "/metrics";
        let refused = match guarded {
            true => door::may_read_metrics(&shared.access, peer, call.headers()).err(),
            false => None,
        };
        let mut router = router.clone();
        async move {
            let mut answer = match refused {
                None => {
                    let Ok(answer) = router.call(call).await;
                    answer
                }
                Some(Error::PermissionDenied(_)) => StatusCode::FORBIDDEN.into_response(),
                Some(Error::CallersUnknown) => StatusCode::SERVICE_UNAVAILABLE.into_response(),
                Some(_) => StatusCode::UNAUTHORIZED.into_response(),
            };
            // For a client that asks ahead and does not read, hyper makes the next answer when the last one has been sent.
            // That does not hold where a request's body ends after its answer was made, and answers without bodies would
            // then pile up: both are the last ones of their connection.
            if !plain || answer.body().is_end_stream() {
                let close = HeaderValue::from_static("close");
                answer.headers_mut().insert(header::CONNECTION, close);
            }
            answer
        }
    };
    let incoming = TcpListenerStream::new(listener);
    connections.serve(incoming, || None, answer, stop).await;
}

/// Whether it is of use to let the process live.
async fn alive(State(watched): State<Watched>) -> impl IntoResponse {
    match watched.shared.heartbeat.hangs() {
        None => (StatusCode::OK, "alive\n".to_owned()),
        Some(time) => (StatusCode::SERVICE_UNAVAILABLE, hangs(time)),
    }
}

fn hangs(time: Duration) -> String {
    format!(
        "the threads that serve calls have not moved for {} s\n",
        time.as_secs()
    )
}

async fn ready(State(watched): State<Watched>) -> impl IntoResponse {
    if let Some(time) = watched.shared.heartbeat.hangs() {
        return (StatusCode::SERVICE_UNAVAILABLE, hangs(time));
    }
    let state = watched.shared.status.state();
    let code = if state.is_ready() {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (
        code,
        format!("{}\n{}", state.as_str(), disks(&watched.shared)),
    )
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

async fn metrics(State(watched): State<Watched>) -> impl IntoResponse {
    let Watched { shared, turn } = watched;
    let Ok(turn) = turn.acquire_owned().await else {
        return Err(StatusCode::SERVICE_UNAVAILABLE);
    };
    let rendered = tokio::task::spawn_blocking(move || {
        let text = render(&shared);
        drop(turn);
        text
    });
    let text = (rendered.await).map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
    Ok((
        [(
            header::CONTENT_TYPE,
            "text/plain; version=0.0.4; charset=utf-8",
        )],
        text,
    ))
}

fn render(shared: &Shared) -> String {
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
    (shared.metrics.access).descriptors(descriptors::open(), descriptors::limit());
    let cache = &shared.cache.stats();
    shared.metrics.render(&Snapshot {
        gauges,
        cache,
        phase: shared.status.phase(),
        memory: &memory,
    })
}
