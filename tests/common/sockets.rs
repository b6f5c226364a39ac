//! Connections of clients without manners.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

/// Long enough for a machine that does much else; reaching it is a failure.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// What a client of HTTP/2 says first: the preface, and settings that change nothing.
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// A connection from one of the machine's own addresses: 127.0.0.`host`.
pub(crate) async fn connect_from(host: u8, server: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    let own = Ipv4Addr::new(127, 0, 0, host);
    socket.bind((own, 0).into()).expect("an address of its own");
    socket.connect(server).await.expect("it listens")
}

/// A connection whose client has room for next to nothing, so that it is full as soon as nobody reads.
pub(crate) async fn connect_narrow(server: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(1).expect("the least there is");
    socket.connect(server).await.expect("it listens")
}

/// Reads until the server has hung up; gives the number of bytes.
pub(crate) async fn until_closed(connection: &mut TcpStream) -> usize {
    let (mut read, mut buffer) = (0, [0; 4096]);
    loop {
        let next = timeout(PATIENCE, connection.read(&mut buffer)).await;
        match next.expect("the server hangs up") {
            Ok(0) | Err(_) => return read,
            Ok(n) => read += n,
        }
    }
}
