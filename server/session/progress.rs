//! How a batch on a stream fares.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use crate::explain::Progress;

/// Reports that the rate is taken over.
const WINDOW: usize = 10;

/// What became of a stream's items.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) received: u64,
    pub(super) done: u64,
    pub(super) failed: u64,
    pub(super) cancelled: u64,
    pub(super) generated_tokens: u64,
}

impl Counts {
    fn ended(&self) -> u64 {
        self.done + self.failed + self.cancelled
    }
}

/// Makes reports: the rate is that of the last few of them.
#[derive(Debug)]
pub(super) struct Reporter {
    /// Items that the client is going to send, if it said so.
    expected: u64,
    past: VecDeque<(Instant, Counts)>,
}

impl Reporter {
    pub(super) fn new(expected: u64, now: Instant) -> Self {
        Self {
            expected,
            past: VecDeque::from([(now, Counts::default())]),
        }
    }

    /// How it stands, with this many items in flight, of which some run.
    pub(super) fn report(
        &mut self,
        now: Instant,
        counts: Counts,
        in_flight: usize,
        running: usize,
    ) -> Progress {
        let (since, before) = self.past.front().copied().unwrap_or((now, counts));
        let seconds = now.duration_since(since).as_secs_f64();
        let rate = |of: fn(&Counts) -> u64| {
            let more = of(&counts).saturating_sub(of(&before)) as f64;
            if seconds > 0.0 { more / seconds } else { 0.0 }
        };
        let items_per_second = rate(Counts::ended);
        let left = self.expected.max(counts.received) - counts.ended();
        let eta = (items_per_second > 0.0)
            .then(|| Duration::try_from_secs_f64(left as f64 / items_per_second).ok())
            .flatten();
        self.past.push_back((now, counts));
        if self.past.len() > WINDOW {
            self.past.pop_front();
        }
        Progress {
            done: counts.done,
            failed: counts.failed,
            cancelled: counts.cancelled,
            queued: in_flight.saturating_sub(running) as u64,
            running: running as u64,
            items_per_second,
            tokens_per_second: rate(|counts| counts.generated_tokens),
            eta,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_the_recent_one_and_the_rest_follows_from_it() {
        let began = Instant::now();
        let mut reporter = Reporter::new(100, began);
        let at = |seconds| began + Duration::from_secs(seconds);
        let counts = |done| Counts {
            received: 40,
            done,
            generated_tokens: 10 * done,
            ..Counts::default()
        };
        assert_eq!(reporter.report(began, counts(0), 40, 8).eta, None);
        let report = reporter.report(at(1), counts(10), 30, 8);
        assert_eq!(
            (report.items_per_second, report.tokens_per_second),
            (10.0, 100.0)
        );
        assert_eq!(report.eta, Some(Duration::from_secs(9)));
        assert_eq!((report.queued, report.running), (22, 8));
        for second in 2..=12 {
            reporter.report(at(second), counts(10), 30, 8);
        }
        assert_eq!(reporter.report(at(13), counts(10), 30, 8).eta, None);
    }
}
