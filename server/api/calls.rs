//! The calls of a connection: how many are open, whether there has been one, and whether its client takes back more of them
//! in haste than anybody needs to, which costs it next to nothing and the server much ("rapid reset", CVE-2023-44487).

use std::future::pending;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use crate::access::bucket::Bucket;
use crate::access::rates::Rate;
use crate::api::places::Use;

/// A call that is taken back before it is answered, this early, was taken back in haste.
const HASTE: Duration = Duration::from_secs(1);
/// Calls that a connection may take back in haste at once, for each that it may have open: behind a balancer, many clients
/// do so.
const HASTY_PER_STREAM: u32 = 16;
/// Until as many more may be.
const HASTY_TIME: Duration = Duration::from_secs(16);

/// What there is to know of a connection's calls. Clones are of the same connection.
#[derive(Clone)]
pub(super) struct Calls(Arc<Shared>);

struct Shared {
    state: watch::Sender<State>,
    since: Instant,
    hasty: Mutex<Bucket>,
    most_hasty: Rate,
    usage: Use,
}

#[derive(Debug, Clone, Copy, Default)]
struct State {
    open: usize,
    /// How many there have been.
    begun: u64,
    /// Too many were taken back in haste.
    flood: bool,
}

/// Counts a call for as long as it lives.
pub(super) struct Call {
    calls: Calls,
    began: Instant,
    known: AtomicBool,
    answered: AtomicBool,
}

impl Calls {
    /// None yet, of a connection that may have so many at once.
    pub(super) fn new(streams: u32, usage: Use) -> Self {
        let hasty = streams.saturating_mul(HASTY_PER_STREAM);
        Self(Arc::new(Shared {
            state: watch::Sender::default(),
            since: Instant::now(),
            hasty: Mutex::default(),
            most_hasty: Rate {
                amount: NonZeroU32::new(hasty).unwrap_or(NonZeroU32::MIN),
                per: HASTY_TIME,
            },
            usage,
        }))
    }

    /// One more; `None` where there is a flood: then its client is to make it on another connection.
    pub(super) fn begin(&self) -> Option<Arc<Call>> {
        let mut flood = false;
        self.0.state.send_modify(|state| {
            state.begun += 1;
            flood = state.flood;
            state.open += usize::from(!flood);
        });
        (!flood).then(|| {
            Arc::new(Call {
                calls: self.clone(),
                began: Instant::now(),
                known: AtomicBool::new(false),
                answered: AtomicBool::new(false),
            })
        })
    }

    /// Resolves when there has been no call for so long.
    pub(super) async fn idle(&self, after: Duration) {
        let mut states = self.0.state.subscribe();
        loop {
            // Never closed: the sender is here.
            let _ = states.wait_for(|state| state.open == 0).await;
            tokio::select! {
                () = sleep(after) => return,
                _ = states.wait_for(|state| state.open > 0) => {}
            }
        }
    }

    /// Resolves when there has not been a first call after so long.
    pub(super) async fn silent(&self, after: Duration) {
        let mut states = self.0.state.subscribe();
        let first = timeout(after, states.wait_for(|state| state.begun > 0));
        if first.await.is_ok() {
            pending::<()>().await;
        }
    }

    /// Whether too many have been taken back in haste.
    pub(super) fn is_flood(&self) -> bool {
        self.0.state.borrow().flood
    }

    /// Resolves when too many have been taken back in haste.
    pub(super) async fn flood(&self) {
        let mut states = self.0.state.subscribe();
        let _ = states.wait_for(|state| state.flood).await;
    }

    /// Resolves when there are new calls although the client was told so long ago to make no more.
    pub(super) async fn go_on(&self, after: Duration) {
        sleep(after).await;
        let mut states = self.0.state.subscribe();
        let begun = states.borrow().begun;
        let _ = states.wait_for(|state| state.begun > begun).await;
    }

    fn took_back(&self) -> bool {
        let shared = &self.0;
        let mut hasty = shared.hasty.lock().unwrap_or_else(PoisonError::into_inner);
        hasty
            .take(shared.most_hasty, 1, shared.since.elapsed())
            .is_err()
    }
}

impl Call {
    /// Whoever calls is known, so that the connection is not closed for another one before the call has ended.
    pub(super) fn is_known(&self) {
        if !self.known.swap(true, Ordering::Relaxed) {
            self.calls.0.usage.call_begins();
        }
    }

    /// All of its answer has been said: it cannot be taken back any more.
    pub(super) fn is_answered(&self) {
        self.answered.store(true, Ordering::Relaxed);
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let hasty = !*self.answered.get_mut() && self.began.elapsed() < HASTE;
        let flood = hasty && self.calls.took_back();
        self.calls.0.state.send_modify(|state| {
            state.open -= 1;
            state.flood |= flood;
        });
        if *self.known.get_mut() {
            self.calls.0.usage.call_ends();
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;
    use crate::api::places::Places;

    fn calls(streams: u32) -> Calls {
        let place = Places::new(1, 1).take(None).expect("room");
        Calls::new(streams, place.usage())
    }

    #[tokio::test(start_paused = true)]
    async fn many_taken_back_at_once_are_a_flood_and_as_many_over_time_are_not() {
        let calls = calls(2);
        for _ in 0..100 {
            drop(calls.begin().expect("no flood"));
            sleep(HASTY_TIME / 32).await;
        }
        for taken_back in 0..32 {
            drop(calls.begin().expect("no flood"));
            assert!(!calls.is_flood(), "{taken_back} of 32");
        }
        drop(calls.begin().expect("no flood"));
        assert!(calls.is_flood() && calls.begin().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn calls_that_were_answered_or_took_their_time_are_no_flood() {
        let calls = calls(2);
        for _ in 0..100 {
            calls.begin().expect("no flood").is_answered();
        }
        let long: Vec<_> = (0..100).map(|_| calls.begin()).collect();
        sleep(HASTE).await;
        drop(long);
        assert!(!calls.is_flood());
    }

    #[tokio::test(start_paused = true)]
    async fn who_makes_calls_after_a_goodbye_is_found_out() {
        let calls = calls(2);
        let mut goes_on = Box::pin(calls.go_on(HASTE));
        assert!((&mut goes_on).now_or_never().is_none());
        drop(calls.begin());
        sleep(HASTE).await;
        assert!(
            (&mut goes_on).now_or_never().is_none(),
            "it had not heard yet"
        );
        drop(calls.begin());
        assert!((&mut goes_on).now_or_never().is_some());
    }
}
