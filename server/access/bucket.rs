//! What is left of a rate: the generic cell rate algorithm, whose state is one number. Pure: the time is an argument.
//!
//! The number is a time, when all that was taken will be back. It means the same under every rate, so a rate may change
//! between two takings, and the change gives nothing back: time that is spent stays spent.

use std::time::Duration;

use super::rates::Rate;

/// Parts of a nanosecond that times are kept in, so that the fastest rate is as exact as the slowest.
const PARTS: u32 = 32;

/// What was taken and is not back yet.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Bucket {
    /// When all of it is back: nanoseconds in the owner's time, times 2 to the power of [`PARTS`].
    back: u128,
}

impl Bucket {
    /// Takes an amount, whole or not at all. `now` never goes back.
    ///
    /// # Errors
    /// How long to wait for it; `None` where there is never so much.
    pub(crate) fn take(
        &mut self,
        rate: Rate,
        amount: u64,
        now: Duration,
    ) -> Result<(), Option<Duration>> {
        let most = u64::from(rate.amount.get());
        if amount > most {
            return Err(None);
        }
        let now = parts(now);
        // No overflow: a rate's time is at most a day, 2^47 ns, and an amount at most 2^32.
        let each = parts(rate.per) / u128::from(most);
        let back = self.back.max(now) + each * u128::from(amount);
        let latest = now + each * u128::from(most);
        if back > latest {
            let wait = (back - latest).div_ceil(1 << PARTS);
            return Err(Some(Duration::from_nanos(
                u64::try_from(wait).unwrap_or(u64::MAX),
            )));
        }
        self.back = back;
        Ok(())
    }

    /// How long until all is back: zero where nothing is to be remembered.
    pub(super) fn left(&self, now: Duration) -> u128 {
        self.back.saturating_sub(parts(now))
    }
}

fn parts(time: Duration) -> u128 {
    time.as_nanos() << PARTS
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rate() -> impl Strategy<Value = Rate> {
        let per = prop::sample::select(vec![1, 60, 3600, 24 * 3600]);
        let amount = prop_oneof![1..20_u32, 1..u32::MAX];
        (amount, per).prop_map(|(amount, per)| Rate {
            amount: amount.try_into().expect("more than 0"),
            per: Duration::from_secs(per),
        })
    }

    /// Waits, then asks under a rate.
    #[derive(Debug, Clone)]
    struct Step {
        wait: Duration,
        rate: Rate,
        share: f64,
    }

    fn steps(rates: usize) -> impl Strategy<Value = Vec<Step>> {
        let wait = prop_oneof![Just(0), 0..2_000_000_000_u64, 0..7_200_000_000_000_u64];
        prop::collection::vec(rate(), rates).prop_flat_map(move |rates| {
            let step = (wait.clone(), prop::sample::select(rates), 0.0..1.2_f64);
            let step = step.prop_map(|(wait, rate, share)| Step {
                wait: Duration::from_nanos(wait),
                rate,
                share,
            });
            prop::collection::vec(step, 1..100)
        })
    }

    fn amount(step: &Step) -> u64 {
        (f64::from(step.rate.amount.get()) * step.share) as u64
    }

    proptest! {
        /// Under one rate it does what a bucket of water does, which is written here another way: by its level.
        #[test]
        fn it_is_a_bucket_that_fills_evenly(steps in steps(1)) {
            let (mut bucket, mut now) = (Bucket::default(), Duration::ZERO);
            let rate = steps[0].rate;
            let (most, per) = (f64::from(rate.amount.get()), rate.per.as_secs_f64());
            let mut level = most;
            for step in steps {
                now += step.wait;
                level = (level + step.wait.as_secs_f64() * most / per).min(most);
                let wanted = amount(&step);
                let slack = most * 1e-6;
                match bucket.take(rate, wanted, now) {
                    Ok(()) => {
                        prop_assert!(wanted as f64 <= level + slack, "{wanted} of {level}");
                        level -= wanted as f64;
                    }
                    Err(None) => prop_assert!(wanted as f64 > most),
                    Err(Some(wait)) => {
                        prop_assert!(wanted as f64 > level - slack, "{wanted} of {level}");
                        // The time that is told is enough, and no more than enough.
                        let mut later = bucket;
                        prop_assert!(later.take(rate, wanted, now + wait).is_ok());
                        let early = wait.saturating_sub(Duration::from_nanos(1));
                        prop_assert!(bucket.take(rate, wanted, now + early).is_err() || wait.is_zero());
                    }
                }
            }
        }

        /// However rates change, what was let through, each at its price, is never worth more time than has passed and
        /// the longest that may be spent ahead.
        #[test]
        fn no_change_of_the_rate_gives_anything_back(steps in steps(3)) {
            let (mut bucket, mut now, mut worth) = (Bucket::default(), Duration::ZERO, 0.0);
            let ahead = steps.iter().map(|step| step.rate.per.as_secs_f64()).fold(0.0, f64::max);
            for step in steps {
                now += step.wait;
                let (before, left) = (bucket, bucket.left(now));
                if bucket.take(step.rate, amount(&step), now).is_ok() {
                    let price = step.rate.per.as_secs_f64() / f64::from(step.rate.amount.get());
                    worth += price * amount(&step) as f64;
                } else {
                    prop_assert_eq!(bucket.back, before.back, "what is refused costs nothing");
                }
                prop_assert!(bucket.left(now) >= left);
                prop_assert!(worth <= (now.as_secs_f64() + ahead) * (1.0 + 1e-9), "{worth} s in {now:?}");
            }
        }
    }
}
