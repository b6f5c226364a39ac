//! `Embed` over gRPC with the real model: order, bounds, errors by field, the cache, and a server without a model.

use code_explainer_client::proto::{EmbedRequest, EmbedResponse};
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::common::minilm::{apart, flags};
use crate::common::server::TestServer;

async fn server(more: &[&str]) -> TestServer {
    let model = flags();
    let mut all: Vec<&str> = model.iter().map(String::as_str).collect();
    all.extend(more);
    TestServer::fake(&all).await.0
}

async fn embed(server: &TestServer, texts: &[&str]) -> Result<EmbedResponse, Status> {
    let request = EmbedRequest {
        texts: texts.iter().map(ToString::to_string).collect(),
    };
    let answer = server.client().await.embed(request).await;
    answer.map(tonic::Response::into_inner)
}

#[tokio::test]
async fn every_text_gets_its_vector_in_order() {
    let server = server(&[]).await;
    let many: Vec<String> = (0..70)
        .map(|n| format!("text {} {}", n, "word ".repeat(n)))
        .collect();
    let texts: Vec<&str> = many.iter().map(String::as_str).collect();
    let answer = embed(&server, &texts).await.expect("vectors");
    assert_eq!((answer.dimensions, answer.embeddings.len()), (384, 70));
    assert!(answer.model.contains("MiniLM"), "{}", answer.model);
    for at in [0, 35, 69] {
        let alone = embed(&server, &[&format!("{} ", texts[at])])
            .await
            .expect("a vector");
        let apart = apart(&alone.embeddings[0].values, &answer.embeddings[at].values);
        assert!(apart < 1e-5, "{at}: {apart:e}");
        assert_eq!(alone.embeddings[0].tokens, answer.embeddings[at].tokens);
    }
    assert!(answer.embeddings.iter().all(|e| !e.truncated && !e.cached));
    let long = embed(&server, &[&"many words ".repeat(500)])
        .await
        .expect("a vector");
    assert!(long.embeddings[0].truncated);
    assert_eq!(long.embeddings[0].tokens, 256);
}

#[tokio::test]
async fn equal_texts_are_computed_once_and_found_later() {
    let server = server(&[]).await;
    let first = embed(&server, &["one", "two", "one"])
        .await
        .expect("vectors");
    assert_eq!(first.embeddings[0].values, first.embeddings[2].values);
    server
        .until_metric("code_explainer_embedding_cache_entries", 2.0)
        .await;
    let again = embed(&server, &["two", "three", "one"])
        .await
        .expect("vectors");
    let cached: Vec<bool> = again.embeddings.iter().map(|e| e.cached).collect();
    assert_eq!(cached, [true, false, true]);
    assert_eq!(again.embeddings[0].values, first.embeddings[1].values);
    assert_eq!(again.embeddings[2].values, first.embeddings[0].values);
    assert_eq!(again.embeddings[2].tokens, first.embeddings[0].tokens);
    for (source, count) in [("cache", 2.0), ("model", 4.0)] {
        let name = format!("code_explainer_embedding_texts_total{{source=\"{source}\"}}");
        assert_eq!(server.metric(&name).await, Some(count), "{name}");
    }
}

#[tokio::test]
async fn texts_at_fault_are_named_by_their_place() {
    let server = server(&["--max-code-bytes", "10", "--embedding-texts", "4"]).await;
    let check = async |texts: &[&str], fields: &[&str]| {
        let status = embed(&server, texts).await.expect_err("refused");
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
        let details = status.get_details_bad_request().expect("bad request");
        let named: Vec<_> = details
            .field_violations
            .iter()
            .map(|v| v.field.as_str())
            .collect();
        assert_eq!(named, fields, "{status}");
    };
    check(&[], &["texts"]).await;
    check(&["a", "b", "c", "d", "e"], &["texts"]).await;
    check(&["good", " \n", "eleven char"], &["texts[1]", "texts[2]"]).await;
    embed(&server, &["0123456789"])
        .await
        .expect("the server goes on");
}

#[tokio::test]
async fn a_server_without_a_model_says_so_and_explains_all_the_same() {
    let missing = TestServer::fake(&["--embedding-model", "/no/such/model"])
        .await
        .0;
    let off = server(&["--embeddings", "off"]).await;
    for (server, expected) in [(missing, "cannot be loaded"), (off, "are off")] {
        let status = embed(&server, &["text"]).await.expect_err("refused");
        assert_eq!(status.code(), Code::FailedPrecondition);
        assert!(status.message().contains(expected), "{status}");
        assert!(!status.message().contains("/no/such"), "{status}");
        server.ready().await;
    }
}
