//! Frames of HTTP/2, a byte after the other.

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
/// A flag of headers.
pub(crate) const END_HEADERS: u8 = 4;
/// Why a stream is reset: its client does not want it any more.
pub(crate) const CANCEL: [u8; 4] = [0, 0, 0, 8];
/// The server has not looked at it.
pub(crate) const REFUSED_STREAM: [u8; 4] = [0, 0, 0, 7];

/// A frame to send.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    let head = [&length[1..], &[kind, flags], &stream.to_be_bytes()];
    [head.concat().as_slice(), payload].concat()
}

/// The headers of a call: :method POST, :scheme http, :path and :authority as literals.
pub(crate) fn call(path: &str) -> Vec<u8> {
    let path = path.as_bytes();
    let head = [
        &[0x83, 0x86, 0x04, path.len() as u8],
        path,
        &[0x01, 1],
        b"s",
    ];
    head.concat()
}

/// The next frame: its kind, and what is in it.
///
/// # Errors
/// The connection is closed.
pub(crate) async fn next(connection: &mut TcpStream) -> std::io::Result<(u8, Vec<u8>)> {
    let mut head = [0; 9];
    connection.read_exact(&mut head).await?;
    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
    let mut payload = vec![0; length as usize];
    connection.read_exact(&mut payload).await?;
    Ok((head[3], payload))
}
