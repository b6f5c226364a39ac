//! How much a tenant may ask for in a time. Who asks for more is told when to come back; nothing waits here.

use std::collections::HashMap;
use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::bucket::Bucket;
use crate::error::Error;

/// Tenants whose use is remembered, 30 MB of them. Names come from keys and certificates that somebody has signed, never
/// from a client; where there are more, those that have used least begin anew, which gives each of them what it had used.
const MOST_TENANTS: usize = 100_000;
/// Before the first look for tenants that need not be remembered.
const FEW_TENANTS: usize = 64;

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

/// What a tenant may ask for at this moment.
pub(super) type InForce = Arc<dyn Fn(&str) -> Allowance + Send + Sync>;

/// What a tenant has left. Rates are looked up whenever something is taken, so a changed one holds at once for every call,
/// those that are open too.
pub struct Rates {
    tenant: Arc<str>,
    in_force: InForce,
    /// Times in the buckets count from here.
    epoch: Instant,
    left: Mutex<Buckets>,
}

#[derive(Debug, Default)]
struct Buckets {
    items: Bucket,
    tokens: Bucket,
}

/// What every tenant has left. Outlives a change of the file: who has used up their share does not get it back by that.
pub(super) struct TenantRates {
    /// `None`: nobody's use is bounded, and no file can change that.
    in_force: Option<InForce>,
    tenants: Mutex<Tenants>,
    most: usize,
}

struct Tenants {
    known: HashMap<Arc<str>, Arc<Rates>>,
    /// With so many of them, look for those that need not be remembered.
    look_at: usize,
}

impl Rates {
    fn new(tenant: Arc<str>, in_force: InForce) -> Self {
        Self {
            tenant,
            in_force,
            epoch: Instant::now(),
            left: Mutex::default(),
        }
    }

    /// As much as the server can do.
    pub fn unlimited() -> Arc<Self> {
        static UNLIMITED: LazyLock<Arc<Rates>> = LazyLock::new(|| {
            let in_force = Arc::new(|_: &str| Allowance::default());
            Arc::new(Rates::new("".into(), in_force))
        });
        UNLIMITED.clone()
    }

    /// Takes items, or texts to embed, whole or not at all.
    ///
    /// # Errors
    /// [`Error::RateLimited`] with the time to wait; without one where there are never so many.
    pub fn take_items(&self, items: usize) -> Result<(), Error> {
        let rate = (self.in_force)(&self.tenant).items;
        self.take(rate, "items", items, |left| &mut left.items)
    }

    /// Takes the tokens that an item may need, or those of texts to embed.
    ///
    /// # Errors
    /// [`Error::RateLimited`] with the time to wait; without one where the item needs more than is ever there.
    pub fn take_tokens(&self, tokens: usize) -> Result<(), Error> {
        let rate = (self.in_force)(&self.tenant).tokens;
        self.take(rate, "tokens", tokens, |left| &mut left.tokens)
    }

    fn take(
        &self,
        rate: Option<Rate>,
        what: &'static str,
        amount: usize,
        bucket: impl FnOnce(&mut Buckets) -> &mut Bucket,
    ) -> Result<(), Error> {
        let Some(rate) = rate else {
            return Ok(());
        };
        let mut left = self.lock();
        let taken = bucket(&mut left).take(rate, amount as u64, self.epoch.elapsed());
        taken.map_err(|retry| Error::RateLimited { what, rate, retry })
    }

    /// How long until it has everything again; zero: to forget it loses nothing.
    fn left(&self) -> u128 {
        let (left, now) = (self.lock(), self.epoch.elapsed());
        left.items.left(now).max(left.tokens.left(now))
    }

    fn lock(&self) -> MutexGuard<'_, Buckets> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Rates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Rates").field(&self.tenant).finish()
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
    pub(super) fn new(in_force: Option<InForce>) -> Self {
        Self::of_at_most(MOST_TENANTS, in_force)
    }

    fn of_at_most(most: usize, in_force: Option<InForce>) -> Self {
        Self {
            in_force,
            tenants: Mutex::new(Tenants {
                known: HashMap::new(),
                look_at: FEW_TENANTS.min(most),
            }),
            most,
        }
    }

    pub(super) fn of(&self, tenant: &str) -> Arc<Rates> {
        let Some(in_force) = &self.in_force else {
            return Rates::unlimited();
        };
        let mut tenants = self.tenants.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(rates) = tenants.known.get(tenant) {
            return rates.clone();
        }
        if tenants.known.len() >= tenants.look_at {
            tenants.forget(self.most);
        }
        let tenant: Arc<str> = tenant.into();
        let rates = Arc::new(Rates::new(tenant.clone(), in_force.clone()));
        tenants.known.insert(tenant, rates.clone());
        rates
    }
}

impl Tenants {
    /// Forgets those who have everything and are not here, which changes nothing for them. If too many are left, an eighth
    /// goes at once, so that no newcomer pays for a look at all of them: first who is not here, then who has used least.
    fn forget(&mut self, most: usize) {
        let here = |rates: &Arc<Rates>| Arc::strong_count(rates) > 1;
        self.known
            .retain(|_, rates| here(rates) || rates.left() > 0);
        let room = most - most.div_ceil(8);
        if self.known.len() > room {
            let known = self.known.iter();
            let known = known.map(|(tenant, rates)| (here(rates), rates.left(), tenant.clone()));
            let mut known: Vec<_> = known.collect();
            known.sort_unstable();
            for (_, _, tenant) in &known[..known.len() - room] {
                self.known.remove(tenant);
            }
        }
        self.look_at = (self.known.len() * 2).clamp(FEW_TENANTS.min(most), most);
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

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(text: &str) -> Rate {
        text.parse().expect("a rate")
    }

    fn items(text: &str) -> Allowance {
        Allowance {
            items: Some(rate(text)),
            tokens: None,
        }
    }

    /// Tenants who all have the same allowance, and the hand that changes it.
    fn all(allowance: Allowance, most: usize) -> (TenantRates, impl Fn(Allowance)) {
        let now = Arc::new(Mutex::new(allowance));
        let seen = now.clone();
        let in_force: InForce = Arc::new(move |_: &str| *seen.lock().expect("whole"));
        let change = move |allowance| *now.lock().expect("whole") = allowance;
        (TenantRates::of_at_most(most, Some(in_force)), change)
    }

    #[track_caller]
    fn waits(result: Result<(), Error>) -> Duration {
        result.expect_err("too much").retry_after().expect("later")
    }

    #[tokio::test(start_paused = true)]
    async fn a_minutes_items_may_come_at_once_and_come_back_evenly() {
        let rates = all(items("60/min"), 9).0.of("a");
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
        let rates = all(allowance, 9).0.of("a");
        rates.take_tokens(90).expect("there");
        let wait = waits(rates.take_tokens(20));
        assert_eq!(wait.as_millis(), 100);
        rates.take_tokens(10).expect("those are left");
        let never = rates.take_tokens(101).expect_err("more than there ever is");
        assert_eq!(never.retry_after(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn tenants_have_their_own_and_a_change_reaches_who_is_here_and_gives_nothing_back() {
        let (all, change) = all(items("600/min"), 9);
        let open = all.of("a");
        open.take_items(600).expect("there");
        waits(all.of("a").take_items(1));
        all.of("b").take_items(1).expect("b's own");
        // To and fro, and off and on again: nothing comes back by it.
        for other in ["601/min", "600/min", "36000/h", "599/min", "600/min"] {
            change(items(other));
            if other != "36000/h" {
                waits(open.take_items(2));
            }
            change(Allowance::default());
            change(items("600/min"));
            waits(open.take_items(1));
        }
        // A tenth of the rate, a tenth of what comes back, for a call that is open.
        change(items("60/min"));
        assert_eq!(waits(open.take_items(1)), Duration::from_secs(1));
        tokio::time::advance(Duration::from_secs(6)).await;
        open.take_items(6).expect("six are back");
        waits(open.take_items(1));
    }

    #[tokio::test(start_paused = true)]
    async fn to_be_forgotten_loses_nothing_until_there_are_too_many() {
        let (all, _) = all(items("10/min"), 80);
        let here = all.of("here");
        all.of("used").take_items(10).expect("there");
        let known = || all.tenants.lock().expect("whole").known.len();
        for n in 0..1000 {
            drop(all.of(&format!("passes by {n}")));
        }
        assert!(known() <= 80, "{}", known());
        waits(all.of("used").take_items(1));
        assert!(Arc::ptr_eq(&here, &all.of("here")), "who is here has one");
        // Those who use what they have are remembered as far as there is room, who has used most the longest.
        for n in 0..1000 {
            all.of(&format!("takes {n}")).take_items(1).expect("there");
        }
        assert!(known() <= 80, "{}", known());
        waits(all.of("used").take_items(1));
        assert!(Arc::ptr_eq(&here, &all.of("here")));
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
