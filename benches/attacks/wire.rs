//! HTTP/2 for those without manners, from an address of their own.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use code_explainer_client::code_name;
use h2::client::{ResponseFuture, SendRequest};
use prost::Message;
use prost::bytes::{BufMut, Bytes, BytesMut};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::AbortHandle;
use tonic::Code;
use tonic::codegen::http::Request;

pub(crate) const HEALTH: &str = "/grpc.health.v1.Health/Check";
pub(crate) const STREAM: &str = "/codeexplainer.v1.ExplainService/ExplainStream";
pub(crate) const EXPLAIN: &str = "/codeexplainer.v1.ExplainService/Explain";

/// Where the neighbour and the probes call from.
pub(crate) const NEIGHBOUR: Ipv4Addr = Ipv4Addr::LOCALHOST;
/// Where the attacker calls from: all of 127.0.0.0/8 is this machine.
pub(crate) const ATTACKER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// One of many addresses of an attacker that has many.
pub(crate) fn one_of_many(n: usize) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 1, (n % 64) as u8 + 1)
}

/// A connection from an address. With `receive_bytes`, the kernel keeps about so much of what is not read.
pub(crate) async fn connect(
    server: SocketAddr,
    from: Ipv4Addr,
    receive_bytes: Option<u32>,
) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    if let Some(bytes) = receive_bytes {
        socket.set_recv_buffer_size(bytes)?;
    }
    socket.bind((from, 0).into())?;
    socket.connect(server).await
}

/// A connection whose own end forgives everything. It ends with the last of its clones.
#[derive(Clone)]
pub(crate) struct Connection {
    requests: SendRequest<Bytes>,
    _driver: Arc<Driver>,
}

struct Driver(AbortHandle);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Connection {
    /// With a `window`, streams may send so many bytes until they are read.
    pub(crate) async fn to(
        server: SocketAddr,
        from: Ipv4Addr,
        window: Option<u32>,
    ) -> Result<Self> {
        let tcp = connect(server, from, None).await?;
        tcp.set_nodelay(true)?;
        let mut builder = h2::client::Builder::new();
        builder
            .max_concurrent_reset_streams(1 << 20)
            .reset_stream_duration(Duration::from_secs(600))
            .max_local_error_reset_streams(None)
            .data_frame_budget(usize::MAX);
        if let Some(window) = window {
            builder.initial_window_size(window);
        }
        let (requests, connection) = builder.handshake(tcp).await?;
        let driver = tokio::spawn(connection).abort_handle();
        Ok(Self {
            requests,
            _driver: Arc::new(Driver(driver)),
        })
    }

    /// Begins a call, with a token where it is not empty.
    pub(crate) async fn open(
        &self,
        path: &str,
        token: &str,
    ) -> Result<(ResponseFuture, h2::SendStream<Bytes>)> {
        let mut requests = (self.requests.clone().ready().await).context("the connection ended")?;
        let mut head = Request::post(format!("http://server{path}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers");
        if !token.is_empty() {
            head = head.header("authorization", format!("Bearer {token}"));
        }
        Ok(requests.send_request(head.body(())?, false)?)
    }
}

/// Reads an answer to its end, and says how it ended: the name of its gRPC status, or what became of its call.
pub(crate) async fn status(response: ResponseFuture) -> String {
    match read(response).await {
        Ok(status) => status,
        Err(error) => match error.reason() {
            Some(reason) if error.is_reset() => format!("reset: {}", reason.description()),
            _ => "connection closed".into(),
        },
    }
}

async fn read(response: ResponseFuture) -> Result<String, h2::Error> {
    let (head, mut answer) = response.await?.into_parts();
    while let Some(data) = answer.data().await {
        let read = data?.len();
        answer.flow_control().release_capacity(read)?;
    }
    let trailers = answer.trailers().await?;
    let told = trailers.unwrap_or(head.headers);
    let code = told.get("grpc-status").and_then(|code| code.to_str().ok());
    Ok(match code.and_then(|code| code.parse().ok()) {
        Some(code) => code_name(Code::from_i32(code)).to_owned(),
        None => format!("HTTP {}", head.status),
    })
}

/// A message as gRPC sends it.
pub(crate) fn framed(message: &impl Message) -> Bytes {
    let mut bytes = BytesMut::with_capacity(5 + message.encoded_len());
    bytes.put_u8(0);
    bytes.put_u32(message.encoded_len() as u32);
    bytes.extend_from_slice(&message.encode_to_vec());
    bytes.freeze()
}

/// A frame of HTTP/2.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// The headers of a call, each as a literal that is not to be remembered.
pub(crate) fn headers(path: &str, token: &str) -> Vec<u8> {
    let bearer = format!("Bearer {token}");
    let fields = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "server"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
        ("authorization", &bearer),
    ];
    let mut block = Vec::new();
    for (name, value) in fields {
        block.extend([0, name.len() as u8]);
        block.extend(name.bytes());
        block.push(value.len() as u8);
        block.extend(value.bytes());
    }
    block
}
