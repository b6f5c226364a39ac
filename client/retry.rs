//! How often and how soon a failed item or a broken stream is tried again.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// Exponential backoff with jitter, which yields to what the server asks for.
#[derive(Clone, Debug)]
pub struct Retry {
    /// How often an item is sent at most, and how often in a row a stream may fail to come about.
    pub tries: u32,
    /// The wait before the second try. Each further one is twice as long.
    pub first_delay: Duration,
    /// The longest wait that the client chooses by itself.
    pub max_delay: Duration,
    /// The longest wait that the client accepts from the server.
    pub max_server_delay: Duration,
    /// How long a server that was there and is gone is waited for, beyond `tries`, as long as it takes to restart it.
    pub patience: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            tries: 5,
            first_delay: Duration::from_millis(200),
            max_delay: Duration::from_secs(5),
            max_server_delay: Duration::from_secs(60),
            patience: Duration::ZERO,
        }
    }
}

impl Retry {
    /// How long to wait after try number `tried` (from 1) has failed and the server asked for `asked`.
    ///
    /// What the server asks for is waited in full, and up to a quarter more, so that clients refused
    /// together do not return together; the client's own delays have "equal jitter": between half of
    /// the exponential delay and all of it.
    pub fn delay(&self, tried: u32, asked: Option<Duration>) -> Duration {
        self.delay_with(tried, asked, random_fraction())
    }

    /// [`delay`](Self::delay) with the jitter given, from 0 to 1.
    fn delay_with(&self, tried: u32, asked: Option<Duration>, jitter: f64) -> Duration {
        if let Some(asked) = asked {
            let asked = asked.min(self.max_server_delay);
            // "At once" holds for one try: repeated, it would use all of them up in no time.
            if tried == 1 || !asked.is_zero() {
                return asked + asked.mul_f64(jitter / 4.0);
            }
        }
        self.own_delay(tried, jitter)
    }

    fn own_delay(&self, tried: u32, jitter: f64) -> Duration {
        let doubled = 2_u32.saturating_pow(tried.saturating_sub(1).min(20));
        let delay = self.first_delay.saturating_mul(doubled).min(self.max_delay);
        delay.mul_f64(0.5 + jitter / 2.0)
    }
}

/// A number from 0 to 1, from the keys that the standard library draws for each hasher.
pub(crate) fn random_fraction() -> f64 {
    random_seed() as f64 / u64::MAX as f64
}

/// A random number. Not for secrets.
pub(crate) fn random_seed() -> u64 {
    RandomState::new().hash_one(0)
}

/// A time of the wire; `None` if it is negative, or is none. The wire's own conversion panics at the least of numbers.
pub(crate) fn time(wire: prost_types::Duration) -> Option<Duration> {
    let nanos = u32::try_from(wire.nanos).ok();
    let nanos = nanos.filter(|nanos| *nanos < 1_000_000_000)?;
    Some(Duration::new(u64::try_from(wire.seconds).ok()?, nanos))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn retry() -> Retry {
        Retry {
            tries: 4,
            first_delay: SECOND,
            max_delay: SECOND * 4,
            max_server_delay: SECOND * 9,
            patience: Duration::ZERO,
        }
    }

    #[test]
    fn own_delays_double_up_to_the_limit() {
        let delays: Vec<_> = (1..=5).map(|n| retry().delay_with(n, None, 1.0)).collect();
        assert_eq!(
            delays,
            [SECOND, SECOND * 2, SECOND * 4, SECOND * 4, SECOND * 4]
        );
        assert_eq!(retry().delay_with(1, None, 0.0), SECOND / 2);
        assert_eq!(retry().delay_with(u32::MAX, None, 1.0), SECOND * 4);
    }

    #[test]
    fn the_servers_delay_is_waited_in_full_but_not_for_ever() {
        assert_eq!(retry().delay_with(3, Some(SECOND), 0.0), SECOND);
        assert!(retry().delay_with(1, Some(SECOND), 1.0) > SECOND);
        assert_eq!(retry().delay_with(1, Some(SECOND * 100), 0.0), SECOND * 9);
        assert_eq!(
            retry().delay_with(1, Some(Duration::ZERO), 1.0),
            Duration::ZERO
        );
        assert_eq!(retry().delay_with(2, Some(Duration::ZERO), 1.0), SECOND * 2);
    }

    #[test]
    fn times_that_are_none_are_none() {
        let of = |seconds, nanos| time(prost_types::Duration { seconds, nanos });
        assert_eq!(of(1, 500_000_000), Some(Duration::from_millis(1500)));
        for (seconds, nanos) in [(-1, 0), (0, -1), (i64::MIN, i32::MIN), (0, i32::MAX)] {
            assert_eq!(of(seconds, nanos), None);
        }
    }
}
