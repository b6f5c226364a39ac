//! One OTLP trace per item, as a child of the client's, with the parts that its time went to.

use std::sync::Arc;

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::trace::v1::Span;
use tokio::sync::mpsc;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

use crate::common::server::TestServer;
use crate::common::stream::{TestStream, item};

/// A collector that hands on what it gets.
struct Collector(mpsc::Sender<Span>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let resources = request.into_inner().resource_spans;
        let spans = resources
            .into_iter()
            .flat_map(|r| r.scope_spans)
            .flat_map(|s| s.spans);
        for span in spans {
            self.0
                .try_send(span)
                .map_err(|_| Status::resource_exhausted("the test's bound"))?;
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

async fn collector() -> (String, mpsc::Receiver<Span>) {
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
    let mut got = Vec::new();
    while let Ok(span) = spans.try_recv() {
        got.push(span);
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
