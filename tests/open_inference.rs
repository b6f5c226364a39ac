//! The Open Inference Protocol on streams, where clients do what the public client does not: share ids, give none, send
//! more than they may.

use std::collections::HashMap;

use code_explainer::proto::inference::infer_parameter::ParameterChoice as Value;
use code_explainer::proto::inference::model_infer_request::InferInputTensor;
use code_explainer::proto::inference::{
    InferParameter, ModelInferRequest, ModelInferResponse, ModelStreamInferResponse,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::{Code, Request, Status, Streaming};
use tonic_prost::ProstCodec;

use crate::common::server::TestServer;

const STREAM: &str = "/inference.GRPCInferenceService/ModelStreamInfer";
const SINGLE: &str = "/inference.GRPCInferenceService/ModelInfer";

/// A stream of requests and responses.
struct Tensors {
    requests: mpsc::Sender<ModelInferRequest>,
    responses: Streaming<ModelStreamInferResponse>,
}

impl Tensors {
    async fn open(server: &TestServer) -> Self {
        let (requests, receiver) = mpsc::channel(64);
        let mut grpc = tonic::client::Grpc::new(server.channel().await);
        grpc.ready().await.expect("connected");
        let codec = ProstCodec::<ModelInferRequest, ModelStreamInferResponse>::default();
        let request = Request::new(ReceiverStream::new(receiver));
        let path = PathAndQuery::from_static(STREAM);
        let responses = grpc
            .streaming(request, path, codec)
            .await
            .expect("a stream");
        Self {
            requests,
            responses: responses.into_inner(),
        }
    }

    async fn ask(&self, request: ModelInferRequest) {
        self.requests.send(request).await.expect("it reads");
    }

    /// Responses until so many requests have had their last one, by id in the order of their ends.
    async fn collect(&mut self, requests: usize) -> Vec<(String, Outcome)> {
        let mut texts: HashMap<String, String> = HashMap::new();
        let mut ended = Vec::new();
        while ended.len() < requests {
            let response = self.responses.message().await.expect("no failure");
            let response = response.expect("more to come");
            let answer = response.infer_response.expect("with its id");
            if !response.error_message.is_empty() {
                assert!(is_final(&answer), "an error is the last response");
                ended.push((answer.id, Outcome::Failed(response.error_message)));
            } else if is_final(&answer) {
                let text = texts.remove(&answer.id).unwrap_or_default();
                ended.push((answer.id, Outcome::Text(text)));
            } else {
                texts
                    .entry(answer.id.clone())
                    .or_default()
                    .push_str(&text(&answer));
            }
        }
        ended
    }
}

#[derive(Debug, PartialEq)]
enum Outcome {
    Text(String),
    Failed(String),
}

fn ask(id: &str, code: &str) -> ModelInferRequest {
    let mut raw = (code.len() as u32).to_le_bytes().to_vec();
    raw.extend(code.bytes());
    ModelInferRequest {
        model_name: "code-explainer".into(),
        id: id.into(),
        parameters: parameters(&[("max_new_tokens", Value::Int64Param(8))]),
        inputs: vec![InferInputTensor {
            name: "code".into(),
            datatype: "BYTES".into(),
            shape: vec![1],
            ..InferInputTensor::default()
        }],
        raw_input_contents: vec![raw],
        ..ModelInferRequest::default()
    }
}

fn parameters(all: &[(&str, Value)]) -> HashMap<String, InferParameter> {
    let parameter = |(name, value): &(&str, Value)| {
        let parameter_choice = Some(value.clone());
        ((*name).to_owned(), InferParameter { parameter_choice })
    };
    all.iter().map(parameter).collect()
}

fn with(mut request: ModelInferRequest, more: &[(&str, Value)]) -> ModelInferRequest {
    request.parameters.extend(parameters(more));
    request
}

fn is_final(answer: &ModelInferResponse) -> bool {
    let told = &answer.parameters["triton_final_response"].parameter_choice;
    *told == Some(Value::BoolParam(true))
}

fn text(answer: &ModelInferResponse) -> String {
    let raw = &answer.raw_output_contents[0];
    assert_eq!(raw[..4], (raw.len() as u32 - 4).to_le_bytes());
    String::from_utf8(raw[4..].to_vec()).expect("UTF-8")
}

async fn single(server: &TestServer, request: ModelInferRequest) -> Result<String, Status> {
    let mut grpc = tonic::client::Grpc::new(server.channel().await);
    grpc.ready().await.expect("connected");
    let codec = ProstCodec::<ModelInferRequest, ModelInferResponse>::default();
    let path = PathAndQuery::from_static(SINGLE);
    let answer = grpc.unary(Request::new(request), path, codec).await?;
    Ok(text(answer.get_ref()))
}

#[tokio::test]
async fn requests_may_share_an_id_or_have_none_and_each_is_answered() {
    let (server, control) = TestServer::fake(&["--cache-size", "0"]).await;
    control.hold();
    let mut stream = Tensors::open(&server).await;
    for id in ["", "same", "", "same"] {
        stream.ask(ask(id, "x = 1")).await;
    }
    control.release();
    let ended = stream.collect(4).await;
    let of = |wanted: &str| ended.iter().filter(|(id, _)| id == wanted).count();
    assert_eq!((of(""), of("same")), (2, 2));
    let whole = single(&server, ask("x", "x = 1")).await.expect("an answer");
    // The pieces of two with the same id come mixed; together they are all of both.
    let length: usize = (ended.iter())
        .map(|(_, outcome)| match outcome {
            Outcome::Text(text) => text.len(),
            Outcome::Failed(problem) => panic!("{problem}"),
        })
        .sum();
    assert_eq!(length, 4 * whole.len());
}

#[tokio::test]
async fn a_bad_request_is_told_under_its_id_and_the_stream_goes_on() {
    let (server, control) = TestServer::fake(&["--stream-items", "2"]).await;
    control.hold();
    let mut stream = Tensors::open(&server).await;
    stream.ask(ask("good", "x = 1")).await;
    stream
        .ask(with(
            ask("good", "x = 2"),
            &[("telepathy", Value::BoolParam(true))],
        ))
        .await;
    let ended = stream.collect(1).await;
    let [(id, Outcome::Failed(problem))] = &ended[..] else {
        panic!("{ended:?}")
    };
    assert!(id == "good" && problem.contains("telepathy"), "{problem}");
    stream.ask(ask("second", "x = 3")).await;
    stream.ask(ask("third", "x = 4")).await;
    let ended = stream.collect(1).await;
    assert!(
        matches!(&ended[..], [(id, Outcome::Failed(problem))] if id == "third" && problem.contains("2 items")),
        "{ended:?}"
    );
    control.release();
    let ended = stream.collect(2).await;
    assert!(
        ended
            .iter()
            .all(|(_, outcome)| matches!(outcome, Outcome::Text(_))),
        "{ended:?}"
    );
}

#[tokio::test]
async fn options_do_what_they_do_elsewhere() {
    let (server, control) = TestServer::fake(&[]).await;
    let refused = single(
        &server,
        with(
            ask("a", "x = 1"),
            &[("cache_mode", Value::StringParam("only".into()))],
        ),
    );
    assert_eq!(refused.await.expect_err("not there").code(), Code::NotFound);
    control.hold();
    let late = with(ask("b", "x = 1"), &[("timeout", Value::Int64Param(1000))]);
    let late = single(&server, late).await.expect_err("a millisecond");
    assert_eq!(late.code(), Code::DeadlineExceeded);
    let mut stream = Tensors::open(&server).await;
    stream.ask(ask("old", "x = 1")).await;
    server
        .until_metric("code_explainer_running_sequences", 1.0)
        .await;
    stream
        .ask(with(
            ask("new", "x = 2"),
            &[("replaces", Value::StringParam("old".into()))],
        ))
        .await;
    let ended = stream.collect(1).await;
    assert!(
        matches!(&ended[..], [(id, Outcome::Failed(_))] if id == "old"),
        "{ended:?}"
    );
    control.release();
    assert_eq!(stream.collect(1).await[0].0, "new");
}

#[tokio::test]
async fn a_client_that_goes_leaves_nothing_behind() {
    let (server, control) = TestServer::fake(&[]).await;
    control.hold();
    let stream = Tensors::open(&server).await;
    for id in ["a", "b", "c"] {
        stream.ask(ask(id, &format!("x = '{id}'"))).await;
    }
    // One at least: the step that is held can have begun with it alone.
    while server.metric("code_explainer_running_sequences").await < Some(1.0) {
        tokio::task::yield_now().await;
    }
    drop(stream);
    control.release();
    for gauge in [
        "code_explainer_running_sequences",
        "code_explainer_streams_open",
    ] {
        server.until_metric(gauge, 0.0).await;
    }
}
