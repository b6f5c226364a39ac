//! A network without sockets: bytes take their time, in pieces, and now and then the way is held up, swallows what is sent,
//! or breaks.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc;
use tokio::time::{Instant, Sleep, sleep, sleep_until};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::Connected;

use crate::world;

/// Bytes on their way in one direction at most.
const WINDOW: usize = 64 << 10;

/// The network. Clones are the same one.
#[derive(Clone, Default)]
pub(crate) struct Net(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    servers: BTreeMap<String, Server>,
    clients: BTreeMap<String, Line>,
}

struct Server {
    /// `None`: nobody listens, and who calls is refused.
    door: Option<mpsc::Sender<Socket>>,
    /// It takes no more calls.
    shut: bool,
    connections: Vec<Shared>,
}

/// What a client's connections have in common.
struct Line {
    latency: u64,
    jitter: u64,
    /// Calls are not answered before this.
    silent_until: Instant,
    /// It was as it should be ever since.
    calm_since: Instant,
    connections: Vec<Shared>,
}

/// What befalls a client's line.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Trouble {
    /// What is sent arrives late.
    Held(Duration),
    /// What is sent is lost, and new calls are not answered for so long.
    Swallowed(Duration),
    /// The connections break.
    Broken,
}

type Shared = Arc<Mutex<Wire>>;

/// A connection.
struct Wire {
    /// From the client, and from the server.
    ways: [Way; 2],
    latency: u64,
    jitter: u64,
    held_until: Instant,
    swallows: bool,
    broken: bool,
}

struct Way {
    segments: VecDeque<(Instant, Vec<u8>)>,
    /// Bytes of the first segment that have been read.
    read: usize,
    bytes: usize,
    last: Instant,
    /// Nothing more is sent; what is there arrives.
    ended: Option<Instant>,
    unheard: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

/// An end of a connection.
pub(crate) struct Socket {
    wire: Shared,
    /// The way that it writes to.
    side: usize,
    arrival: Option<Pin<Box<Sleep>>>,
}

impl Net {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("whole")
    }

    /// Connections to a server, as they come. It is there until it is [taken away](Self::take_away).
    pub(crate) fn listen(
        &self,
        server: &str,
    ) -> impl tokio_stream::Stream<Item = io::Result<Socket>> + Send + use<> {
        let (door, sockets) = mpsc::channel(64);
        let server_of_it = Server {
            door: Some(door),
            shut: false,
            connections: Vec::new(),
        };
        self.lock().servers.insert(server.to_owned(), server_of_it);
        ReceiverStream::new(sockets).map(Ok)
    }

    /// The server is gone: all its connections break, and nobody answers until it listens again.
    pub(crate) fn take_away(&self, server: &str) {
        if let Some(server) = self.lock().servers.get_mut(server) {
            server.door = None;
            for wire in server.connections.drain(..) {
                wire.lock().expect("whole").break_off();
            }
        }
    }

    /// No new connections; those that are there stay.
    pub(crate) fn shut(&self, server: &str) {
        if let Some(server) = self.lock().servers.get_mut(server) {
            server.shut = true;
        }
    }

    /// A client's line to all servers.
    pub(crate) fn add_client(&self, client: &str) {
        let line = Line {
            latency: world::below(15),
            jitter: world::below(4),
            silent_until: Instant::now(),
            calm_since: Instant::now(),
            connections: Vec::new(),
        };
        self.lock().clients.insert(client.to_owned(), line);
    }

    /// Calls one of the servers, as a balancer would.
    pub(crate) async fn connect(&self, client: &str) -> io::Result<Socket> {
        let (latency, silent_until) = {
            let state = self.lock();
            let line = &state.clients[client];
            (line.latency, line.silent_until)
        };
        sleep_until(silent_until).await;
        sleep(Duration::from_millis(2 * latency + 1)).await;
        let mut state = self.lock();
        let State { servers, clients } = &mut *state;
        let up: Vec<&mut Server> = servers
            .values_mut()
            .filter(|s| s.door.is_some() && !s.shut)
            .collect();
        let chosen = world::below(up.len() as u64) as usize;
        let Some(server) = up.into_iter().nth(chosen) else {
            return Err(io::ErrorKind::ConnectionRefused.into());
        };
        let line = clients.get_mut(client).expect("it was added");
        let now = Instant::now();
        let way = || Way {
            segments: VecDeque::new(),
            read: 0,
            bytes: 0,
            last: now,
            ended: None,
            unheard: false,
            reader: None,
            writer: None,
        };
        let wire = Arc::new(Mutex::new(Wire {
            ways: [way(), way()],
            latency: line.latency,
            jitter: line.jitter,
            held_until: now,
            swallows: false,
            broken: false,
        }));
        server.connections.push(wire.clone());
        line.connections.push(wire.clone());
        let end = |side| Socket {
            wire: wire.clone(),
            side,
            arrival: None,
        };
        let sent = server.door.as_ref().map(|door| door.try_send(end(1)));
        match sent {
            Some(Ok(())) => Ok(end(0)),
            _ => Err(io::ErrorKind::ConnectionRefused.into()),
        }
    }

    /// Something befalls a client's line.
    pub(crate) fn trouble(&self, client: &str, trouble: Trouble) {
        let mut state = self.lock();
        let Some(line) = state.clients.get_mut(client) else {
            return;
        };
        let now = Instant::now();
        let mut over = now;
        for wire in &line.connections {
            let mut wire = wire.lock().expect("whole");
            match trouble {
                Trouble::Held(time) => {
                    over = now + time;
                    wire.held_until = wire.held_until.max(over);
                }
                Trouble::Swallowed(_) => wire.swallows = true,
                Trouble::Broken => wire.break_off(),
            }
        }
        if let Trouble::Swallowed(time) = trouble {
            over = now + time;
            line.silent_until = line.silent_until.max(over);
        }
        line.calm_since = line.calm_since.max(over);
    }

    /// Since when a client's line has been as it should be.
    pub(crate) fn calm_since(&self, client: &str) -> Instant {
        self.lock().clients[client].calm_since
    }
}

impl Wire {
    fn break_off(&mut self) {
        self.broken = true;
        for way in &mut self.ways {
            way.wake_all();
        }
    }
}

impl Way {
    fn wake_all(&mut self) {
        for waker in [self.reader.take(), self.writer.take()]
            .into_iter()
            .flatten()
        {
            waker.wake();
        }
    }

    fn arrives(&self) -> Option<Instant> {
        let first = self.segments.front().map(|(at, _)| *at);
        first.or(self.ended)
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        loop {
            let mut wire = this.wire.lock().expect("whole");
            if wire.broken {
                return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
            }
            let (held_until, swallows) = (wire.held_until, wire.swallows);
            let way = &mut wire.ways[1 - this.side];
            way.reader = Some(context.waker().clone());
            let Some(at) = way.arrives().filter(|_| !swallows) else {
                return Poll::Pending;
            };
            let at = at.max(held_until);
            if at > Instant::now() {
                drop(wire);
                let arrival = this.arrival.insert(Box::pin(sleep_until(at)));
                if arrival.as_mut().poll(context).is_pending() {
                    return Poll::Pending;
                }
                continue;
            }
            let Some((_, segment)) = way.segments.front() else {
                // The other end has said all.
                return Poll::Ready(Ok(()));
            };
            let count = buffer.remaining().min(segment.len() - way.read);
            buffer.put_slice(&segment[way.read..way.read + count]);
            way.read += count;
            way.bytes -= count;
            if way.read == segment.len() {
                way.segments.pop_front();
                way.read = 0;
            }
            if let Some(writer) = way.writer.take() {
                writer.wake();
            }
            return Poll::Ready(Ok(()));
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut wire = self.wire.lock().expect("whole");
        let (latency, jitter) = (wire.latency, wire.jitter);
        if wire.broken || wire.ways[self.side].unheard {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let way = &mut wire.ways[self.side];
        let room = WINDOW - way.bytes;
        if room == 0 {
            way.writer = Some(context.waker().clone());
            return Poll::Pending;
        }
        let mut count = bytes.len().min(room);
        // Now and then a piece ends anywhere.
        if world::once_in(8) {
            count = world::between(1, count.max(1) as u64) as usize;
        }
        let arrival = Instant::now() + Duration::from_millis(latency + world::below(jitter + 1));
        way.last = way.last.max(arrival);
        way.segments.push_back((way.last, bytes[..count].to_vec()));
        way.bytes += count;
        if let Some(reader) = way.reader.take() {
            reader.wake();
        }
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.end();
        Poll::Ready(Ok(()))
    }
}

impl Socket {
    fn end(&self) {
        let mut wire = self.wire.lock().expect("whole");
        let latency = Duration::from_millis(wire.latency);
        let way = &mut wire.ways[self.side];
        let at = way.last.max(Instant::now() + latency);
        way.ended.get_or_insert(at);
        if let Some(reader) = way.reader.take() {
            reader.wake();
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.end();
        let mut wire = self.wire.lock().expect("whole");
        let way = &mut wire.ways[1 - self.side];
        way.unheard = true;
        if let Some(writer) = way.writer.take() {
            writer.wake();
        }
    }
}

impl code_explainer::api::Connection for Socket {
    fn address(&self) -> Option<std::net::IpAddr> {
        None
    }
}

impl Connected for Socket {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}
