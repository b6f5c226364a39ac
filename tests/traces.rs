//! One OTLP trace per item, as a child of the client's, with the parts that its time went to.

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::http::HeaderMap;
use axum::routing::post;
use code_explainer_client::proto::explain_service_client::ExplainServiceClient;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, Span};
use prost::Message;
use tokio::sync::mpsc;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Endpoint;
use tonic::{Request, Response, Status};

use crate::common::programs::{ServerProcess, server};
use crate::common::server::TestServer;
use crate::common::stream::{TestStream, item};

/// A collector that hands on what it gets.
struct Collector(mpsc::Sender<ResourceSpans>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        for resource in request.into_inner().resource_spans {
            self.0
                .try_send(resource)
                .map_err(|_| Status::resource_exhausted("the test's bound"))?;
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

async fn collector() -> (String, mpsc::Receiver<ResourceSpans>) {
    let (sender, spans) = mpsc::channel(64);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a port");
    let address = listener.local_addr().expect("an address");
    let service = TraceServiceServer::new(Collector(sender));
    let server = tonic::transport::Server::builder().add_service(service);
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    (format!("http://{address}"), spans)
}

/// The same over HTTP, as OTLP has it.
async fn http_collector() -> (String, mpsc::Receiver<ResourceSpans>) {
    let (sender, spans) = mpsc::channel(64);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a port");
    let address = listener.local_addr().expect("an address");
    let take = async move |headers: HeaderMap, body: Bytes| {
        assert_eq!(headers["content-type"], "application/x-protobuf");
        let request = ExportTraceServiceRequest::decode(body).expect("OTLP");
        for resource in request.resource_spans {
            sender.try_send(resource).expect("the test's bound");
        }
        ExportTraceServiceResponse::default().encode_to_vec()
    };
    let router = Router::new().route("/v1/traces", post(take));
    tokio::spawn(axum::serve(listener, router).into_future());
    (format!("http://{address}"), spans)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_item_is_a_span_under_the_clients_with_its_parts() {
    let (endpoint, mut spans) = collector().await;
    let (mut server, _) = TestServer::fake(&["--otlp-endpoint", &endpoint]).await;
    let trace = "0af7651916cd43dd8448eb211c80319c";
    let parent = "b7ad6b7169203331";
    let mut stream = TestStream::open_with(&server, |metadata| {
        let value = format!("00-{trace}-{parent}-01");
        metadata.insert("traceparent", value.parse().expect("ASCII"));
    })
    .await;
    stream.explain(item("traced", "x = 1")).await;
    stream.collect(1).await;
    drop(stream);
    // The end of the server sends what is left.
    server.terminate();
    server.ended().await.expect("a clean end");
    let mut got = Vec::<Span>::new();
    while let Ok(resource) = spans.try_recv() {
        got.extend(resource.scope_spans.into_iter().flat_map(|s| s.spans));
    }
    let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
    let root = got
        .iter()
        .find(|s| s.name == "explain")
        .expect("the item's span");
    assert_eq!(hex(&root.trace_id), trace);
    assert_eq!(hex(&root.parent_span_id), parent);
    for part in ["prompt", "queue", "prefill", "decode"] {
        let span = got
            .iter()
            .find(|s| s.name == part)
            .unwrap_or_else(|| panic!("no {part}"));
        assert_eq!(
            span.parent_span_id, root.span_id,
            "{part} is a part of the item"
        );
        assert!(span.start_time_unix_nano >= root.start_time_unix_nano);
        assert!(span.end_time_unix_nano <= root.end_time_unix_nano);
    }
    let said: Arc<str> = format!("{:?}", root.attributes).into();
    assert!(
        said.contains("vanilla") && !said.contains("x = 1"),
        "{said}"
    );
}

#[tokio::test]
async fn a_collector_that_is_gone_harms_nobody() {
    let (mut server, _) = TestServer::fake(&["--otlp-endpoint", "http://127.0.0.1:9"]).await;
    let mut stream = TestStream::open(&server).await;
    stream.explain(item("a", "x = 1")).await;
    assert!(stream.collect(1).await["a"].done.is_some());
    drop(stream);
    server.terminate();
    server.ended().await.expect("a clean end");
}

/// A server as a program, under these variables, answers an item and ends; what the collector got of it, and what it logged.
async fn traces_under(
    variables: &[(&str, &str)],
    (endpoint, mut spans): (String, mpsc::Receiver<ResourceSpans>),
) -> (Vec<ResourceSpans>, String) {
    let mut command = server(&["serve", "--listen", "127.0.0.1:0"]);
    command.args(["--http-listen", "127.0.0.1:0", "--kv-cache-tokens", "8192"]);
    command.args(["--otlp-endpoint", &endpoint, "--shutdown-grace", "0s"]);
    command.envs(variables.iter().copied());
    // Nothing between the server and the collector.
    for proxy in ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"] {
        command.env_remove(proxy);
    }
    let start = move || {
        let mut process = ServerProcess::start(command);
        let address = process.address("grpc");
        process.wait_for(" ready");
        (process, address)
    };
    let started = tokio::task::spawn_blocking(start).await;
    let (mut process, address) = started.expect("a server");
    let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("a URI");
    let channel = endpoint.connect().await.expect("it listens");
    let mut stream = TestStream::open_on(ExplainServiceClient::new(channel)).await;
    stream.explain(item("traced", "x = 1")).await;
    assert!(stream.collect(1).await["traced"].done.is_some());
    drop(stream);
    process.signal("TERM");
    let end = tokio::task::spawn_blocking(move || {
        process.ended();
        process.said.join("\n")
    });
    let said = end.await.expect("it ended");
    let mut got = Vec::new();
    while let Ok(resource) = spans.try_recv() {
        got.push(resource);
    }
    (got, said)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_standard_variables_name_the_service_and_its_attributes() {
    let variables = [
        ("OTEL_SERVICE_NAME", "explainer-of-tests"),
        ("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment=tests"),
    ];
    let (got, _) = traces_under(&variables, collector().await).await;
    let resource = format!("{:?}", got.first().expect("spans").resource);
    for part in [
        "explainer-of-tests",
        "deployment.environment",
        "service.version",
    ] {
        assert!(resource.contains(part), "{part}: {resource}");
    }
    assert!(!resource.contains("\"code-explainer\""), "{resource}");
}

#[tokio::test(flavor = "multi_thread")]
async fn traces_go_out_over_http_where_the_variable_says_so() {
    let variable = "OTEL_EXPORTER_OTLP_PROTOCOL";
    for path in ["", "/", "/v1/traces"] {
        let (address, spans) = http_collector().await;
        let collector = (format!("{address}{path}"), spans);
        let (got, said) = traces_under(&[(variable, "http/protobuf")], collector).await;
        let spans = got.iter().flat_map(|r| &r.scope_spans);
        let names: Vec<&str> = spans
            .flat_map(|s| &s.spans)
            .map(|s| s.name.as_str())
            .collect();
        for name in ["explain", "prefill"] {
            assert!(names.contains(&name), "{path}: {names:?}; {said}");
        }
        assert!(!said.contains(variable), "{said}");
    }
    // The one for traces has the last word.
    let variables = [
        (variable, "http/protobuf"),
        ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "grpc"),
    ];
    let (got, _) = traces_under(&variables, collector().await).await;
    assert!(!got.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_protocol_that_there_is_not_is_told_and_is_grpc() {
    let variable = "OTEL_EXPORTER_OTLP_PROTOCOL";
    let (got, said) = traces_under(&[(variable, "http/json")], collector().await).await;
    assert!(!got.is_empty());
    let told = [variable, "http/json", "http/protobuf", "4318"];
    let warned = said
        .lines()
        .any(|line| told.iter().all(|part| line.contains(part)));
    assert!(warned, "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_trace_is_sent_where_the_sdk_is_disabled() {
    let disabled = [("OTEL_SDK_DISABLED", "True")];
    let (got, said) = traces_under(&disabled, collector().await).await;
    assert!(got.is_empty(), "{got:?}");
    assert!(!said.contains("OTLP"), "{said}");
}
