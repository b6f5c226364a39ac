//! Bytes of requests that are being received: one budget for all connections, of which each payer may have a share.
//!
//! A payer is a tenant, or where nobody has to say who they are, an address. Who is over its share waits for its own
//! bytes to be consumed, and holds up nobody else.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::future::Future;
use std::net::{IpAddr, Ipv6Addr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use tokio::sync::oneshot;

use crate::metrics::Metrics;

/// A payer may have this part of the budget.
const PARTS: usize = 4;
/// Messages that wait for room at most, and the part of them that a payer may have; more are refused at once. While they
/// wait, what their clients have sent stays in the streams' windows, which comes to 64 KiB for each: 64 MiB.
const WAITING: usize = 1024;

/// Who has bytes in flight.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Payer {
    /// All who call for a tenant.
    Tenant(Arc<str>),
    /// All at an address; `None`: it is not known.
    Address(Option<IpAddr>),
}

impl Payer {
    /// Who has one address of IPv6 has all others of the same /64 network.
    pub(super) fn at(address: Option<IpAddr>) -> Self {
        Self::Address(address.map(|address| match address.to_canonical() {
            IpAddr::V6(v6) => {
                let [a, b, c, d, ..] = v6.segments();
                Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
            }
            v4 => v4,
        }))
    }
}

/// The budget.
pub(super) struct Budget {
    /// Bytes of all payers.
    most: usize,
    /// Bytes of each.
    share: usize,
    state: Mutex<State>,
    metrics: Arc<Metrics>,
}

#[derive(Default)]
struct State {
    used: usize,
    /// Those who have bytes in flight, or wait for room: no more than there are open calls.
    payers: HashMap<Payer, Account>,
    /// In the order in which they came.
    waiting: BTreeMap<u64, Entry>,
    /// The first that waits and is not over its share waits for the others' bytes: nobody overtakes it.
    full: bool,
    /// The number of the next one that waits.
    next: u64,
}

#[derive(Default)]
struct Account {
    used: usize,
    waiting: usize,
}

struct Entry {
    payer: Payer,
    bytes: usize,
    /// Told when the room is taken for it.
    tell: oneshot::Sender<()>,
}

/// A payer's part of the budget.
#[derive(Clone)]
pub(super) struct Share {
    budget: Arc<Budget>,
    payer: Payer,
}

/// Bytes of the budget, given back when this is dropped.
pub(super) struct Held {
    share: Share,
    bytes: usize,
}

impl Held {
    /// All beyond so many bytes, to be given back by itself.
    pub(super) fn beyond(&mut self, bytes: usize) -> Self {
        let rest = self.bytes.saturating_sub(bytes);
        self.bytes -= rest;
        Self {
            share: self.share.clone(),
            bytes: rest,
        }
    }
}

/// Waits for bytes of the budget, until it is dropped.
pub(super) struct Waiting {
    /// `None`: it has what it waits for.
    share: Option<Share>,
    bytes: usize,
    number: u64,
    told: oneshot::Receiver<()>,
}

/// Room, or the wait for it.
pub(super) enum Room {
    Held(Held),
    Waiting(Waiting),
    /// As many wait as may.
    None,
}

impl Budget {
    /// Of so many bytes, of which any payer may have `least`, however small its share.
    pub(super) fn new(bytes: usize, least: usize, metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self {
            most: bytes,
            share: (bytes / PARTS).max(least).min(bytes),
            state: Mutex::default(),
            metrics,
        })
    }

    /// The share of a payer.
    pub(super) fn share(self: &Arc<Self>, payer: Payer) -> Share {
        Share {
            budget: self.clone(),
            payer,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn give_back(&self, payer: &Payer, bytes: usize) {
        let mut state = self.lock();
        state.used -= bytes;
        state.change(payer, |account| account.used -= bytes);
        state.grant(self.most, self.share);
    }
}

impl State {
    fn change(&mut self, payer: &Payer, change: impl FnOnce(&mut Account)) {
        let Some(account) = self.payers.get_mut(payer) else {
            return;
        };
        change(account);
        if account.used == 0 && account.waiting == 0 {
            self.payers.remove(payer);
        }
    }

    /// Takes so many bytes if there is room for them.
    fn take(&mut self, payer: &Payer, bytes: usize, most: usize, share: usize) -> bool {
        let used = self.payers.get(payer).map_or(0, |account| account.used);
        if self.used + bytes > most || used + bytes > share {
            return false;
        }
        self.used += bytes;
        self.payers.entry(payer.clone()).or_default().used += bytes;
        true
    }

    /// Gives room that has become free to those who wait, in turn. A payer that is over its share is passed over; what is
    /// too large for what is left of the budget holds the others up, or it would never be its turn.
    fn grant(&mut self, most: usize, share: usize) {
        self.full = false;
        let (mut granted, mut over) = (Vec::new(), HashSet::new());
        for (number, entry) in &self.waiting {
            if over.contains(&entry.payer) {
                continue;
            }
            let Some(account) = self.payers.get_mut(&entry.payer) else {
                continue;
            };
            if account.used + entry.bytes > share {
                over.insert(&entry.payer);
                continue;
            }
            if self.used + entry.bytes > most {
                self.full = true;
                break;
            }
            self.used += entry.bytes;
            account.used += entry.bytes;
            account.waiting -= 1;
            granted.push(*number);
        }
        for entry in granted
            .iter()
            .filter_map(|number| self.waiting.remove(number))
        {
            // One that has just gone gives it back itself.
            let _ = entry.tell.send(());
        }
    }
}

impl Share {
    /// So many bytes, if there is room for them now, whoever waits.
    pub(super) fn take_now(&self, bytes: usize) -> Option<Held> {
        let Budget { most, share, .. } = *self.budget;
        let taken = self.budget.lock().take(&self.payer, bytes, most, share);
        taken.then(|| self.held(bytes))
    }

    /// So many bytes when there is room for them: first come, first served, among all who are not over their share.
    pub(super) fn take(&self, bytes: usize) -> Room {
        let Budget { most, share, .. } = *self.budget;
        let mut state = self.budget.lock();
        let before = (state.payers.get(&self.payer)).map_or(0, |account| account.waiting);
        if before == 0 && !state.full && state.take(&self.payer, bytes, most, share) {
            drop(state);
            return Room::Held(self.held(bytes));
        }
        if before >= WAITING / PARTS || state.waiting.len() >= WAITING {
            return Room::None;
        }
        let number = state.next;
        state.next += 1;
        let (tell, told) = oneshot::channel();
        let payer = self.payer.clone();
        state.payers.entry(payer.clone()).or_default().waiting += 1;
        state.waiting.insert(number, Entry { payer, bytes, tell });
        // It may be the first that waits for the others' bytes.
        state.grant(most, share);
        Room::Waiting(Waiting {
            share: Some(self.clone()),
            bytes,
            number,
            told,
        })
    }

    fn held(&self, bytes: usize) -> Held {
        self.budget.metrics.bodies.received(bytes);
        Held {
            share: self.clone(),
            bytes,
        }
    }
}

impl Future for Waiting {
    type Output = Held;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Held> {
        if ready!(Pin::new(&mut self.told).poll(cx)).is_ok()
            && let Some(share) = self.share.take()
        {
            return Poll::Ready(share.held(self.bytes));
        }
        // The budget tells before it forgets; and nobody asks again who has been told.
        Poll::Pending
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let Some(Share { budget, payer }) = self.share.take() else {
            return;
        };
        let mut state = budget.lock();
        if state.waiting.remove(&self.number).is_some() {
            state.change(&payer, |account| account.waiting -= 1);
            // It may have held others up.
            state.grant(budget.most, budget.share);
        } else {
            drop(state);
            budget.give_back(&payer, self.bytes);
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let Share { budget, payer } = &self.share;
        budget.metrics.bodies.consumed(self.bytes);
        budget.give_back(payer, self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn budget(bytes: usize, least: usize) -> Arc<Budget> {
        Budget::new(bytes, least, Arc::new(Metrics::new().expect("metrics")))
    }

    fn tenant(name: &str) -> Payer {
        Payer::Tenant(name.into())
    }

    #[track_caller]
    fn waits(room: Room) -> Waiting {
        match room {
            Room::Waiting(waiting) => waiting,
            Room::Held(_) | Room::None => panic!("it should wait"),
        }
    }

    #[test]
    fn nobody_has_more_than_a_share_and_all_together_no_more_than_there_is() {
        let budget = budget(64, 0);
        let shares: Vec<_> = (0..5)
            .map(|i| budget.share(tenant(&i.to_string())))
            .collect();
        let mut held = Vec::new();
        for share in &shares[..4] {
            held.push(share.take_now(16).expect("its share"));
            assert!(share.take_now(1).is_none(), "no more than that");
        }
        assert!(shares[4].take_now(1).is_none(), "nothing is left");
        held.pop();
        assert!(shares[4].take_now(16).is_some());
    }

    #[test]
    fn one_message_fits_into_any_share() {
        let budget = budget(64, 60);
        let share = budget.share(tenant("a"));
        assert!(share.take_now(60).is_some());
        assert!(share.take_now(61).is_none());
    }

    #[test]
    fn who_waits_is_served_in_turn_and_nobody_else_is_held_up() {
        let budget = budget(64, 0);
        let (a, b) = (budget.share(tenant("a")), budget.share(tenant("b")));
        let (first, second) = (a.take_now(8), a.take_now(8));
        let mut large = waits(a.take(16));
        let mut small = waits(a.take(1));
        assert!(matches!(b.take(16), Room::Held(_)), "others have room");
        drop(first);
        assert!((&mut large).now_or_never().is_none());
        assert!((&mut small).now_or_never().is_none(), "it came later");
        assert!(a.take_now(8).is_some(), "a new call is not held up");
        drop(second);
        let held = (&mut large).now_or_never().expect("its turn");
        drop(held);
        assert!((&mut small).now_or_never().is_some());
    }

    #[test]
    fn what_is_too_large_for_what_is_left_gets_its_turn() {
        let budget = budget(64, 64);
        let of = |name| budget.share(tenant(name));
        let (first, second) = (of("a").take_now(32), of("b").take_now(32));
        let mut large = waits(of("c").take(60));
        let mut small = waits(of("d").take(1));
        drop(first);
        assert!((&mut large).now_or_never().is_none());
        assert!((&mut small).now_or_never().is_none(), "it came later");
        assert!(matches!(of("e").take(1), Room::Waiting(_)), "so did this");
        drop(second);
        assert!((&mut large).now_or_never().is_some());
        assert!((&mut small).now_or_never().is_some());
    }

    #[test]
    fn as_many_wait_as_may() {
        let budget = budget(64, 0);
        let share = budget.share(tenant("a"));
        let _held = share.take_now(16);
        let _waiting: Vec<_> = (0..WAITING / PARTS).map(|_| waits(share.take(1))).collect();
        assert!(matches!(share.take(1), Room::None));
    }

    #[test]
    fn nothing_is_lost_where_waiting_is_given_up() {
        let budget = budget(64, 0);
        let share = budget.share(tenant("a"));
        let held = share.take_now(16);
        let (early, late) = (waits(share.take(16)), waits(share.take(16)));
        drop(early);
        drop(held);
        // It has been granted, and has not heard of it.
        drop(late);
        let state = budget.lock();
        assert!(state.used == 0 && state.payers.is_empty() && state.waiting.is_empty());
    }

    #[test]
    fn a_network_of_ipv6_is_one_payer() {
        let at = |text: &str| Payer::at(Some(text.parse().expect("an address")));
        assert_eq!(at("2001:db8::1"), at("2001:db8::ffff:2"));
        assert_ne!(at("2001:db8::1"), at("2001:db8:0:1::1"));
        assert_eq!(at("::ffff:192.0.2.1"), at("192.0.2.1"));
        assert_ne!(at("192.0.2.1"), at("192.0.2.2"));
    }
}
