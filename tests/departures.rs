//! Work is counted by how its client left it: it ended the stream, its connection broke or fell silent, or the server cut
//! the connection off.

use std::future::pending;

use code_explainer_client::proto::explain_service_client::ExplainServiceClient;
use code_explainer_client::proto::explain_stream_request::Request as Wish;
use code_explainer_client::proto::explain_stream_response::Event;
use code_explainer_client::proto::{ExplainResponse, Open};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tonic::Streaming;
use tonic::transport::{Channel, Endpoint};

use crate::common::server::TestServer;
use crate::common::stream::{TestStream, item};

const ENDED: &str = "code_explainer_cancellations_total{reason=\"stream_ended\"}";
const VANISHED: &str = "code_explainer_cancellations_total{reason=\"client_vanished\"}";
const CUT_OFF: &str = "code_explainer_cancellations_total{reason=\"cut_off\"}";
const USED: &str = "code_explainer_kv_blocks{state=\"used\"}";

/// A connection to the server that a test can break.
struct Relay {
    channel: Channel,
    end: oneshot::Sender<End>,
}

/// What becomes of it.
enum End {
    /// It breaks.
    Broken,
    /// Nothing passes any more.
    Silent,
}

impl Relay {
    async fn to(server: &TestServer) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let (end, ended) = oneshot::channel();
        let server = server.grpc;
        tokio::spawn(async move {
            let (mut client, _) = listener.accept().await.expect("a client");
            let mut server = TcpStream::connect(server).await.expect("it listens");
            tokio::select! {
                _ = copy_bidirectional(&mut client, &mut server) => {}
                end = ended => if let Ok(End::Silent) = end {
                    // With both of its ends open.
                    pending().await
                },
            }
        });
        let channel = Endpoint::try_from(format!("http://{address}"))
            .expect("an address")
            .connect()
            .await
            .expect("a connection");
        Self { channel, end }
    }

    fn client(&self) -> ExplainServiceClient<Channel> {
        ExplainServiceClient::new(self.channel.clone())
    }

    fn end(self, how: End) {
        assert!(self.end.send(how).is_ok(), "it was open");
    }
}

/// Two items on a stream that goes on, two on one that is half-closed, and a single call. They live as long as this.
async fn five_items(
    client: &ExplainServiceClient<Channel>,
) -> (TestStream, TestStream, Streaming<ExplainResponse>) {
    let mut open = TestStream::open_on(client.clone()).await;
    let mut half_closed = TestStream::open_on(client.clone()).await;
    for (name, stream) in [("open", &mut open), ("half", &mut half_closed)] {
        for i in 0..2 {
            let id = format!("{name}-{i}");
            stream.explain(item(&id, &format!("{name} = {i}"))).await;
            stream.next().await.expect("it is accepted");
        }
    }
    half_closed.half_close();
    let call = client.clone().explain(item("", "call = 1")).await;
    let mut call = call.expect("accepted").into_inner();
    call.message().await.expect("no failure");
    (open, half_closed, call)
}

/// Waits until so many items have ended in each way.
async fn counted(server: &TestServer, ended: f64, vanished: f64, cut_off: f64) {
    for (way, count) in [(ENDED, ended), (VANISHED, vanished), (CUT_OFF, cut_off)] {
        server.until_metric(way, count).await;
    }
}

#[tokio::test]
async fn a_client_that_ends_its_calls_has_ended_them() {
    let (server, control) = TestServer::fake(&[]).await;
    control.hold();
    let client = server.client().await;
    drop(five_items(&client).await);
    counted(&server, 5.0, 0.0, 0.0).await;
    control.allow(1);
    server.until_metric(USED, 0.0).await;
}

#[tokio::test]
async fn a_client_whose_connection_breaks_has_vanished() {
    let (server, control) = TestServer::fake(&[]).await;
    control.hold();
    let relay = Relay::to(&server).await;
    let items = five_items(&relay.client()).await;
    relay.end(End::Broken);
    counted(&server, 0.0, 5.0, 0.0).await;
    control.allow(1);
    server.until_metric(USED, 0.0).await;
    drop(items);
}

#[tokio::test]
async fn a_client_that_falls_silent_has_vanished() {
    let flags = ["--keepalive", "1s", "--keepalive-timeout", "4s"];
    let (server, control) = TestServer::fake(&flags).await;
    control.hold();
    let relay = Relay::to(&server).await;
    let items = five_items(&relay.client()).await;
    relay.end(End::Silent);
    counted(&server, 0.0, 5.0, 0.0).await;
    control.allow(1);
    server.until_metric(USED, 0.0).await;
    drop(items);
}

#[tokio::test]
async fn a_connection_that_is_too_old_is_cut_off() {
    let flags = ["--connection-max-age", "1s", "--connection-grace", "1s"];
    let (server, control) = TestServer::fake(&flags).await;
    control.hold();
    let items = five_items(&server.client().await).await;
    counted(&server, 0.0, 0.0, 5.0).await;
    control.allow(1);
    server.until_metric(USED, 0.0).await;
    drop(items);
}

#[tokio::test]
async fn what_a_client_does_not_come_back_for_ends_as_it_left() {
    let (server, control) = TestServer::fake(&["--resume-ttl", "50ms"]).await;
    control.hold();
    let relay = Relay::to(&server).await;
    let kept = Wish::Open(Open {
        resumable: true,
        ..Open::default()
    });
    let mut stream = TestStream::open_on(relay.client()).await;
    stream.send(Some(kept.clone())).await;
    stream.explain(item("a", "x = 1")).await;
    while !matches!(
        stream.next().await.expect("it goes on").1,
        Event::Accepted(_)
    ) {}
    relay.end(End::Broken);
    counted(&server, 0.0, 1.0, 0.0).await;
    let client = server.client().await;
    let mut stream = TestStream::open_on(client.clone()).await;
    stream.send(Some(kept)).await;
    stream.explain(item("a", "x = 1")).await;
    while !matches!(
        stream.next().await.expect("it goes on").1,
        Event::Accepted(_)
    ) {}
    drop(stream);
    counted(&server, 1.0, 1.0, 0.0).await;
    control.release();
}
