//! What a call brings along beside its messages, as the door and its headers tell it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tonic::Request;
use tonic::metadata::MetadataMap;

use crate::error::Error;
use crate::explain::{Client, EventReceiver, EventSender, Outlet, Presence, WaitingEvents};
use crate::identity::Identity;
use crate::telemetry::TraceParent;

/// Who makes a call, and on what terms.
pub(super) struct Caller {
    /// Whom it is for, as found out before it came to its service.
    pub(super) identity: Arc<Identity>,
    /// What its connection knows of its client.
    presence: Arc<Presence>,
    /// The client's trace.
    pub(super) parent: TraceParent,
    /// When its items have to end.
    pub(super) deadline: Option<Instant>,
}

impl Caller {
    /// Of a call.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`]: it came in by another way than the door.
    pub(super) fn of<T>(request: &Request<T>) -> Result<Self, Error> {
        let known = request.extensions();
        Ok(Self {
            identity: known.get().cloned().ok_or(Error::Unauthenticated)?,
            presence: known.get().cloned().ok_or(Error::Unauthenticated)?,
            parent: trace_parent(request.metadata()),
            deadline: deadline(request.metadata()),
        })
    }

    /// It, as the reader of these events.
    pub(super) fn client(&self, events: EventSender) -> Client {
        Client {
            events,
            presence: self.presence.clone(),
            grant: self.identity.grant.clone(),
        }
    }

    /// The way to it for so many events at once, and its end of that. Whoever has no room for `patience` is shed.
    pub(super) fn outlet(
        &self,
        waiting: &WaitingEvents,
        events: usize,
        patience: Duration,
    ) -> (Outlet, EventReceiver) {
        let (events, receiver) = waiting.channel(&self.identity.tenant, events);
        (Outlet::on(self.client(events), patience), receiver)
    }
}

/// When the items of a call have to end, by its `grpc-timeout`: a little before the client ends it, so that it hears of it.
/// One that cannot be read is none, as for all who read it.
fn deadline(metadata: &MetadataMap) -> Option<Instant> {
    const MARGIN: Duration = Duration::from_millis(50);
    let timeout = parse_timeout(metadata.get("grpc-timeout")?.to_str().ok()?)?;
    let time = timeout - MARGIN.min(timeout / 10);
    tokio::time::Instant::now().into_std().checked_add(time)
}

/// At most eight digits, and a unit.
fn parse_timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.len() > 8 || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let count = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(count * 3600)),
        "M" => Some(Duration::from_secs(count * 60)),
        "S" => Some(Duration::from_secs(count)),
        "m" => Some(Duration::from_millis(count)),
        "u" => Some(Duration::from_micros(count)),
        "n" => Some(Duration::from_nanos(count)),
        _ => None,
    }
}

fn trace_parent(metadata: &MetadataMap) -> TraceParent {
    let header = |name| {
        metadata
            .get(name)
            .and_then(|v| v.to_str().ok())
            .map(str::to_owned)
    };
    TraceParent {
        traceparent: header("traceparent"),
        tracestate: header("tracestate"),
    }
}
