//! How a client has left, as the connection that it was on knows it.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use crate::explain::CancelReason;

/// What is known of the client at the other end of a connection. One for a connection, shared by all calls on it; told by
/// what reads and writes it, and asked when one of its calls has ended before it was answered.
///
/// Open => (Lost | CutOff); the first one stays.
#[derive(Debug)]
pub struct Presence {
    state: AtomicU8,
    opened: Instant,
    /// When something came last, in ms since it was opened.
    heard: AtomicU64,
    /// An open connection is silent for this long only where its client does not answer probes.
    silence: Duration,
}

const OPEN: u8 = 0;
const LOST: u8 = 1;
const CUT_OFF: u8 = 2;

impl Presence {
    /// Of a connection that has just been opened. Its client is asked whether it is there when nothing has come for a
    /// while, and has this long to answer.
    pub fn new(silence: Duration) -> Self {
        Self {
            state: AtomicU8::new(OPEN),
            opened: Instant::now(),
            heard: AtomicU64::new(0),
            silence,
        }
    }

    /// Something came.
    pub fn heard(&self) {
        self.heard.store(self.age(), Ordering::Release);
    }

    /// The connection broke, or its client closed it.
    pub fn lost(&self) {
        self.end(LOST);
    }

    /// The server is about to close the connection, with calls that are still open.
    pub fn cut_off(&self) {
        self.end(CUT_OFF);
    }

    /// Why a call ended whose answers nobody reads any more.
    pub fn left(&self) -> CancelReason {
        let silent = self
            .age()
            .saturating_sub(self.heard.load(Ordering::Acquire));
        match self.state.load(Ordering::Acquire) {
            LOST => CancelReason::ClientVanished,
            CUT_OFF => CancelReason::CutOff,
            // The connection is closed for it, which ends its calls first.
            _ if u128::from(silent) >= self.silence.as_millis() => CancelReason::ClientVanished,
            _ => CancelReason::StreamEnded,
        }
    }

    fn end(&self, state: u8) {
        // Where it has ended already, that stays.
        let _ = (self.state).compare_exchange(OPEN, state, Ordering::AcqRel, Ordering::Acquire);
    }

    fn age(&self) -> u64 {
        u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SILENCE: Duration = Duration::from_secs(20);

    #[tokio::test(start_paused = true)]
    async fn a_call_that_ends_on_an_open_connection_was_ended_by_its_client() {
        let presence = Presence::new(SILENCE);
        assert_eq!(presence.left(), CancelReason::StreamEnded);
        tokio::time::advance(SILENCE * 3).await;
        presence.heard();
        assert_eq!(presence.left(), CancelReason::StreamEnded);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_does_not_answer_probes_has_vanished() {
        let presence = Presence::new(SILENCE);
        presence.heard();
        tokio::time::advance(SILENCE).await;
        assert_eq!(presence.left(), CancelReason::ClientVanished);
    }

    #[tokio::test(start_paused = true)]
    async fn what_ended_a_connection_first_counts() {
        let presence = Presence::new(SILENCE);
        presence.cut_off();
        presence.lost();
        assert_eq!(presence.left(), CancelReason::CutOff);
        let presence = Presence::new(SILENCE);
        presence.lost();
        presence.cut_off();
        assert_eq!(presence.left(), CancelReason::ClientVanished);
    }
}
