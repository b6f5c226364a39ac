//! How fast items leave the engines, and so when it is worth to come back. Pure.

use std::time::Duration;

/// Seconds of work after which what was seen weighs a third.
const MEMORY: f64 = 10.0;
/// What is told before anything has left.
const UNKNOWN: Duration = Duration::from_secs(1);
const BOUNDS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(30));

/// Items by the time that engines worked on them: time without work says nothing of how fast they are.
#[derive(Debug, Clone, Copy, Default)]
pub struct DrainRate {
    worked: f64,
    items: f64,
}

impl DrainRate {
    /// A step took this long and ended so many items.
    pub fn observe(&mut self, took: Duration, ended: usize) {
        let took = took.as_secs_f64();
        let fade = (-took / MEMORY).exp();
        self.worked = self.worked * fade + took;
        self.items = self.items * fade + ended as f64;
    }

    /// Seconds of one engine's work for an item, if anything has left.
    fn item_seconds(&self) -> Option<f64> {
        (self.items > 1e-3).then(|| self.worked / self.items)
    }

    /// When `engines` engines will have taken in a quarter of the `waiting` items, and one more.
    pub fn retry_delay(&self, waiting: usize, engines: usize) -> Duration {
        let Some(seconds) = self.item_seconds() else {
            return UNKNOWN;
        };
        let items = (waiting / 4 + 1) as f64 / engines.max(1) as f64;
        let delay = Duration::try_from_secs_f64(seconds * items).unwrap_or(BOUNDS.1);
        delay.clamp(BOUNDS.0, BOUNDS.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ten items a second.
    fn steady(rate: &mut DrainRate, steps: usize) {
        for step in 0..steps {
            rate.observe(Duration::from_millis(50), step % 2);
        }
    }

    #[test]
    fn the_delay_is_what_a_quarter_of_the_queue_takes() {
        let mut rate = DrainRate::default();
        assert_eq!(rate.retry_delay(100, 1), UNKNOWN);
        steady(&mut rate, 400);
        let delay = rate.retry_delay(99, 1).as_secs_f64();
        assert!((delay - 2.5).abs() < 0.05, "{delay}");
        let two = rate.retry_delay(99, 2).as_secs_f64();
        assert!((two - 1.25).abs() < 0.05, "{two}");
        assert_eq!(rate.retry_delay(0, 8), BOUNDS.0);
        assert_eq!(rate.retry_delay(100_000, 1), BOUNDS.1);
    }

    #[test]
    fn it_follows_when_items_become_slower() {
        let mut rate = DrainRate::default();
        steady(&mut rate, 400);
        for _ in 0..60 {
            rate.observe(Duration::from_secs(1), 1);
        }
        let delay = rate.retry_delay(39, 1).as_secs_f64();
        assert!((9.0..10.5).contains(&delay), "{delay}");
    }
}
