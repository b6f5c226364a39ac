//! How much a tenant may ask for in a time. Who asks for more is told when to come back; nothing waits here.

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use governor::clock::{Clock, Reference};
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};
use tokio::time::Instant;

use crate::error::Error;

/// Tenants whose use is remembered; of more, those that asked longest ago begin anew.
const MOST_TENANTS: u64 = 100_000;
/// Every bucket is full again after this, so that it need not be remembered.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// So much in such a time. All of it may come at once; then it comes back evenly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// How much.
    pub amount: NonZeroU32,
    /// In this time.
    pub per: Duration,
}

/// What a tenant may ask for. `None`: as much as the server can do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Allowance {
    /// Items, and texts to embed.
    pub items: Option<Rate>,
    /// Tokens: those of a prompt, and those that its answer may have.
    pub tokens: Option<Rate>,
}

/// What a tenant has left.
#[derive(Debug)]
pub struct Rates {
    allowance: Allowance,
    items: Option<Bucket>,
    tokens: Option<Bucket>,
}

/// What every tenant has left. Outlives a change of the file: who has used up their share does not get it back by that.
pub(super) struct TenantRates {
    tenants: moka::sync::Cache<Arc<str>, Arc<Rates>>,
}

type Bucket = RateLimiter<NotKeyed, InMemoryState, RuntimeClock, NoOpMiddleware<Moment>>;

impl Rates {
    fn new(allowance: Allowance) -> Self {
        let bucket = |rate: Rate| Bucket::direct_with_clock(rate.quota(), RuntimeClock);
        Self {
            allowance,
            items: allowance.items.map(bucket),
            tokens: allowance.tokens.map(bucket),
        }
    }

    /// As much as the server can do.
    pub fn unlimited() -> Arc<Self> {
        static UNLIMITED: LazyLock<Arc<Rates>> =
            LazyLock::new(|| Arc::new(Rates::new(Allowance::default())));
        UNLIMITED.clone()
    }

    /// Takes items, or texts to embed, whole or not at all.
    ///
    /// # Errors
    /// [`Error::RateLimited`] with the time to wait; without one where there are never so many.
    pub fn take_items(&self, items: usize) -> Result<(), Error> {
        take(self.items.as_ref(), self.allowance.items, "items", items)
    }

    /// Takes the tokens that an item may need.
    ///
    /// # Errors
    /// [`Error::RateLimited`] with the time to wait; without one where the item needs more than is ever there.
    pub fn take_tokens(&self, tokens: usize) -> Result<(), Error> {
        take(
            self.tokens.as_ref(),
            self.allowance.tokens,
            "tokens",
            tokens,
        )
    }
}

fn take(
    bucket: Option<&Bucket>,
    rate: Option<Rate>,
    what: &'static str,
    amount: usize,
) -> Result<(), Error> {
    let (Some(bucket), Some(rate)) = (bucket, rate) else {
        return Ok(());
    };
    let Some(amount) = NonZeroU32::new(u32::try_from(amount).unwrap_or(u32::MAX)) else {
        return Ok(());
    };
    let retry = match bucket.check_n(amount) {
        Ok(Ok(())) => return Ok(()),
        Ok(Err(later)) => Some(later.wait_time_from(bucket.clock().now())),
        Err(_) => None,
    };
    Err(Error::RateLimited { what, rate, retry })
}

impl Rate {
    fn quota(self) -> Quota {
        // Never zero: a rate has a unit at most every second, and at most 2^32 of it.
        let each = (self.per / self.amount.get()).max(Duration::from_nanos(1));
        let quota = Quota::with_period(each).unwrap_or_else(|| Quota::per_second(self.amount));
        quota.allow_burst(self.amount)
    }
}

impl Allowance {
    /// What is not said here, as there.
    pub fn or(self, other: Self) -> Self {
        Self {
            items: self.items.or(other.items),
            tokens: self.tokens.or(other.tokens),
        }
    }
}

impl TenantRates {
    pub(super) fn new() -> Self {
        let tenants = moka::sync::Cache::builder()
            .max_capacity(MOST_TENANTS)
            .time_to_idle(LONGEST);
        Self {
            tenants: tenants.build(),
        }
    }

    pub(super) fn of(&self, tenant: &str, allowance: Allowance) -> Arc<Rates> {
        if allowance == Allowance::default() {
            return Rates::unlimited();
        }
        let fresh = || Arc::new(Rates::new(allowance));
        let rates = self.tenants.get_with(tenant.into(), fresh);
        if rates.allowance == allowance {
            return rates;
        }
        let rates = Arc::new(Rates::new(allowance));
        self.tenants.insert(tenant.into(), rates.clone());
        rates
    }
}

impl FromStr for Rate {
    type Err = String;

    /// `600/min`, `10/s`, `100000/h`, `1000000/day`.
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("'{text}' is no rate, expected one such as 600/min (or /s, /h, /day)");
        let (amount, unit) = text.split_once('/').ok_or_else(wrong)?;
        let seconds = match unit {
            "s" => 1,
            "min" => 60,
            "h" => 3600,
            "day" => 24 * 3600,
            _ => return Err(wrong()),
        };
        Ok(Self {
            amount: amount.parse().map_err(|_| wrong())?,
            per: Duration::from_secs(seconds),
        })
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = match self.per.as_secs() {
            1 => "s",
            60 => "min",
            3600 => "h",
            _ => "day",
        };
        write!(f, "{}/{unit}", self.amount)
    }
}

/// The runtime's clock, which a test may stop.
#[derive(Debug, Clone)]
struct RuntimeClock;

/// A moment of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(Instant);

impl Clock for RuntimeClock {
    type Instant = Moment;

    fn now(&self) -> Moment {
        Moment(Instant::now())
    }
}

impl Reference for Moment {
    fn duration_since(&self, earlier: Self) -> Nanos {
        self.0.saturating_duration_since(earlier.0).into()
    }

    fn saturating_sub(&self, duration: Nanos) -> Self {
        Self(self.0.checked_sub(duration.into()).unwrap_or(self.0))
    }
}

impl std::ops::Add<Nanos> for Moment {
    type Output = Self;

    fn add(self, other: Nanos) -> Self {
        Self(self.0 + Duration::from(other))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(text: &str) -> Rate {
        text.parse().expect("a rate")
    }

    #[track_caller]
    fn waits(result: Result<(), Error>) -> Duration {
        result.expect_err("too much").retry_after().expect("later")
    }

    #[tokio::test(start_paused = true)]
    async fn a_minutes_items_may_come_at_once_and_come_back_evenly() {
        let rates = TenantRates::new().of(
            "a",
            Allowance {
                items: Some(rate("60/min")),
                tokens: None,
            },
        );
        for _ in 0..60 {
            rates.take_items(1).expect("there");
        }
        let wait = waits(rates.take_items(1));
        assert!(wait <= Duration::from_secs(1), "{wait:?}");
        tokio::time::advance(wait).await;
        rates.take_items(1).expect("one is back");
        waits(rates.take_items(1));
        rates.take_tokens(1 << 30).expect("not counted");
    }

    #[tokio::test(start_paused = true)]
    async fn tokens_are_taken_whole_or_not_at_all() {
        let allowance = Allowance {
            items: None,
            tokens: Some(rate("100/s")),
        };
        let rates = TenantRates::new().of("a", allowance);
        rates.take_tokens(90).expect("there");
        let wait = waits(rates.take_tokens(20));
        assert_eq!(wait.as_millis(), 100);
        rates.take_tokens(10).expect("those are left");
        let never = rates.take_tokens(101).expect_err("more than there ever is");
        assert_eq!(never.retry_after(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn tenants_have_their_own_and_keep_it_until_it_is_another() {
        let all = TenantRates::new();
        let one = Allowance {
            items: Some(rate("1/h")),
            tokens: None,
        };
        all.of("a", one).take_items(1).expect("there");
        waits(all.of("a", one).take_items(1));
        all.of("b", one).take_items(1).expect("b's own");
        let two = Allowance {
            items: Some(rate("2/h")),
            tokens: None,
        };
        all.of("a", two).take_items(1).expect("the new one");
    }

    #[test]
    fn rates_read_back_and_nonsense_is_refused() {
        for good in ["1/s", "600/min", "4294967295/h", "7/day"] {
            assert_eq!(rate(good).to_string(), good);
        }
        for bad in ["", "600", "0/s", "-1/s", "1/week", "1 / s", "4294967296/s"] {
            assert!(bad.parse::<Rate>().is_err(), "{bad}");
        }
    }
}
