//! Who may speak, where items speak one after the other.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

/// Gives out numbers, upwards and downwards; the smallest that is left may speak. Bounded by the items of a stream.
#[derive(Debug)]
pub(super) struct Turns {
    waiting: Mutex<Waiting>,
    speaks: watch::Sender<i64>,
}

#[derive(Debug, Default)]
struct Waiting {
    /// The largest number that was given out, and the smallest.
    last: i64,
    first: i64,
    numbers: BTreeSet<i64>,
}

/// A number. Dropping it lets the next one speak.
#[derive(Debug)]
pub(super) struct Turn {
    number: i64,
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
        waiting.last += 1;
        let number = waiting.last;
        self.give(&mut waiting, number)
    }

    /// A number before all others: for an item that had its turn, and has more to say.
    pub(super) fn before_all(self: &Arc<Self>) -> Turn {
        let mut waiting = self.lock();
        waiting.first -= 1;
        let number = waiting.first;
        self.give(&mut waiting, number)
    }

    fn give(self: &Arc<Self>, waiting: &mut Waiting, number: i64) -> Turn {
        waiting.numbers.insert(number);
        self.tell(waiting);
        Turn {
            number,
            turns: self.clone(),
        }
    }

    fn tell(&self, waiting: &Waiting) {
        let Some(&first) = waiting.numbers.first() else {
            return;
        };
        self.speaks.send_if_modified(|speaks| {
            let changed = *speaks != first;
            *speaks = first;
            changed
        });
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
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
        waiting.numbers.remove(&self.number);
        self.turns.tell(&waiting);
    }
}
