//! How calls are received: what their clients may send, who pays for the room that this takes, and for how long.

use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderMap, Request};
use futures::FutureExt;
use futures::future::BoxFuture;
use tonic::Status;

use crate::api::body::{DECODER_BYTES, Paid, Upload, grown};
use crate::api::budget::{Budget, Payer};
use crate::api::connections::{Peer, STREAM_WINDOW};
use crate::api::leftover::ReadToEnd;
use crate::api::lobby::Lobby;
use crate::api::methods::{Messages, Takes};
use crate::api::refusal::Refusal;
use crate::identity::Identity;
use crate::metrics::Metrics;

/// How a call's messages are compressed.
const ENCODING: &str = "grpc-encoding";
/// How those of its answer may be.
const ACCEPTED: &str = "grpc-accept-encoding";

/// What requests may take until they are received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestBytes {
    /// Of a message at most.
    pub message: usize,
    /// Of all that is being received, over all connections.
    pub in_flight: usize,
    /// From a message's first byte to its last, or for a call that takes one message, from the call's begin to its body's
    /// end. A long message has a second more for each 64 KiB.
    pub patience: Duration,
}

impl RequestBytes {
    /// What one call holds at most, where messages may have so many bytes: the least that a budget is of use with.
    pub const fn of_call(message: usize) -> usize {
        // One that is compressed lies there three times: as it came, unpacked, and in the decoder.
        grown(DECODER_BYTES, message) + 2 * message + STREAM_WINDOW as usize
    }
}

/// Receives calls.
pub(super) struct Reception {
    bytes: RequestBytes,
    budget: Arc<Budget>,
    lobby: Arc<Lobby>,
    metrics: Arc<Metrics>,
}

/// A call whose body is received as far as it may be.
pub(super) struct Received {
    pub(super) call: Request<Upload<ReadToEnd>>,
    /// When it has to end before it is through; `None`: it need not.
    pub(super) ended: Option<BoxFuture<'static, Status>>,
}

/// Whether the call's messages are compressed with gzip. They are unpacked before its service hears of them; so it does not
/// hear of the encoding either. Answers are compressed for those who compress: most libraries say of themselves that they
/// can read it, which costs time in every token where nobody wants it.
fn take_encoding(headers: &mut HeaderMap) -> bool {
    let gzip = headers
        .get(ENCODING)
        .is_some_and(|encoding| encoding == "gzip");
    headers.remove(if gzip { ENCODING } else { ACCEPTED });
    gzip
}

impl Reception {
    pub(super) fn new(bytes: RequestBytes, metrics: Arc<Metrics>) -> Self {
        let least = RequestBytes::of_call(bytes.message);
        Self {
            budget: Budget::new(bytes.in_flight, least, metrics.clone()),
            lobby: Arc::default(),
            bytes,
            metrics,
        }
    }

    /// A call of this caller's; `None`: it is for everybody. The body of one that takes many messages can be found in it
    /// for [`crate::api::inbound`].
    ///
    /// # Errors
    /// There is no room for it.
    pub(super) fn receive(
        &self,
        mut call: Request<ReadToEnd>,
        caller: Option<&Identity>,
        peer: &Peer,
    ) -> Result<Received, Status> {
        let mut takes = Takes::of(call.uri().path(), self.bytes.message);
        takes.gzip = take_encoding(call.headers_mut());
        let (mut paid, mut ended) = (None, None);
        match caller {
            _ if takes.messages == Messages::None => {}
            Some(caller) => paid = Some(self.pay(takes, caller, peer)?),
            None => ended = Some(self.stay(peer)),
        }
        let (patience, metrics) = (self.bytes.patience, self.metrics.clone());
        let mut call = call.map(|body| Upload::new(body, takes, patience, paid, metrics));
        if takes.messages == Messages::Many {
            let body = call.body().clone();
            call.extensions_mut().insert(body);
        }
        Ok(Received { call, ended })
    }

    fn pay(&self, takes: Takes, caller: &Identity, peer: &Peer) -> Result<Paid, Status> {
        let payer = match &*caller.tenant {
            // Of a server that asks nobody who they are.
            "" => Payer::at(peer.address),
            _ => Payer::Tenant(caller.tenant.clone()),
        };
        let share = self.budget.share(payer);
        let base = match takes.messages {
            // A stream's service may have other things to do than to read.
            Messages::Many => DECODER_BYTES + STREAM_WINDOW as usize,
            Messages::One | Messages::None => DECODER_BYTES,
        };
        let Some(base) = share.take_now(base) else {
            self.metrics.bodies.refused(Refusal::NoRoom.label());
            return Err(Refusal::NoRoom.status());
        };
        Ok(Paid::new(share, base))
    }

    fn stay(&self, peer: &Peer) -> BoxFuture<'static, Status> {
        let stay = self.lobby.enter(Payer::at(peer.address));
        let metrics = self.metrics.clone();
        async move {
            stay.displaced().await;
            metrics.bodies.refused(Refusal::Crowded.label());
            Refusal::Crowded.status()
        }
        .boxed()
    }
}
