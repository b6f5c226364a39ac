//! Connections: accepted up to a bound, encrypted where that is set, and ended when they are idle, old, or the server
//! stops. What a call on them does is the caller's.
//!
//! A connection's life: `Handshake => Serving => Closing`. Closing lets running calls end, and takes no new ones.

use std::error::Error;
use std::future::{Future, pending};
use std::io;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::BoxError;
use axum::http::{Request, Response};
use code_explainer_host::log_limit::LogLimit;
use http_body_util::BodyExt;
use hyper::body::{Body, Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::{JoinSet, yield_now};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_stream::{Stream, StreamExt};
use tokio_util::sync::CancellationToken;

use crate::access::{ClientCertificate, Handshake};
use crate::api::Connection;
use crate::api::calls::{Call, Calls};
use crate::api::io::Watched;
use crate::api::limits::{
    ConnectionLimits, FLOOD_GOODBYE, GOODBYE, HASTY_GOODBYE, ON_THE_WAY_PER_STREAM,
};
use crate::api::no_connection;
use crate::api::places::{Place, Places};
use crate::api::write_timeout::WriteTimeout;
use crate::explain::Presence;
use crate::metrics::Metrics;

/// Bytes that a call's client may send before they are read.
pub(super) const STREAM_WINDOW: u32 = 64 << 10;
/// The same for a connection's calls together. h2 closes a connection on which small messages wait to be read, when what
/// each lacks to 256 bytes comes to half of this: with so much, one stream cannot bring that about, whatever it sends, nor
/// can a dozen that each send all that they may in messages of 40 bytes.
const CONNECTION_WINDOW: u32 = 8 << 20;

/// A new connection that could not be accepted is tried again after this.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// The other end of a connection, for one call.
#[derive(Clone)]
pub(super) struct Peer {
    /// Its certificate, which has been verified.
    pub(super) certificate: Option<Arc<ClientCertificate>>,
    /// How it leaves, for the calls that it leaves behind.
    pub(super) presence: Arc<Presence>,
    /// Where it is; `None`: that is not known.
    pub(super) address: Option<IpAddr>,
    call: Arc<Call>,
}

impl Peer {
    /// Whoever calls is known, so that the connection is not closed for another one before the call has ended.
    pub(super) fn is_known(&self) {
        self.call.is_known();
    }
}

/// What a server does with its connections.
#[derive(Clone)]
pub(super) struct Connections {
    pub(super) limits: ConnectionLimits,
    pub(super) metrics: Arc<Metrics>,
    pub(super) protocol: Protocol,
    /// For connections that do not come about.
    log: Arc<LogLimit>,
}

/// Clients that cannot connect try again and again.
const LOG: Duration = Duration::from_secs(60);

/// What is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    /// HTTP/2 alone.
    Grpc,
    /// HTTP/1.1.
    Http,
}

impl Protocol {
    /// In metrics.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Grpc => "grpc",
            Self::Http => "http",
        }
    }
}

/// What a call is answered by.
pub(super) trait Answer: Clone + Send + Sync + 'static {
    type Body: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static;
    type Answered: Future<Output = Response<Self::Body>> + Send + 'static;

    fn answer(&self, call: Request<Incoming>, peer: &Peer) -> Self::Answered;
}

impl<A, F, B> Answer for A
where
    A: Fn(Request<Incoming>, &Peer) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<B>> + Send + 'static,
    B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    type Body = B;
    type Answered = F;

    fn answer(&self, call: Request<Incoming>, peer: &Peer) -> F {
        self(call, peer)
    }
}

/// Why a connection is being closed.
enum Reason {
    Stop,
    Silent,
    Displaced,
    Idle,
    Age,
    Slow,
    Revoked,
    Flood,
}

impl Reason {
    /// In metrics; `None`: all are closed for it.
    fn as_str(&self) -> Option<&'static str> {
        match self {
            Self::Stop => None,
            Self::Silent => Some("silent"),
            Self::Displaced => Some("displaced"),
            Self::Idle => Some("idle"),
            Self::Age => Some("age"),
            Self::Slow => Some("slow"),
            Self::Revoked => Some("revoked"),
            Self::Flood => Some("flood"),
        }
    }
}

impl Connections {
    /// With these limits.
    pub(super) fn new(limits: ConnectionLimits, metrics: Arc<Metrics>, protocol: Protocol) -> Self {
        Self {
            limits,
            metrics,
            protocol,
            log: Arc::new(LogLimit::every(LOG)),
        }
    }

    /// Serves connections as they come until `stop`, and then until every one has closed. `tls` gives what new ones are
    /// encrypted by; `answer` answers a call.
    pub(super) async fn serve<C: Connection>(
        self,
        incoming: impl Stream<Item = io::Result<C>>,
        tls: impl Fn() -> Option<Handshake>,
        answer: impl Answer,
        stop: CancellationToken,
    ) {
        let limits = &self.limits;
        let places = Places::new(
            limits.connections,
            limits.of_address(),
            limits.resets_per_address,
        );
        let mut open = JoinSet::new();
        {
            let mut incoming = pin!(incoming);
            while let Some(Some(accepted)) = stop.run_until_cancelled(incoming.next()).await {
                // Those that have ended are forgotten.
                while open.try_join_next().is_some() {}
                let connection = match accepted {
                    Ok(connection) => connection,
                    Err(error) => {
                        pause_after(&error, &places).await;
                        continue;
                    }
                };
                let place = match places.take(connection.address()) {
                    Ok(place) => place,
                    Err(full) => {
                        let protocol = self.protocol.as_str();
                        (self.metrics.access).connection_refused(protocol, full.as_str());
                        continue;
                    }
                };
                if places.closing() {
                    // Before more are displaced.
                    yield_now().await;
                }
                let (this, tls, answer, stop) = (self.clone(), tls(), answer.clone(), stop.clone());
                open.spawn(async move {
                    let _counted = (this.metrics.access).connection_opened(this.protocol.as_str());
                    this.handshake(connection, tls, answer, place, stop).await;
                });
            }
            // The port is free from here on.
        }
        while open.join_next().await.is_some() {}
    }

    async fn handshake(
        &self,
        io: impl Connection,
        tls: Option<Handshake>,
        answer: impl Answer,
        place: Place,
        stop: CancellationToken,
    ) {
        tokio::select! {
            () = sleep_until(place.due()) => {}
            () = stop.cancelled() => return,
            () = place.displaced() => return self.closed(&Reason::Displaced),
        }
        let address = io.address();
        let (metrics, protocol) = (self.metrics.clone(), self.protocol.as_str());
        let stalled = move || metrics.access.connection_closed(protocol, "stalled");
        let io = WriteTimeout::new(io, self.limits.write, stalled);
        let Some(tls) = tls else {
            return self.calls(io, address, None, answer, place, stop).await;
        };
        let accepted = timeout(
            self.limits.handshake,
            TlsAcceptor::from(tls.config()).accept(io),
        );
        let accepted = tokio::select! {
            accepted = accepted => Some(accepted),
            () = stop.cancelled() => None,
            () = place.displaced() => return self.closed(&Reason::Displaced),
        };
        let io = match accepted {
            Some(Ok(Ok(io))) => io,
            Some(failed) => {
                let error = failed.ok().and_then(Result::err);
                // What the other side sent is in the error: for debugging alone.
                tracing::debug!(?error, "no TLS handshake");
                self.no_connection(no_connection::of_handshake(error.as_ref()));
                return self
                    .metrics
                    .access
                    .connection_refused(self.protocol.as_str(), "handshake");
            }
            None => return,
        };
        let chain = io.get_ref().1.peer_certificates();
        let certificate = chain.and_then(|chain| tls.client(chain));
        self.calls(io, address, certificate, answer, place, stop)
            .await;
    }

    async fn calls<A: Answer>(
        &self,
        io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        address: Option<IpAddr>,
        certificate: Option<Arc<ClientCertificate>>,
        answer: A,
        place: Place,
        stop: CancellationToken,
    ) {
        let calls = Calls::new(place.usage(), self.limits.streams);
        let presence = Arc::new(Presence::new(self.limits.keepalive_timeout));
        let io = TokioIo::new(Watched::new(io, presence.clone(), calls.clone()));
        let left = presence.clone();
        let (shown, begun) = (certificate.clone(), calls.clone());
        let (protocol, usage) = (self.protocol, place.usage());
        let service = service_fn(move |request| {
            let call = begun.begin();
            if protocol == Protocol::Http {
                // Its callers stay unknown, and one that asks now and then is worth more than those that do not.
                usage.renew();
            }
            let (answer, certificate, presence) = (answer.clone(), shown.clone(), presence.clone());
            async move {
                // It was not looked at, so that its client may make it again.
                let call = call.ok_or(h2::Reason::REFUSED_STREAM)?;
                let peer = Peer {
                    certificate,
                    presence,
                    address,
                    call: call.clone(),
                };
                // One that was taken back at once ends here, and has taken little memory.
                yield_now().await;
                let answered = Box::pin(answer.answer(request, &peer)).await;
                drop(peer);
                // A call lasts to the end of its answer, which may be a stream.
                let body = |body: A::Body| {
                    if body.is_end_stream() {
                        call.is_answered();
                    }
                    body.map_frame(move |frame| {
                        if frame.is_trailers() {
                            call.is_answered();
                        }
                        frame
                    })
                };
                Ok::<_, h2::Error>(answered.map(body))
            }
        });
        let builder = self.builder();
        let mut connection = pin!(builder.serve_connection(io, service));
        let reason = tokio::select! {
            biased;
            // Its goodbye comes before more of its calls.
            () = calls.flood() => Reason::Flood,
            result = &mut connection => {
                if let Err(error) = &result
                    && !calls.have_begun()
                {
                    self.no_connection(no_connection::of_protocol(&**error));
                }
                if ended(result, &place) || calls.is_flood() {
                    self.closed(&Reason::Flood);
                }
                return;
            }
            () = stop.cancelled() => Reason::Stop,
            () = place.displaced() => Reason::Displaced,
            () = calls.silent(self.limits.handshake) => Reason::Silent,
            () = calls.idle(self.limits.idle) => Reason::Idle,
            () = aged(self.limits.max_age, place.number()) => Reason::Age,
            () = calls.slow(self.limits.call) => Reason::Slow,
            () = revoked(certificate.as_deref()) => Reason::Revoked,
        };
        self.closed(&reason);
        connection.as_mut().graceful_shutdown();
        match reason {
            // A client that has begun a request and no more is not waited for.
            Reason::Stop if self.protocol == Protocol::Http => {
                within(GOODBYE, connection, &place).await
            }
            Reason::Stop => {
                ended(connection.await, &place);
            }
            // Nobody who is known waits for a goodbye, and another connection waits for the place.
            Reason::Displaced if !place.was_known() => {}
            Reason::Slow => {}
            Reason::Displaced => within(HASTY_GOODBYE, connection, &place).await,
            Reason::Silent => within(GOODBYE, connection, &place).await,
            // An answer to the goodbye is not waited for longer than to any other probe.
            Reason::Idle | Reason::Revoked => {
                within(self.limits.keepalive_timeout, connection, &place).await
            }
            Reason::Age => tokio::select! {
                () = within(self.limits.max_age_grace, connection, &place) => {}
                () = place.displaced() => {}
            },
            // It may be a balancer's, with calls of others that are not to end with it.
            Reason::Flood => tokio::select! {
                () = within(self.limits.max_age_grace, connection, &place) => {}
                () = calls.go_on(FLOOD_GOODBYE) => {}
                // No known caller is on it.
                () = place.displaced() => {}
            },
        }
        // What is still open goes with it.
        left.cut_off();
    }

    /// Says why no connection came about, now and then.
    fn no_connection(&self, why: Option<&'static str>) {
        if let Some(why) = why
            && let Some(held_back) = self.log.due(Instant::now().into_std())
        {
            let protocol = self.protocol.as_str();
            tracing::warn!(protocol, why, held_back, "a client could not connect");
        }
    }

    fn closed(&self, reason: &Reason) {
        if let Some(reason) = reason.as_str() {
            (self.metrics.access).connection_closed(self.protocol.as_str(), reason);
        }
    }

    fn builder(&self) -> Builder<TokioExecutor> {
        let limits = &self.limits;
        let mut builder = Builder::new(TokioExecutor::new());
        builder
            .http1()
            .timer(TokioTimer::new())
            // The first request has to come in time (`Calls::silent`), and the next ones before the connection is idle for
            // too long: hyper's own time for headers would count while none is on its way.
            .header_read_timeout(None)
            .max_buf_size((limits.header_bytes as usize).max(8192));
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(limits.streams)
            // Behind a balancer, many clients at once may take back what has not been looked at yet.
            .max_pending_accept_reset_streams(
                ON_THE_WAY_PER_STREAM.saturating_mul(limits.streams) as usize
            )
            .max_header_list_size(limits.header_bytes)
            .keep_alive_interval(limits.keepalive)
            .keep_alive_timeout(limits.keepalive_timeout)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW);
        match self.protocol {
            Protocol::Grpc => builder.http2_only(),
            Protocol::Http => builder.http1_only(),
        }
    }
}

/// Lets a connection close by itself in this time.
async fn within(
    time: Duration,
    connection: impl Future<Output = Result<(), BoxError>>,
    place: &Place,
) {
    if let Ok(result) = timeout(time, connection).await {
        ended(result, place);
    }
}

/// True where HTTP/2 has closed it for what its client sent, which is counted.
fn ended(result: Result<(), BoxError>, place: &Place) -> bool {
    let Err(error) = result else {
        return false;
    };
    tracing::debug!(%error, "a connection broke");
    let flood = is_flood(&*error);
    if flood {
        place.floods();
    }
    flood
}

/// Whether HTTP/2 itself has closed the connection for what its client sent.
fn is_flood(error: &(dyn Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<h2::Error>() {
            return error.reason() == Some(h2::Reason::ENHANCE_YOUR_CALM) && !error.is_remote();
        }
        cause = error.source();
    }
    false
}

/// A connection that broke before it was accepted is its client's affair. Where there are no descriptors left, an idle
/// connection is closed for it; that and anything else may have passed in a while.
async fn pause_after(error: &io::Error, places: &Places) {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    let broke = [
        ConnectionAborted,
        ConnectionRefused,
        ConnectionReset,
        Interrupted,
    ];
    if broke.contains(&error.kind()) {
        return;
    }
    let too_many = matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE));
    let made_room = too_many && places.make_room();
    tracing::warn!(%error, made_room, "cannot accept a connection; trying again");
    sleep(ACCEPT_AGAIN).await;
}

/// Resolves when its client's certificate counts no more; what its calls rest on has ended with it.
async fn revoked(certificate: Option<&ClientCertificate>) {
    match certificate {
        Some(certificate) => certificate.revoked().await,
        None => pending().await,
    }
}

/// Resolves at the connection's age, give or take a tenth, so that those which came together do not go together.
async fn aged(age: Option<Duration>, number: u64) {
    let Some(age) = age else {
        return pending().await;
    };
    // Multiples of the golden ratio, without their whole part, lie evenly.
    let spread = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) as f64 / u64::MAX as f64;
    sleep(age.mul_f64(0.9 + 0.2 * spread)).await;
}
