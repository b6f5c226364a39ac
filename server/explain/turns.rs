//! Who may speak, where items speak one after the other.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

/// Gives out numbers; the smallest that is left may speak. Bounded by the items of a stream.
#[derive(Debug)]
pub(super) struct Turns {
    waiting: Mutex<(u64, BTreeSet<u64>)>,
    speaks: watch::Sender<u64>,
}

/// A number. Dropping it lets the next one speak.
#[derive(Debug)]
pub(super) struct Turn {
    number: u64,
    turns: Arc<Turns>,
}

impl Default for Turns {
    fn default() -> Self {
        Self {
            waiting: Mutex::default(),
            speaks: watch::channel(0).0,
        }
    }
}

impl Turns {
    /// The next number.
    pub(super) fn next(self: &Arc<Self>) -> Turn {
        let mut waiting = self.lock();
        let number = waiting.0;
        waiting.0 += 1;
        waiting.1.insert(number);
        self.tell(&waiting);
        Turn {
            number,
            turns: self.clone(),
        }
    }

    fn tell(&self, (next, waiting): &(u64, BTreeSet<u64>)) {
        let first = waiting.first().copied().unwrap_or(*next);
        self.speaks.send_if_modified(|speaks| {
            let changed = *speaks != first;
            *speaks = first;
            changed
        });
    }

    fn lock(&self) -> MutexGuard<'_, (u64, BTreeSet<u64>)> {
        // Each operation leaves it whole.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Turn {
    pub(super) fn has_come(&self) -> bool {
        *self.turns.speaks.borrow() == self.number
    }

    /// Waits until it may speak. Safe to drop.
    pub(super) async fn come(&self) {
        let mut speaks = self.turns.speaks.subscribe();
        // The sender is there as long as the turn.
        let _ = speaks.wait_for(|speaks| *speaks == self.number).await;
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut waiting = self.turns.lock();
        waiting.1.remove(&self.number);
        self.turns.tell(&waiting);
    }
}
