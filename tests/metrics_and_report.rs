//! What the server counts, as Prometheus and as the performance report show it.

use code_explainer_client::proto::GetPerformanceReportRequest;
use code_explainer_client::proto::admin_service_client::AdminServiceClient;

use crate::common::server::TestServer;
use crate::common::stream::{TestStream, item};

async fn three_items(server: &TestServer) {
    let mut stream = TestStream::open(server).await;
    stream.explain(item("a", "x = 1")).await;
    stream.explain(item("b", "def f(): pass")).await;
    let mut bad = item("c", "x");
    bad.strategy = "none".into();
    stream.explain(bad).await;
    let mut outlined = item("d", "def g(): return g()");
    outlined.strategy = "ast_augmented".into();
    stream.explain(outlined).await;
    stream.collect(4).await;
    // The same again comes from the cache.
    stream.explain(item("again", "x = 1")).await;
    stream.collect(1).await;
}

#[tokio::test]
async fn prometheus_gets_the_seeds_metrics_and_ours() {
    let (server, _) = TestServer::fake(&[]).await;
    three_items(&server).await;
    let duration = "explanation_duration_seconds_count";
    assert_eq!(
        server
            .metric(&format!("{duration}{{strategy=\"vanilla\"}}"))
            .await,
        Some(3.0)
    );
    assert_eq!(
        server
            .metric(&format!("{duration}{{strategy=\"ast_augmented\"}}"))
            .await,
        Some(1.0)
    );
    assert_eq!(server.metric("cache_hit_ratio").await, Some(0.25));
    assert!(
        server
            .metric("memory_usage_mb{type=\"cpu\"}")
            .await
            .expect("it")
            > 1.0
    );
    assert_eq!(
        server
            .metric("code_explainer_items_total{outcome=\"done\"}")
            .await,
        Some(4.0)
    );
    assert_eq!(
        server
            .metric("code_explainer_items_total{outcome=\"failed\"}")
            .await,
        Some(1.0)
    );
    let generated = "code_explainer_tokens_total{kind=\"generated\"}";
    assert_eq!(server.metric(generated).await, Some(48.0));
    assert_eq!(
        server
            .metric("code_explainer_cache_lookups_total{result=\"memory\"}")
            .await,
        Some(1.0)
    );
    server
        .until_metric("code_explainer_kv_blocks{state=\"used\"}", 0.0)
        .await;
    assert_eq!(
        server
            .metric("code_explainer_kv_blocks{state=\"total\"}")
            .await,
        Some(512.0)
    );
}

#[tokio::test]
async fn nothing_that_a_client_sent_becomes_a_label() {
    let (server, _) = TestServer::fake(&[]).await;
    let mut stream = TestStream::open(&server).await;
    let mut hostile = item("evil-id", "secret_code()");
    hostile.language = "klingon".into();
    stream.explain(hostile).await;
    let mut refused = item("evil-two", "x");
    refused.strategy = "evil-strategy".into();
    stream.explain(refused).await;
    stream.collect(2).await;
    let (_, text) = server.get("/metrics").await;
    for sent in ["evil", "klingon", "secret_code"] {
        assert!(!text.contains(sent), "{sent} is in the metrics");
    }
}

#[tokio::test]
async fn the_report_has_the_seeds_sections() {
    let (server, _) = TestServer::fake(&["--batch-size", "8"]).await;
    three_items(&server).await;
    let mut admin = AdminServiceClient::new(server.channel().await);
    let report = admin
        .get_performance_report(GetPerformanceReportRequest {})
        .await;
    let report = report.expect("a report").into_inner();
    let requests = report.requests.expect("requests");
    assert_eq!(
        (requests.total, requests.answered, requests.failed),
        (5, 4, 1)
    );
    assert!((requests.error_ratio - 0.2).abs() < 1e-9);
    assert!(requests.p50_ms > 0.0 && requests.p50_ms <= requests.p95_ms);
    assert!(requests.p95_ms <= requests.p99_ms);
    let cache = report.cache.expect("cache");
    assert_eq!(
        (cache.memory_hits, cache.misses, cache.redis_configured),
        (1, 3, false)
    );
    let batches = report.batches.expect("batches");
    assert_eq!((batches.max_size, batches.generated_tokens), (8, 48));
    assert!((batches.efficiency - batches.mean_size / 8.0).abs() < 1e-9);
    let memory = report.memory.expect("memory");
    assert!(memory.resident_bytes > 0 && memory.resident_bytes < memory.total_bytes);
    assert_eq!(report.model.expect("model").device, "cpu");
    assert!(report.uptime_seconds > 0.0);
}
