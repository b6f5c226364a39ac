//! Probes are answered whatever clients do, and whatever hangs: that is what they ask.

use std::sync::mpsc;
use std::time::Duration;

use code_explainer::config::Config;
use tokio::io::AsyncWriteExt;

use crate::common::server::{TestServer, http_get, metric};
use crate::common::sockets::{connect_from, until_closed};

/// From one question to the next.
const BETWEEN: Duration = Duration::from_millis(20);

/// Blocks every thread of a runtime that has so many. Dropped, it lets them go.
struct Blocked {
    _go: Vec<mpsc::Sender<()>>,
}

impl Blocked {
    fn all(runtime: &tokio::runtime::Runtime, threads: usize) -> Self {
        let (tell, told) = mpsc::channel();
        let block = |_| {
            let (tell, (go, wait)) = (tell.clone(), mpsc::channel::<()>());
            runtime.spawn(async move {
                tell.send(()).expect("the test waits");
                let _ = wait.recv();
            });
            // Before the next one, so that no thread has two.
            told.recv().expect("a thread is left");
            go
        };
        Self {
            _go: (0..threads).map(block).collect(),
        }
    }
}

#[test]
fn they_are_answered_while_every_thread_that_serves_calls_is_blocked() {
    const THREADS: usize = 2;
    let serving = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(THREADS)
        .enable_all()
        .build()
        .expect("a runtime");
    let asking = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let start = async { TestServer::fake(&["--hang-timeout", "3s"]).await };
    let (server, _control) = serving.block_on(start);
    let healthz = || asking.block_on(http_get(server.http, "/healthz"));
    assert_eq!(healthz(), (200, "alive\n".into()));

    let blocked = Blocked::all(&serving, THREADS);
    // It has not been told yet, and then it is; both by a server none of whose other threads moves.
    let told = loop {
        let (status, body) = healthz();
        if status != 200 {
            break (status, body);
        }
        assert_eq!(body, "alive\n");
        // Each question is a connection, and takes a port for a while.
        std::thread::sleep(BETWEEN);
    };
    assert_eq!(told.0, 503);
    assert!(told.1.contains("have not moved"), "{}", told.1);
    let ready = asking.block_on(http_get(server.http, "/readyz"));
    assert_eq!(ready.0, 503, "{}", ready.1);
    let open = "code_explainer_connections_open{protocol=\"http\"}";
    assert!(asking.block_on(metric(server.http, open)).is_some());

    drop(blocked);
    while healthz().0 != 200 {
        std::thread::sleep(BETWEEN);
    }
    assert_eq!(asking.block_on(http_get(server.http, "/readyz")).0, 200);
}

#[tokio::test]
async fn silent_http_connections_make_room_for_them() {
    let (server, _) = TestServer::fake(&["--http-connections", "4"]).await;
    let mut held = Vec::new();
    for i in 0..60 {
        let mut silent = connect_from(1 + i % 3, server.http).await;
        if i % 2 == 0 {
            let begun = silent.write_all(b"GET /healthz HTTP/1.1\r\nHost:").await;
            begun.expect("sent");
        }
        held.push(silent);
        if i % 10 == 0 {
            assert_eq!(server.get("/healthz").await, (200, "alive\n".into()));
            assert_eq!(server.get("/readyz").await.0, 200);
        }
    }
    // The first ones were closed for the others, without a wait for their time.
    assert_eq!(until_closed(&mut held[0]).await, 0);
    let displaced =
        "code_explainer_connections_closed_total{protocol=\"http\",reason=\"displaced\"}";
    // All but the last few.
    while server.metric(displaced).await < Some(56.0) {
        tokio::task::yield_now().await;
    }
}

#[test]
fn a_time_to_hang_that_a_busy_machine_needs_is_refused() {
    let config: Config = crate::common::server::config(&["--hang-timeout", "0s"]);
    assert_eq!(config.hang_timeout, None);
    let args = ["server", "serve", "--hang-timeout", "1ms"].map(Into::into);
    let refused = code_explainer::config::Command::from_args(args);
    assert!(refused.is_err_and(|error| error.to_string().contains("--hang-timeout")));
}
