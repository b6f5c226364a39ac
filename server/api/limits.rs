//! What connections may take.

use std::num::NonZeroU32;
use std::time::Duration;

/// A connection that has not called yet has this long to hear that it is closed.
pub(super) const GOODBYE: Duration = Duration::from_secs(1);
/// One that makes room for another one, which has its place already.
pub(super) const HASTY_GOODBYE: Duration = Duration::from_millis(100);
/// One on which too many calls were taken back has so long to hear that no more are taken.
pub(super) const FLOOD_GOODBYE: Duration = Duration::from_millis(250);
/// Calls that clients behind one balancer may take back, or go on to make after a goodbye, before they can hear of it, for
/// each that their connection may have open.
pub(super) const ON_THE_WAY_PER_STREAM: u32 = 4;
/// A request over HTTP may take so long until the last of its answer is in a buffer: a scrape of the largest metrics takes a
/// fraction of a second.
const HTTP_CALL: Duration = Duration::from_secs(30);
/// What the system keeps for an HTTP connection whose client does not read, in bytes. It makes twice as much of it.
pub(super) const HTTP_SEND_BUFFER: usize = 128 << 10;
/// Connections that an address may have by default where all are few.
const FEW: usize = 16;

/// What connections may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// Open at once for gRPC. Then the longest idle one is closed for a new one; where all are at work, the new one.
    pub connections: usize,
    /// The same of each address, or of each /64 of IPv6; `None`: half of all.
    pub connections_per_address: Option<usize>,
    /// Open at once for HTTP, half of them for each address; the one that has not been used for longest is closed
    /// for a new one.
    pub http_connections: usize,
    /// Calls that a connection has open at once; more wait at their client.
    pub streams: u32,
    /// Calls that an address may take back at once as soon as they are made; a quarter of it more in each second.
    /// `None`: they are not counted.
    pub resets_per_address: Option<NonZeroU32>,
    /// All headers of a call, in bytes.
    pub header_bytes: u32,
    /// From the connection to the end of its TLS handshake, and from there to its first call.
    pub handshake: Duration,
    /// A connection whose client takes nothing of what is sent to it for so long is closed.
    pub write: Duration,
    /// A connection without a call is closed after this.
    pub idle: Duration,
    /// A connection is asked to be made anew after this, give or take a tenth; `None`: never.
    pub max_age: Option<Duration>,
    /// After that, the time its calls have to end before they are cut off.
    pub max_age_grace: Duration,
    /// A connection with a call whose answer takes longer is closed; `None`: calls take their time.
    pub call: Option<Duration>,
    /// How often a client is asked whether it is still there.
    pub keepalive: Duration,
    /// How long its answer may take.
    pub keepalive_timeout: Duration,
}

impl ConnectionLimits {
    /// Connections of one address, for gRPC.
    pub fn of_address(&self) -> usize {
        // Half of a few would be one or none.
        let half = (self.connections / 2).max(FEW);
        (self.connections_per_address.unwrap_or(half)).min(self.connections)
    }

    /// What holds for HTTP: few connections, and short requests, one after the other. An answer that its client takes by
    /// the byte waits until the connection has been idle for too long.
    pub(super) fn of_http(&self) -> Self {
        Self {
            connections: self.http_connections,
            connections_per_address: Some(self.http_connections.div_ceil(2)),
            // HTTP/1.1 takes nothing back.
            resets_per_address: None,
            max_age_grace: GOODBYE,
            call: Some(HTTP_CALL),
            ..*self
        }
    }
}
