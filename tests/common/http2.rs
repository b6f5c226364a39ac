//! HTTP/2 by hand: a frame for each message, as many a client of gRPC sends them, and no manners.

use std::net::SocketAddr;
use std::time::Duration;

use code_explainer_client::proto::ExplainRequest;
use h2::client::{ResponseFuture, SendRequest};
use prost::Message;
use prost::bytes::{BufMut, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tonic::codegen::http::Request;

pub(crate) const STREAM: &str = "/codeexplainer.v1.ExplainService/ExplainStream";
pub(crate) const EXPLAIN: &str = "/codeexplainer.v1.ExplainService/Explain";

/// A connection whose own end forgives everything.
#[derive(Clone)]
pub(crate) struct Connection(SendRequest<Bytes>);

impl Connection {
    pub(crate) async fn to(server: SocketAddr) -> Self {
        let tcp = TcpStream::connect(server).await.expect("it listens");
        Self::over(tcp).await.0
    }

    /// Over what is connected already; also gives how it ends.
    pub(crate) async fn over(
        io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    ) -> (Self, JoinHandle<Result<(), h2::Error>>) {
        let (requests, connection) = h2::client::Builder::new()
            .max_concurrent_reset_streams(1 << 20)
            .reset_stream_duration(Duration::from_secs(600))
            .max_local_error_reset_streams(None)
            .data_frame_budget(usize::MAX)
            .handshake(io)
            .await
            .expect("HTTP/2");
        (Self(requests), tokio::spawn(connection))
    }

    /// Begins a call; the connection must still take it.
    pub(crate) async fn open(&self, path: &str) -> (ResponseFuture, h2::SendStream<Bytes>) {
        self.open_with(path, &[]).await
    }

    /// The same with headers of the test's own.
    pub(crate) async fn open_with(
        &self,
        path: &str,
        headers: &[(&str, &str)],
    ) -> (ResponseFuture, h2::SendStream<Bytes>) {
        let opened = self.try_open_with(path, headers).await;
        opened.expect("the connection goes on")
    }

    /// The same where the server may have closed the connection.
    pub(crate) async fn try_open_with(
        &self,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Result<(ResponseFuture, h2::SendStream<Bytes>), h2::Error> {
        let mut requests = self.0.clone().ready().await?;
        let mut head = Request::post(format!("http://server{path}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers");
        for (name, value) in headers {
            head = head.header(*name, *value);
        }
        let head = head.body(()).expect("a request");
        requests.send_request(head, false)
    }

    /// A good client's call, to its end.
    pub(crate) async fn call(&self, item: ExplainRequest) -> String {
        let (response, mut body) = self.open(EXPLAIN).await;
        body.send_data(framed(&item), true).expect("open");
        status(response).await
    }

    /// The same, meanwhile.
    pub(crate) fn spawn_call(&self, item: ExplainRequest) -> JoinHandle<String> {
        let connection = self.clone();
        tokio::spawn(async move { connection.call(item).await })
    }
}

/// Reads an answer to its end, and gives the status that is there, or came before anything else.
pub(crate) async fn status(response: ResponseFuture) -> String {
    let response = response.await.expect("the connection goes on");
    let (head, mut answer) = response.into_parts();
    while let Some(data) = answer.data().await {
        let read = data.expect("the call goes on").len();
        (answer.flow_control().release_capacity(read)).expect("it was read");
    }
    let trailers = answer.trailers().await.expect("the call goes on");
    let told = trailers.unwrap_or(head.headers);
    let status = told["grpc-status"].to_str();
    status.expect("a number").to_owned()
}

/// The beginning of a message that is to have so many bytes.
pub(crate) fn declared(bytes: u32) -> Bytes {
    let mut prefix = BytesMut::new();
    prefix.put_u8(0);
    prefix.put_u32(bytes);
    prefix.freeze()
}

/// A message as gRPC sends it.
pub(crate) fn framed(message: &impl Message) -> Bytes {
    let mut bytes = BytesMut::new();
    bytes.put_u8(0);
    bytes.put_u32(message.encoded_len() as u32);
    message.encode(&mut bytes).expect("room");
    bytes.freeze()
}
