//! What each tenant has been served, and so whose turn it is. Pure: the time is an argument.
//!
//! Virtual token counters, after Sheng et al., "Fairness in Serving Large Language Models" (2024): the tenant that was
//! served least, by its weight, goes next; one that comes back starts at the least of those that are there, so that nobody
//! saves up while away. Served are prompt tokens that were computed for the first time and tokens that were generated.
//!
//! What it holds to, for tenants that always have something waiting: what two of them were served, each by its weight,
//! never differs by more than twice what fills a batch ([`properties`](super) tries it). So a tenant waits at most until
//! each of the others has been served that much more.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use crate::waiting::Tenant;

/// For this long after a tenant was last there, the others are kept from what would make it wait when it comes back.
pub const REMEMBERED: Duration = Duration::from_secs(10);

/// Tenants that are not there and were served more than those that are: so many of them are remembered, those who were
/// served most first.
const MOST_AWAY: usize = 4096;

/// How many times as much as others a tenant gets; 1 where nothing is said.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Weights(pub BTreeMap<String, f64>);

impl Weights {
    /// A tenant's weight, more than 0.
    pub fn of(&self, tenant: &str) -> f64 {
        self.0.get(tenant).copied().unwrap_or(1.0)
    }
}

/// What each tenant has been served.
#[derive(Debug)]
pub struct Ledger {
    /// Tokens by weight.
    served: HashMap<Tenant, f64>,
    /// Where a newcomer starts: the least that anybody who is there has been served. It never falls.
    floor: f64,
    weights: Weights,
    /// Who was there last, and when; and when anybody else was.
    latest: Option<(Tenant, Instant)>,
    other: Option<Instant>,
    prune_at: usize,
}

impl Ledger {
    /// Nobody was served anything.
    pub fn new(weights: Weights) -> Self {
        Self {
            served: HashMap::new(),
            floor: 0.0,
            weights,
            latest: None,
            other: None,
            prune_at: 64,
        }
    }

    /// A tenant has one more item.
    pub fn join(&mut self, tenant: &Tenant, now: Instant) {
        let floor = self.floor;
        let served = self.served.entry(tenant.clone()).or_insert(floor);
        *served = served.max(floor);
        self.seen(tenant, now);
    }

    /// A tenant was served tokens.
    pub fn charge(&mut self, tenant: &Tenant, tokens: usize, now: Instant) {
        let weight = self.weights.of(tenant);
        let floor = self.floor;
        let served = self.served.entry(tenant.clone()).or_insert(floor);
        *served += tokens as f64 / weight;
        self.seen(tenant, now);
    }

    fn seen(&mut self, tenant: &Tenant, now: Instant) {
        match &mut self.latest {
            Some((latest, at)) if latest == tenant => *at = now,
            latest => {
                let before = latest.replace((tenant.clone(), now));
                self.other = before.map(|(_, at)| at).or(self.other);
            }
        }
    }

    /// Whether more than one tenant was there lately.
    pub fn is_shared(&self, now: Instant) -> bool {
        let since = |at: Instant| now.saturating_duration_since(at) < REMEMBERED;
        self.other.is_some_and(since)
    }

    /// What a tenant was served, by its weight: less goes first.
    pub fn served(&self, tenant: &str) -> f64 {
        let served = self.served.get(tenant).copied();
        served.unwrap_or(self.floor)
    }

    /// How many times as much as others it gets.
    pub fn weight(&self, tenant: &str) -> f64 {
        self.weights.of(tenant)
    }

    /// Raises the floor to the least of those who are there. Where nobody is, nobody waits, and what was is forgotten.
    pub fn settle<'a>(&mut self, there: impl Iterator<Item = &'a Tenant> + Clone) {
        let least = there.clone().map(|tenant| self.served(tenant));
        match least.min_by(f64::total_cmp) {
            Some(least) => self.floor = self.floor.max(least),
            None => self.served.clear(),
        }
        if self.served.len() >= self.prune_at {
            self.prune(there);
        }
    }

    /// Forgets those who are not there and would start at the floor anyway.
    fn prune<'a>(&mut self, there: impl Iterator<Item = &'a Tenant>) {
        let floor = self.floor;
        let there: std::collections::HashSet<&Tenant> = there.collect();
        self.served
            .retain(|tenant, served| *served > floor || there.contains(tenant));
        let mut away: Vec<(f64, Tenant)> = (self.served.iter())
            .filter(|(tenant, _)| !there.contains(tenant))
            .map(|(tenant, served)| (*served, tenant.clone()))
            .collect();
        away.sort_by(|a, b| b.0.total_cmp(&a.0));
        for (_, tenant) in away.drain(MOST_AWAY.min(away.len())..) {
            self.served.remove(&tenant);
        }
        self.prune_at = (self.served.len() * 2).max(64);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tenants<const N: usize>(names: [&str; N]) -> [Tenant; N] {
        names.map(Tenant::from)
    }

    #[test]
    fn who_comes_back_neither_has_saved_up_nor_lost_what_it_owes() {
        let [a, b, c] = tenants(["a", "b", "c"]);
        let (mut ledger, now) = (Ledger::new(Weights::default()), Instant::now());
        ledger.join(&a, now);
        ledger.charge(&a, 100, now);
        ledger.settle([&a].into_iter());
        ledger.join(&b, now);
        assert_eq!(ledger.served("b"), 100.0, "it starts where the other is");
        ledger.charge(&b, 50, now);
        // It leaves, and comes back before the other has caught up.
        ledger.settle([&a].into_iter());
        ledger.join(&b, now);
        assert_eq!(ledger.served("b"), 150.0);
        ledger.charge(&a, 200, now);
        ledger.settle([&a].into_iter());
        ledger.join(&b, now);
        assert_eq!(ledger.served("b"), 300.0);
        // With nobody there, nothing is owed.
        ledger.settle([].into_iter());
        ledger.join(&c, now);
        assert_eq!(ledger.served("c"), ledger.served("a"));
    }

    #[test]
    fn a_weight_divides_what_is_charged() {
        let [a, b] = tenants(["a", "b"]);
        let weights = Weights([("a".to_owned(), 2.0)].into());
        let (mut ledger, now) = (Ledger::new(weights), Instant::now());
        ledger.charge(&a, 100, now);
        ledger.charge(&b, 100, now);
        assert_eq!((ledger.served("a"), ledger.served("b")), (50.0, 100.0));
    }

    #[test]
    fn it_is_shared_while_another_was_there_lately() {
        let [a, b] = tenants(["a", "b"]);
        let (mut ledger, now) = (Ledger::new(Weights::default()), Instant::now());
        ledger.join(&a, now);
        assert!(!ledger.is_shared(now));
        ledger.join(&b, now);
        let later = now + REMEMBERED - Duration::from_secs(1);
        ledger.charge(&a, 1, later);
        assert!(ledger.is_shared(later));
        let later = now + REMEMBERED;
        ledger.charge(&a, 1, later);
        assert!(!ledger.is_shared(later));
    }

    #[test]
    fn tenants_that_come_once_are_forgotten() {
        let (mut ledger, now) = (Ledger::new(Weights::default()), Instant::now());
        let stays: Tenant = "stays".into();
        for i in 0..3 * MOST_AWAY {
            let once: Tenant = format!("{i}").into();
            ledger.join(&once, now);
            ledger.charge(&once, 10 + i, now);
            ledger.settle([&stays].into_iter());
        }
        assert!(ledger.served.len() <= 2 * MOST_AWAY + 128);
        ledger.charge(&stays, 1_000_000, now);
        ledger.prune_at = 0;
        ledger.settle([&stays].into_iter());
        assert_eq!(ledger.served.len(), 1);
    }

    proptest! {
        /// Each serves the least served; the difference stays within the largest item, weighted.
        #[test]
        fn those_who_always_wait_are_served_alike(
            sizes in prop::collection::vec((1..200_usize, 1..200_usize, 1..200_usize), 1..200),
            weights in prop::array::uniform3(1..4_u32),
        ) {
            let names = tenants(["a", "b", "c"]);
            let weights = names.iter().zip(weights).map(|(n, w)| (n.to_string(), f64::from(w)));
            let mut ledger = Ledger::new(Weights(weights.collect()));
            let now = Instant::now();
            names.iter().for_each(|name| ledger.join(name, now));
            for (a, b, c) in sizes {
                let next = names.iter().min_by(|a, b| ledger.served(a).total_cmp(&ledger.served(b)));
                let next = next.expect("three").clone();
                let size = [a, b, c][names.iter().position(|n| *n == next).expect("one of them")];
                ledger.charge(&next, size, now);
                ledger.settle(names.iter());
                let served = names.clone().map(|name| ledger.served(&name));
                let most = served.iter().copied().fold(0.0, f64::max);
                prop_assert!(most - ledger.floor <= 200.0, "{:?}", served);
            }
        }
    }
}
