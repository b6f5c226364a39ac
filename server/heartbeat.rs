//! Whether the threads that serve calls still move, as seen from a thread beside them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

/// How often it beats at most.
const BEAT: Duration = Duration::from_secs(1);

/// A task on the runtime that serves calls beats; whoever answers probes looks how long ago that was. Nothing in it waits.
#[derive(Debug)]
pub struct Heartbeat {
    started: Instant,
    /// The last beat, in ms since then.
    last: AtomicU64,
    /// Threads that have not moved for so long hang; `None`: nobody asks.
    hang: Option<Duration>,
}

impl Heartbeat {
    /// Of threads that hang when they have not moved for so long.
    pub fn new(hang: Option<Duration>) -> Self {
        Self {
            started: Instant::now(),
            last: AtomicU64::new(0),
            hang,
        }
    }

    /// How long they have not moved, where that is too long.
    pub fn hangs(&self) -> Option<Duration> {
        let last = Duration::from_millis(self.last.load(Ordering::Relaxed));
        let silent = self.started.elapsed().saturating_sub(last);
        self.hang.filter(|hang| silent >= *hang).map(|_| silent)
    }

    /// Beats on the runtime that it is called on, until `stop`.
    pub async fn beat(self: Arc<Self>, stop: CancellationToken) {
        let Some(hang) = self.hang else {
            return;
        };
        let mut ticks = tokio::time::interval(BEAT.min(hang / 4));
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            let now = self.started.elapsed().as_millis();
            (self.last).store(u64::try_from(now).unwrap_or(u64::MAX), Ordering::Relaxed);
        }
    }
}
