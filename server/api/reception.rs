//! How calls are received: what their clients may send, who pays for the room that this takes, and for how long.

use std::sync::Arc;
use std::time::Duration;

use axum::http::Request;
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
        grown(DECODER_BYTES, message) + STREAM_WINDOW as usize
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
        call: Request<ReadToEnd>,
        caller: Option<&Identity>,
        peer: &Peer,
    ) -> Result<Received, Status> {
        let takes = Takes::of(call.uri().path(), self.bytes.message);
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
