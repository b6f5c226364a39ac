//! Whether an engine lives, seen from outside: it writes what it does, and who looks at it measures the time. Pure: the
//! time is an argument.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// What an engine's thread writes as it works.
#[derive(Debug, Default)]
pub(super) struct Vitals {
    begun: AtomicU64,
    ended: AtomicU64,
    /// Of those that ended, the ones that did not fail.
    good: AtomicU64,
}

/// What was read of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Pulse {
    begun: u64,
    ended: u64,
    good: u64,
}

impl Vitals {
    pub(super) fn begin(&self) {
        self.begun.fetch_add(1, Ordering::AcqRel);
    }

    pub(super) fn end(&self, good: bool) {
        self.good.fetch_add(u64::from(good), Ordering::AcqRel);
        self.ended.fetch_add(1, Ordering::AcqRel);
    }

    pub(super) fn pulse(&self) -> Pulse {
        // In this order, a step is never seen to have ended before it began.
        let good = self.good.load(Ordering::Acquire);
        let ended = self.ended.load(Ordering::Acquire);
        let begun = self.begun.load(Ordering::Acquire);
        Pulse { begun, ended, good }
    }
}

/// What an engine was seen to do, and when.
#[derive(Debug, Clone, Copy)]
pub(super) struct Watch {
    pulse: Pulse,
    /// When the step that it is in was first seen.
    in_step_since: Option<Instant>,
    /// When a step that did not fail was last seen.
    good_at: Instant,
}

impl Watch {
    /// Of an engine that has just run its first forward pass.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            pulse: Pulse::default(),
            in_step_since: None,
            good_at: now,
        }
    }

    pub(super) fn look(&mut self, pulse: Pulse, now: Instant) {
        if pulse.good > self.pulse.good {
            self.good_at = now;
        }
        self.in_step_since = match self.in_step_since {
            _ if pulse.begun == pulse.ended => None,
            Some(since) if pulse.begun == self.pulse.begun => Some(since),
            _ => Some(now),
        };
        self.pulse = pulse;
    }

    /// How long the step that it is in has been seen.
    pub(super) fn step_age(&self, now: Instant) -> Option<Duration> {
        Some(now.saturating_duration_since(self.in_step_since?))
    }

    /// How long ago a step was last seen to go well.
    pub(super) fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.good_at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_long_step_is_told_from_many_short_ones() {
        let (vitals, start) = (Vitals::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut watch = Watch::new(start);
        for second in 0..10 {
            vitals.begin();
            watch.look(vitals.pulse(), at(second));
            assert_eq!(watch.step_age(at(second)), Some(Duration::ZERO));
            vitals.end(true);
        }
        watch.look(vitals.pulse(), at(10));
        assert_eq!(watch.step_age(at(10)), None);
        vitals.begin();
        watch.look(vitals.pulse(), at(11));
        watch.look(vitals.pulse(), at(15));
        assert_eq!(watch.step_age(at(16)), Some(Duration::from_secs(5)));
        assert_eq!(watch.age(at(16)), Duration::from_secs(6));
    }

    #[test]
    fn steps_that_fail_are_no_sign_of_health() {
        let (vitals, start) = (Vitals::default(), Instant::now());
        let mut watch = Watch::new(start);
        vitals.begin();
        vitals.end(false);
        let later = start + Duration::from_secs(3);
        watch.look(vitals.pulse(), later);
        assert_eq!(watch.age(later), Duration::from_secs(3));
        assert_eq!(watch.step_age(later), None);
    }
}
