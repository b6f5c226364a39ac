//! Keeps what happens again and again from filling the log.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Lets a line into the log at most once in an interval. Those held back are counted in the next.
#[derive(Debug)]
pub struct LogLimit {
    interval: Duration,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    last: Option<Instant>,
    held_back: u64,
}

impl LogLimit {
    /// One line in `interval` at most.
    pub fn every(interval: Duration) -> Self {
        Self {
            interval,
            state: Mutex::default(),
        }
    }

    /// `Some` when a line may be logged: how many were held back before it.
    pub fn due(&self, now: Instant) -> Option<u64> {
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
    fn at_most_one_line_in_an_interval_and_the_others_are_counted() {
        let (lines, start) = (LogLimit::every(INTERVAL), Instant::now());
        assert_eq!(lines.due(start), Some(0));
        for ms in 1..=50 {
            assert_eq!(lines.due(start + Duration::from_millis(ms)), None);
        }
        assert_eq!(lines.due(start + INTERVAL), Some(50));
        assert_eq!(lines.due(start + INTERVAL), None);
        assert_eq!(lines.due(start + 2 * INTERVAL), Some(1));
    }
}
