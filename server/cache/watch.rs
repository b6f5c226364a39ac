//! How long a level's look-ups take, and how many there are a second.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hdrhistogram::Histogram;
use tokio::time::Instant;

/// Samples of the counts that are kept; with one every five seconds, about a minute.
const SAMPLES: usize = 12;
/// Longer look-ups count as this.
const LONGEST: Duration = Duration::from_secs(60);

/// Watches the look-ups of a level.
#[derive(Debug)]
pub struct Watch {
    /// In nanoseconds, to two significant digits.
    times: Mutex<Histogram<u64>>,
    samples: Mutex<VecDeque<Sample>>,
}

/// Counts at a time.
#[derive(Debug, Clone, Copy)]
pub struct Sample {
    /// When.
    pub at: Instant,
    /// Look-ups until then.
    pub lookups: u64,
    /// Entries that had left.
    pub evictions: u64,
}

/// How long look-ups took; `None` before the first.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AccessTimes {
    /// Mean.
    pub mean: Duration,
    /// 99th percentile.
    pub p99: Duration,
}

/// Events a second.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Rates {
    /// Look-ups.
    pub lookups: f64,
    /// Entries that left.
    pub evictions: f64,
}

impl Default for Watch {
    fn default() -> Self {
        let longest = LONGEST.as_nanos() as u64;
        Self {
            times: Mutex::new(Histogram::new_with_max(longest, 2).expect("valid bounds")),
            samples: Mutex::default(),
        }
    }
}

impl Watch {
    /// A look-up took this long.
    pub fn took(&self, time: Duration) {
        let nanoseconds = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        lock(&self.times).saturating_record(nanoseconds);
    }

    /// How long look-ups took; `None` before the first.
    pub fn times(&self) -> Option<AccessTimes> {
        let times = lock(&self.times);
        (!times.is_empty()).then(|| AccessTimes {
            mean: Duration::from_nanos(times.mean() as u64),
            p99: Duration::from_nanos(times.value_at_quantile(0.99)),
        })
    }

    /// Keeps the counts of now, to tell rates by.
    pub fn sample(&self, now: Sample) {
        let mut samples = lock(&self.samples);
        if samples.len() == SAMPLES {
            samples.pop_front();
        }
        samples.push_back(now);
    }

    /// Since the oldest sample; `began` stands for it before there is one.
    pub fn rates(&self, began: Instant, now: Sample) -> Rates {
        let start = Sample {
            at: began,
            lookups: 0,
            evictions: 0,
        };
        let from = lock(&self.samples).front().copied().unwrap_or(start);
        let seconds = now.at.duration_since(from.at).as_secs_f64();
        if seconds <= 0.0 {
            return Rates::default();
        }
        let rate = |now: u64, then: u64| now.saturating_sub(then) as f64 / seconds;
        Rates {
            lookups: rate(now.lookups, from.lookups),
            evictions: rate(now.evictions, from.evictions),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Counts that are off by one do no harm.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_those_of_the_last_minute() {
        let (watch, began) = (Watch::default(), Instant::now());
        let at = |seconds: u64, lookups, evictions| Sample {
            at: began + Duration::from_secs(seconds),
            lookups,
            evictions,
        };
        let rates = watch.rates(began, at(10, 50, 5));
        assert_eq!((rates.lookups, rates.evictions), (5.0, 0.5));
        (1..=100).for_each(|n| watch.sample(at(5 * n, 10 * n, 0)));
        // The oldest of the last twelve is that of 445 s.
        let rates = watch.rates(began, at(505, 890 + 120, 30));
        assert_eq!((rates.lookups, rates.evictions), (2.0, 0.5));
        assert_eq!(watch.rates(began, at(445, 890, 0)), Rates::default());
    }

    #[test]
    fn times_are_told_from_the_first_look_up_on() {
        let watch = Watch::default();
        assert_eq!(watch.times(), None);
        (0..99).for_each(|_| watch.took(Duration::from_micros(10)));
        watch.took(Duration::from_secs(3600));
        let times = watch.times().expect("some");
        assert!(times.p99 < Duration::from_micros(11), "{times:?}");
        assert!(times.mean > Duration::from_millis(500), "{times:?}");
    }
}
