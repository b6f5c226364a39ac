//! Clients in other languages, with nothing but their gRPC library and the project's proto.

use std::process::Command;

use crate::common::programs::{node, output, python, root};
use crate::common::server::TestServer;

async fn run(mut command: Command) {
    let output = tokio::task::spawn_blocking(move || output(&mut command))
        .await
        .expect("it ran");
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(output.status.success(), "{out}\n{err}");
}

#[tokio::test]
async fn python_gets_fifteen_answers_and_one_cancellation_on_one_stream() {
    let server = TestServer::real().await;
    let mut command = Command::new(python());
    command.arg(root().join("tests/clients/python/acceptance.py"));
    command
        .arg(server.grpc.to_string())
        .arg(root().join("proto"));
    run(command).await;
}

#[tokio::test]
async fn node_gets_its_answers_on_one_stream() {
    let server = TestServer::real().await;
    let mut command = Command::new(node());
    command.arg(root().join("tests/clients/node/acceptance.js"));
    command
        .arg(server.grpc.to_string())
        .arg(root().join("proto"));
    run(command).await;
}

#[tokio::test]
async fn the_public_triton_client_streams_eight_answers_unchanged() {
    let server = TestServer::real().await;
    let mut command = Command::new(python());
    command.arg(root().join("tests/clients/python/triton.py"));
    command.arg(server.grpc.to_string());
    run(command).await;
}
