//! The calls of a connection: how many are open, whether there has been one, and whether its client takes one back in haste
//! after its address has done so more often than anybody needs to: that costs it next to nothing and the server much
//! ("rapid reset", CVE-2023-44487).

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use crate::api::limits::ON_THE_WAY_PER_STREAM;
use crate::api::places::Use;

/// A call that is taken back before it is answered, this early, was taken back in haste.
const HASTE: Duration = Duration::from_secs(1);

/// What there is to know of a connection's calls. Clones are of the same connection.
#[derive(Clone)]
pub(super) struct Calls(Arc<Shared>);

struct Shared {
    state: watch::Sender<State>,
    usage: Use,
    /// Calls that may still be refused after a flood; then nothing more is read.
    refusals_left: AtomicU32,
}

#[derive(Debug, Clone, Copy, Default)]
struct State {
    open: usize,
    /// How many there have been.
    begun: u64,
    /// One was taken back in haste after too many others of its address.
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
    /// None yet, on a connection that may have so many open.
    pub(super) fn new(usage: Use, streams: u32) -> Self {
        Self(Arc::new(Shared {
            state: watch::Sender::default(),
            usage,
            refusals_left: AtomicU32::new(ON_THE_WAY_PER_STREAM.saturating_mul(streams)),
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
        if flood {
            let left = &self.0.refusals_left;
            // A connection's calls begin one after the other.
            left.store(
                left.load(Ordering::Relaxed).saturating_sub(1),
                Ordering::Relaxed,
            );
        }
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

    /// Resolves when a call is open for so long and no other one has begun since; `None`: never.
    pub(super) async fn slow(&self, after: Option<Duration>) {
        let Some(after) = after else {
            return pending().await;
        };
        let mut states = self.0.state.subscribe();
        loop {
            let open = states.wait_for(|state| state.open > 0).await;
            let begun = open.map_or(0, |state| state.begun);
            tokio::select! {
                () = sleep(after) => return,
                _ = states.wait_for(|state| state.open == 0 || state.begun > begun) => {}
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

    /// Whether there has been a call.
    pub(super) fn have_begun(&self) -> bool {
        self.0.state.borrow().begun > 0
    }

    /// Whether one was taken back in haste after too many others of its address.
    pub(super) fn is_flood(&self) -> bool {
        self.0.state.borrow().flood
    }

    /// Whether so many were made all the same that no more is read.
    pub(super) fn is_cut_off(&self) -> bool {
        self.0.refusals_left.load(Ordering::Relaxed) == 0
    }

    /// Whether there is a flood; resolves when it is so.
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
        let flood = hasty && !self.calls.0.usage.takes_back();
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
    use std::num::NonZeroU32;

    use futures::FutureExt;

    use super::*;
    use crate::api::places::Places;

    const RESETS: u32 = 32;
    const STREAMS: u32 = 8;

    /// Two connections of one address.
    fn calls() -> [Calls; 2] {
        let places = Places::new(2, 2, NonZeroU32::new(RESETS));
        [(); 2].map(|()| Calls::new(places.take(None).expect("room").usage(), STREAMS))
    }

    #[tokio::test(start_paused = true)]
    async fn many_taken_back_at_once_are_a_flood_over_all_connections() {
        let calls = calls();
        for taken_back in 0..RESETS {
            let calls = &calls[taken_back as usize % 2];
            drop(calls.begin().expect("no flood"));
            assert!(!calls.is_flood(), "{taken_back} of {RESETS}");
        }
        drop(calls[0].begin().expect("no flood"));
        for refused in 0..ON_THE_WAY_PER_STREAM * STREAMS {
            assert!(!calls[0].is_cut_off(), "{refused} refused");
            assert!(calls[0].is_flood() && calls[0].begin().is_none());
        }
        assert!(calls[0].is_cut_off());
        calls[1]
            .begin()
            .expect("it took back no more")
            .is_answered();
        assert!(!calls[1].is_flood() && !calls[1].is_cut_off());
    }

    #[tokio::test(start_paused = true)]
    async fn calls_that_were_answered_or_took_their_time_are_no_flood() {
        let [calls, _] = calls();
        for _ in 0..100 {
            calls.begin().expect("no flood").is_answered();
        }
        let long: Vec<_> = (0..100).map(|_| calls.begin()).collect();
        sleep(HASTE).await;
        drop(long);
        assert!(!calls.is_flood());
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_is_slow_by_itself_however_many_there_were() {
        let [calls, _] = calls();
        let mut slow = Box::pin(calls.slow(Some(2 * HASTE)));
        for _ in 0..4 {
            let call = calls.begin();
            assert!(timeout(HASTE, &mut slow).await.is_err());
            drop(call);
            assert!(timeout(4 * HASTE, &mut slow).await.is_err());
        }
        let _call = calls.begin();
        assert!(timeout(HASTE, &mut slow).await.is_err());
        assert!(timeout(2 * HASTE, &mut slow).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn who_makes_calls_after_a_goodbye_is_found_out() {
        let [calls, _] = calls();
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
