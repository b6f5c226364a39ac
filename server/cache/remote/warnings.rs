//! Keeps a failing Redis from filling the log.

use std::fmt::Display;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Warnings about Redis, at most one in an interval. Those held back are counted in the next.
#[derive(Debug)]
pub(super) struct Warnings {
    interval: Duration,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    last: Option<Instant>,
    held_back: u64,
}

impl Warnings {
    /// At most one in `interval`.
    pub(super) fn every(interval: Duration) -> Self {
        Self {
            interval,
            state: Mutex::default(),
        }
    }

    /// Logs what went wrong, unless another warning was logged shortly before `now`.
    pub(super) fn warn(
        &self,
        now: Instant,
        redis: &impl Display,
        what: &'static str,
        err: &impl Display,
    ) {
        if let Some(held_back) = self.due(now) {
            tracing::warn!(%redis, error = %err, held_back, "redis cache: {what}");
        }
    }

    /// `Some` when a line may be logged: how many were held back before it.
    fn due(&self, now: Instant) -> Option<u64> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state
            .last
            .is_some_and(|last| now.saturating_duration_since(last) < self.interval)
        {
            state.held_back += 1;
            return None;
        }
        state.last = Some(now);
        Some(std::mem::take(&mut state.held_back))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(10);

    #[test]
    fn at_most_one_warning_in_an_interval_and_the_others_are_counted() {
        let (warnings, start) = (Warnings::every(INTERVAL), Instant::now());
        assert_eq!(warnings.due(start), Some(0));
        for ms in 1..=50 {
            assert_eq!(warnings.due(start + Duration::from_millis(ms)), None);
        }
        assert_eq!(warnings.due(start + INTERVAL), Some(50));
        assert_eq!(warnings.due(start + INTERVAL), None);
        assert_eq!(warnings.due(start + 2 * INTERVAL), Some(1));
    }
}
