//! Decides when to leave a failing server alone. Pure: time is an argument.

use std::time::{Duration, Instant};

/// Failures in a row after which the server is left alone.
pub(super) const FAILURES_TO_OPEN: u32 = 5;
/// A probe that has not reported after this long is taken for lost, so that another one may go.
const PROBE_LEASE: Duration = Duration::from_secs(10);

/// A circuit breaker (M. Nygard, "Release It!", chapter "Stability Patterns").
#[derive(Debug)]
pub(super) struct Breaker {
    state: State,
    cooldown: Duration,
}

/// What a caller may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Admission {
    /// Ask the server and report by [`Breaker::record`].
    Go,
    /// Do without the server.
    Skip,
    /// Do without the server, but have it probed and report by [`Breaker::record_probe`].
    Probe,
}

/// What a report changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// Nothing that others need to know of.
    None,
    /// The server is left alone from now on.
    Opened,
    /// The server is asked again from now on.
    Closed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// The server is asked.
    ///
    /// - success => `Closed`, failures forgotten
    /// - failure => `Closed`, or `Open` when it is the `FAILURES_TO_OPEN`th in a row
    Closed { failures: u32 },
    /// The server is left alone. Reports of requests that went before are ignored.
    ///
    /// - admission before `until` => `Open`
    /// - admission after it => `HalfOpen`, and this one caller starts a probe
    Open { until: Instant },
    /// A probe is under way; everybody else does without the server.
    ///
    /// - probe succeeds => `Closed`
    /// - probe fails => `Open`
    /// - admission after `lost` => `HalfOpen`, and this one caller starts another probe
    HalfOpen { lost: Instant },
}

impl Breaker {
    /// A closed breaker; once open it stays so for `cooldown`.
    pub(super) fn new(cooldown: Duration) -> Self {
        let state = State::Closed { failures: 0 };
        Self { state, cooldown }
    }

    /// Whether the server is asked.
    pub(super) fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed { .. })
    }

    /// What a caller may do now.
    pub(super) fn admit(&mut self, now: Instant) -> Admission {
        match self.state {
            State::Closed { .. } => Admission::Go,
            State::Open { until: due } | State::HalfOpen { lost: due } if now >= due => {
                self.state = State::HalfOpen {
                    lost: now + PROBE_LEASE,
                };
                Admission::Probe
            }
            State::Open { .. } | State::HalfOpen { .. } => Admission::Skip,
        }
    }

    /// Reports how a request went that was told to go.
    pub(super) fn record(&mut self, succeeded: bool, now: Instant) -> Change {
        match self.state {
            State::Closed { failures } if !succeeded && failures + 1 >= FAILURES_TO_OPEN => {
                self.open(now)
            }
            State::Closed { failures } => {
                let failures = if succeeded { 0 } else { failures + 1 };
                self.state = State::Closed { failures };
                Change::None
            }
            State::Open { .. } | State::HalfOpen { .. } => Change::None,
        }
    }

    /// Reports how a probe went.
    pub(super) fn record_probe(&mut self, succeeded: bool, now: Instant) -> Change {
        match self.state {
            State::HalfOpen { .. } if succeeded => {
                self.state = State::Closed { failures: 0 };
                Change::Closed
            }
            State::HalfOpen { .. } => self.open(now),
            // A probe that was taken for lost came back after its successor.
            State::Closed { .. } | State::Open { .. } => Change::None,
        }
    }

    fn open(&mut self, now: Instant) -> Change {
        self.state = State::Open {
            until: now + self.cooldown,
        };
        Change::Opened
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const COOLDOWN: Duration = Duration::from_secs(1);

    fn opened(now: Instant) -> Breaker {
        let mut breaker = Breaker::new(COOLDOWN);
        for _ in 1..FAILURES_TO_OPEN {
            assert_eq!(breaker.record(false, now), Change::None);
        }
        assert_eq!(breaker.record(false, now), Change::Opened);
        breaker
    }

    #[test]
    fn only_failures_in_a_row_open_it() {
        let now = Instant::now();
        let mut breaker = Breaker::new(COOLDOWN);
        for _ in 0..10 * FAILURES_TO_OPEN {
            for _ in 1..FAILURES_TO_OPEN {
                breaker.record(false, now);
            }
            assert_eq!(breaker.admit(now), Admission::Go);
            breaker.record(true, now);
        }
        assert!(breaker.is_closed());
        assert!(!opened(now).is_closed());
    }

    #[test]
    fn one_probe_goes_after_the_cool_down() {
        let now = Instant::now();
        let mut breaker = opened(now);
        assert_eq!(breaker.admit(now + COOLDOWN / 2), Admission::Skip);
        assert_eq!(breaker.admit(now + COOLDOWN), Admission::Probe);
        assert_eq!(breaker.admit(now + COOLDOWN), Admission::Skip);
        assert_eq!(breaker.record_probe(true, now + COOLDOWN), Change::Closed);
        assert_eq!(breaker.admit(now + COOLDOWN), Admission::Go);
    }

    #[test]
    fn a_failed_probe_starts_the_cool_down_again() {
        let now = Instant::now();
        let mut breaker = opened(now);
        let probed = now + COOLDOWN;
        assert_eq!(breaker.admit(probed), Admission::Probe);
        assert_eq!(breaker.record_probe(false, probed), Change::Opened);
        assert_eq!(breaker.admit(probed + COOLDOWN / 2), Admission::Skip);
        assert_eq!(breaker.admit(probed + COOLDOWN), Admission::Probe);
    }

    #[test]
    fn a_lost_probe_is_replaced() {
        let now = Instant::now();
        let mut breaker = opened(now);
        assert_eq!(breaker.admit(now + COOLDOWN), Admission::Probe);
        assert_eq!(
            breaker.admit(now + COOLDOWN + PROBE_LEASE / 2),
            Admission::Skip
        );
        assert_eq!(
            breaker.admit(now + COOLDOWN + PROBE_LEASE),
            Admission::Probe
        );
    }

    #[test]
    fn late_reports_of_earlier_requests_change_nothing() {
        let now = Instant::now();
        let mut breaker = opened(now);
        assert_eq!(breaker.record(true, now), Change::None);
        assert!(!breaker.is_closed());
        breaker.admit(now + COOLDOWN);
        assert_eq!(breaker.record(true, now + COOLDOWN), Change::None);
        assert_eq!(breaker.record(false, now + COOLDOWN), Change::None);
        assert_eq!(breaker.record_probe(true, now + COOLDOWN), Change::Closed);
        assert_eq!(breaker.record_probe(false, now + COOLDOWN), Change::None);
        assert!(breaker.is_closed());
    }

    proptest! {
        /// A dead server is asked at most `FAILURES_TO_OPEN` times and then probed at most once in a cool-down.
        #[test]
        fn a_dead_server_costs_a_bounded_number_of_requests(steps in prop::collection::vec(0u64..300, 1..500)) {
            let start = Instant::now();
            let mut now = start;
            let mut breaker = Breaker::new(COOLDOWN);
            let (mut asked, mut probes) = (0, 0);
            for step in steps {
                now += Duration::from_millis(step);
                match breaker.admit(now) {
                    Admission::Go => {
                        asked += 1;
                        breaker.record(false, now);
                    }
                    Admission::Probe => {
                        probes += 1;
                        breaker.record_probe(false, now);
                    }
                    Admission::Skip => {}
                }
            }
            prop_assert!(asked <= FAILURES_TO_OPEN);
            prop_assert!(probes <= (now - start).as_millis() / COOLDOWN.as_millis());
        }
    }
}
