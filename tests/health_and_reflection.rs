//! The server tells what it is and how it fares, from its first moment.

use code_explainer_client::proto::GetModelRequest;
use code_explainer_client::proto::model_service_client::ModelServiceClient;
use std::sync::mpsc;
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::{v1, v1alpha};

use crate::common::server::TestServer;
use crate::common::smollm;
use crate::common::stream::{TestStream, is_last, item};
use code_explainer_client::proto::explain_stream_response::Event;
use code_explainer_engine::fake::FakeBackend;

async fn health(server: &TestServer, service: &str) -> Result<ServingStatus, tonic::Status> {
    let mut client = HealthClient::new(server.channel().await);
    let request = HealthCheckRequest {
        service: service.into(),
    };
    client.check(request).await.map(|r| r.into_inner().status())
}

const EXPLAIN: &str = "codeexplainer.v1.ExplainService";

#[tokio::test]
async fn it_is_not_serving_until_the_model_has_run() {
    let (go, wait) = mpsc::channel::<()>();
    let server = TestServer::loading(&[], move || {
        let _ = wait.recv();
        let vocabulary = smollm::text().vocabulary_size();
        Ok(Box::new(FakeBackend::new(vocabulary, 2048, 64, 16).0))
    })
    .await;
    assert_eq!(
        health(&server, EXPLAIN).await.expect("known"),
        ServingStatus::NotServing
    );
    assert_eq!(server.get("/healthz").await, (200, "alive\n".into()));
    assert_eq!(server.get("/readyz").await.0, 503);
    let mut stream = TestStream::open(&server).await;
    stream.explain(item("early", "x = 1")).await;
    let Event::Error(error) = stream.wait_for("early", is_last).await else {
        panic!("refused")
    };
    assert_eq!(Code::from(error.code), Code::Unavailable);
    assert!(error.retryable);
    go.send(()).expect("it waits");
    server.ready().await;
    // Health is told after the phase, by a task of its own.
    while health(&server, EXPLAIN).await.expect("known") != ServingStatus::Serving {
        tokio::task::yield_now().await;
    }
    stream.explain(item("later", "x = 1")).await;
    let Event::Done(_) = stream.wait_for("later", is_last).await else {
        panic!("answered")
    };
}

#[tokio::test]
async fn an_unknown_service_has_no_health() {
    let (server, _) = TestServer::fake(&[]).await;
    let status = health(&server, "nonsense").await.expect_err("unknown");
    assert_eq!(status.code(), Code::NotFound);
}

/// Both versions of the protocol have the same shape under different names.
macro_rules! reflected_services {
    ($version:ident, $server:expr) => {{
        use $version::server_reflection_client::ServerReflectionClient;
        use $version::server_reflection_request::MessageRequest;
        use $version::server_reflection_response::MessageResponse;
        let request = $version::ServerReflectionRequest {
            host: String::new(),
            message_request: Some(MessageRequest::ListServices(String::new())),
        };
        let mut client = ServerReflectionClient::new($server.channel().await);
        let responses = client
            .server_reflection_info(tokio_stream::iter([request]))
            .await;
        let response = responses
            .expect("answers")
            .into_inner()
            .message()
            .await
            .expect("one");
        match response
            .and_then(|r| r.message_response)
            .expect("a message")
        {
            MessageResponse::ListServicesResponse(list) => {
                list.service.into_iter().map(|s| s.name).collect::<Vec<_>>()
            }
            other => panic!("{other:?}"),
        }
    }};
}

#[tokio::test]
async fn reflection_lists_the_services_in_both_versions() {
    let (server, _) = TestServer::fake(&[]).await;
    for services in [
        reflected_services!(v1, server),
        reflected_services!(v1alpha, server),
    ] {
        for wanted in [
            EXPLAIN,
            "codeexplainer.v1.ModelService",
            "codeexplainer.v1.AdminService",
            "grpc.health.v1.Health",
        ] {
            assert!(
                services.iter().any(|s| s == wanted),
                "{wanted} is not in {services:?}"
            );
        }
    }
}

#[tokio::test]
async fn the_model_and_its_limits_are_told() {
    let (server, _) = TestServer::fake(&["--batch-size", "9", "--max-new-tokens", "333"]).await;
    let mut client = ModelServiceClient::new(server.channel().await);
    let model = client
        .get_model(GetModelRequest {})
        .await
        .expect("a model")
        .into_inner();
    assert_eq!((model.name.as_str(), model.context_length), ("fake", 2048));
    assert_eq!(
        model.strategies,
        ["vanilla", "ast_augmented", "retrieval_augmented"]
    );
    let limits = model.limits.expect("limits");
    assert_eq!((limits.batch_size, limits.max_new_tokens), (9, 333));
    assert_eq!(limits.kv_cache_tokens, 512 * 16);
}
