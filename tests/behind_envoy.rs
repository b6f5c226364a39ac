//! Behind the chart's own Envoy: clients do not notice each other, nor that a server goes away.

use code_explainer_client::proto::explain_service_client::ExplainServiceClient;
use code_explainer_client::proto::explain_stream_request::Request as Wish;
use code_explainer_client::proto::{Cancel, ExplainStreamRequest};
use futures::future::join_all;
use prost::bytes::Bytes;
use tokio::runtime::Handle;
use tonic::transport::{Channel, Endpoint};

use crate::common::batch::{Replica, explain, follow, start};
use crate::common::envoy::Envoy;
use crate::common::http2::{Connection, STREAM, framed, status};
use crate::common::programs::ServerProcess;
use crate::common::server::{TestServer, metric};
use crate::common::stream::{TestStream, is_last, item};

const ITEMS: usize = 100;
const CONNECTIONS: &str = "cluster.server.upstream_cx_total";

/// A client's own connection to Envoy, which sends all of them over one to the server.
async fn client(envoy: &Envoy) -> Channel {
    let endpoint = Endpoint::from_shared(envoy.uri()).expect("a URI");
    endpoint.connect().await.expect("Envoy listens")
}

/// Calls what there is not, and talks on until it hears that.
async fn talk_on(envoy: &Envoy) {
    let connection = Connection::to(envoy.grpc).await;
    for _ in 0..1000 {
        let (response, mut body) = connection.open("/codeexplainer.v1.Nothing/Is").await;
        for _ in 0..50 {
            let _ = body.send_data(Bytes::from_static(&[0; 64]), false);
        }
        assert_eq!(status(response).await, "12", "there is no such call");
    }
}

/// Leaves its calls as soon as they have begun.
async fn leave(envoy: &Envoy) {
    let mut explainer = ExplainServiceClient::new(client(envoy).await);
    for i in 0..500 {
        let call = explainer.explain(item("", &format!("leave = {i}"))).await;
        drop(call.expect("accepted"));
    }
}

/// Cancels thousands of items that it never sent, as fast as it can.
async fn cancel(envoy: &Envoy) {
    let connection = Connection::to(envoy.grpc).await;
    for _ in 0..10 {
        let (response, mut body) = connection.open(STREAM).await;
        for i in 0..3000 {
            let id = format!("an item with a name of some length {i}");
            let wish = ExplainStreamRequest {
                request: Some(Wish::Cancel(Cancel { id })),
            };
            body.send_data(framed(&wish), i == 2999).expect("open");
        }
        assert_eq!(status(response).await, "0");
    }
}

// On one thread, as on a busy machine: what comes meanwhile is found all at once.
#[tokio::test]
async fn bad_clients_do_not_end_the_calls_of_good_ones() {
    let (server, control) = TestServer::fake(&[]).await;
    let envoy = Envoy::before(&[server.grpc]).await;
    let good = ExplainServiceClient::new(client(&envoy).await);
    let mut good = TestStream::open_on(good).await;
    control.hold();
    good.begin(item("good", "good = 1")).await;
    let before = envoy.stat(CONNECTIONS).await;
    cancel(&envoy).await;
    tokio::join!(
        talk_on(&envoy),
        talk_on(&envoy),
        talk_on(&envoy),
        leave(&envoy)
    );
    control.release();
    good.wait_for("good", is_last).await;
    assert_eq!(envoy.stat(CONNECTIONS).await, before, "it is the same one");
}

/// A batch by way of two servers. When a tenth of it is answered, the one that answers goes away.
async fn a_batch_that_loses_its_server(goes: impl FnOnce(ServerProcess) + Send + 'static) {
    let starts = (0..2).map(|_| tokio::task::spawn_blocking(|| start("127.0.0.1:0")));
    let mut replicas: Vec<_> = (join_all(starts).await.into_iter())
        .map(|replica| replica.expect("ready"))
        .collect();
    let addresses: Vec<_> = replicas.iter().map(|replica| replica.grpc).collect();
    let envoy = Envoy::before(&addresses).await;
    let steps = explain(&envoy.uri(), ITEMS, 12);
    let (mut gone, runtime) = (None, Handle::current());
    let finished = follow(steps, ITEMS / 10, || {
        gone = Some(std::thread::spawn(move || {
            let serves = |replica: &Replica| {
                let open = runtime.block_on(metric(replica.http, "code_explainer_streams_open"));
                open > Some(0.0)
            };
            let at = replicas.iter().position(serves).expect("one serves");
            goes(replicas.swap_remove(at).process);
            replicas
        }));
    })
    .await;
    assert_eq!(finished.len(), ITEMS);
    let left = gone.expect("a tenth was answered").join();
    assert_eq!(left.expect("it has gone").len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminated_server_hands_its_part_of_a_batch_over() {
    a_batch_that_loses_its_server(|mut server| {
        server.signal("TERM");
        assert!(server.ended().success(), "{:?}", server.said);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_server_costs_a_batch_nothing() {
    a_batch_that_loses_its_server(drop).await;
}
