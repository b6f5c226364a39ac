//! Calls that need no credentials: as many as there is room for, and a new one always finds some.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

use crate::api::budget::Payer;

/// Such calls at once. Each has a decoder and an encoder of 8 KiB: 64 MiB.
pub(super) const OPEN: usize = 4096;

/// The calls that are open. At the bound, the oldest call of whoever has the most of them ends for a new one: so nobody
/// can keep probes out by filling it, and who floods it has its own calls ended.
#[derive(Default)]
pub(super) struct Lobby(Mutex<State>);

#[derive(Default)]
struct State {
    /// The number of the next one.
    next: u64,
    open: usize,
    /// By the number of each.
    calls: HashMap<Payer, BTreeMap<u64, CancellationToken>>,
}

/// A call that is open, for as long as this lives.
pub(super) struct Stay {
    lobby: Arc<Lobby>,
    payer: Payer,
    number: u64,
    displaced: CancellationToken,
}

impl Lobby {
    /// A call of this payer's.
    pub(super) fn enter(self: &Arc<Self>, payer: Payer) -> Stay {
        let mut state = self.lock();
        if state.open >= OPEN {
            state.displace();
        }
        let number = state.next;
        state.next += 1;
        state.open += 1;
        let displaced = CancellationToken::new();
        (state.calls.entry(payer.clone()).or_default()).insert(number, displaced.clone());
        drop(state);
        Stay {
            lobby: self.clone(),
            payer,
            number,
            displaced,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn displace(&mut self) {
        let most = (self.calls.iter()).max_by_key(|(_, calls)| {
            let oldest = calls.keys().next().copied();
            (calls.len(), std::cmp::Reverse(oldest))
        });
        let most = most.and_then(|(payer, calls)| Some((payer.clone(), *calls.keys().next()?)));
        if let Some((payer, oldest)) = most
            && let Some(displaced) = self.remove(&payer, oldest)
        {
            displaced.cancel();
        }
    }

    fn remove(&mut self, payer: &Payer, number: u64) -> Option<CancellationToken> {
        let calls = self.calls.get_mut(payer)?;
        let removed = calls.remove(&number)?;
        if calls.is_empty() {
            self.calls.remove(payer);
        }
        self.open -= 1;
        Some(removed)
    }
}

impl Stay {
    /// Resolves when the call has to end for another one.
    pub(super) async fn displaced(&self) {
        self.displaced.cancelled().await;
    }
}

impl Drop for Stay {
    fn drop(&mut self) {
        // One that was displaced is out already.
        self.lobby.lock().remove(&self.payer, self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payer(name: &str) -> Payer {
        Payer::Tenant(name.into())
    }

    #[test]
    fn a_new_call_ends_the_oldest_of_whoever_has_the_most() {
        let lobby = Arc::new(Lobby::default());
        let probe = lobby.enter(payer("probe"));
        let flood: Vec<_> = (0..2 * OPEN).map(|_| lobby.enter(payer("flood"))).collect();
        assert!(!probe.displaced.is_cancelled(), "it has one call alone");
        let ended = |stay: &&Stay| stay.displaced.is_cancelled();
        let oldest = &flood[..=OPEN];
        assert_eq!(oldest.iter().filter(ended).count(), OPEN + 1);
        assert_eq!(flood.iter().filter(ended).count(), OPEN + 1);
        let another = lobby.enter(payer("another probe"));
        assert!(!another.displaced.is_cancelled() && !probe.displaced.is_cancelled());
        assert_eq!(lobby.lock().open, OPEN);
    }

    #[test]
    fn what_has_ended_leaves_nothing_behind() {
        let lobby = Arc::new(Lobby::default());
        drop((lobby.enter(payer("a")), lobby.enter(payer("b"))));
        let state = lobby.lock();
        assert!(state.calls.is_empty() && state.open == 0);
    }
}
