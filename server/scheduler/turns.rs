//! Who gives way to whom. Pure.
//!
//! Slots are shared out like tokens. A sequence that waits takes the slot
//! - of one of its own tenant that goes after it: a bulk one, say, that an interactive one meets;
//! - of one of a tenant that was served more and would still have no fewer slots, by weight, than its own will have.
//!
//! The second takes from who has more and was served more, and ends when slots are even: so it cannot go back and forth.
//! Who gives way keeps its blocks as long as nobody needs them, and its place: it goes on before those of its tenant that
//! have not begun.

use crate::waiting::Rank;

/// What a sequence's tenant can claim.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Standing {
    /// What it was served, by its weight: less goes first.
    pub served: f64,
    /// How many times as much as others it gets.
    pub weight: f64,
    /// It has more that waits.
    pub backlogged: bool,
    /// Another one who is there was served less.
    pub ahead: bool,
    /// Others are there, or were lately.
    pub shared: bool,
}

impl Default for Standing {
    fn default() -> Self {
        Self {
            served: 0.0,
            weight: 1.0,
            backlogged: false,
            ahead: false,
            shared: false,
        }
    }
}

impl Standing {
    /// Its prompts are computed in small portions, so that one of others who comes in meanwhile does not wait long, and the
    /// answers of who was served less go on.
    pub fn is_brief(&self) -> bool {
        self.shared && (self.backlogged || self.ahead)
    }
}

/// A sequence, as far as it matters for whose turn it is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Claim<'a> {
    /// Whose it is.
    pub tenant: &'a str,
    /// Its place among those of its tenant.
    pub rank: Rank,
    /// Its tenant's.
    pub standing: Standing,
}

impl Claim<'_> {
    /// Less goes first.
    pub fn order(&self, other: &Self) -> std::cmp::Ordering {
        let served = self.standing.served.total_cmp(&other.standing.served);
        served.then(self.rank.cmp(&other.rank))
    }
}

/// The one of `running` that gives its slot to the one that `waits`; `None`: nobody.
pub fn who_gives_way(running: &[Claim<'_>], waits: &Claim<'_>) -> Option<usize> {
    let slots = |tenant: &str| running.iter().filter(|r| r.tenant == tenant).count() as f64;
    let gets = (slots(waits.tenant) + 1.0) / waits.standing.weight;
    let gives = |victim: &Claim<'_>| {
        if victim.tenant == waits.tenant {
            return victim.rank > waits.rank;
        }
        let keeps = (slots(victim.tenant) - 1.0) / victim.standing.weight;
        victim.standing.served > waits.standing.served && keeps >= gets
    };
    last(running.iter().enumerate().filter(|(_, r)| gives(r)))
}

/// The one that gives its blocks to the others: who goes last.
pub fn who_goes_last(running: &[Claim<'_>]) -> Option<usize> {
    last(running.iter().enumerate())
}

fn last<'a>(claims: impl Iterator<Item = (usize, &'a Claim<'a>)>) -> Option<usize> {
    Some(claims.max_by(|a, b| a.1.order(b.1))?.0)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::waiting::{Priority, WaitingRoom};

    /// Claims of tenants by what they were served, in the order in which they came.
    fn claims<'a>(of: &[(&'a str, f64, Priority)]) -> Vec<Claim<'a>> {
        let mut room: WaitingRoom<()> = WaitingRoom::new(Duration::from_secs(10));
        let now = Instant::now();
        let claim = |(tenant, served, priority): &(&'a str, f64, Priority)| Claim {
            tenant,
            rank: room.rank(*priority, now),
            standing: Standing {
                served: *served,
                ..Standing::default()
            },
        };
        of.iter().map(claim).collect()
    }

    use Priority::{Bulk, Interactive, Normal};

    #[test]
    fn who_was_served_less_gets_a_slot_until_slots_are_even() {
        let all = claims(&[
            ("a", 9.0, Normal),
            ("a", 9.0, Normal),
            ("a", 9.0, Normal),
            ("a", 9.0, Normal),
            ("b", 1.0, Normal),
            ("b", 1.0, Normal),
            ("b", 1.0, Normal),
        ]);
        assert_eq!(who_gives_way(&all[..4], &all[4]), Some(3), "the youngest");
        let with_b = [&all[..3], &all[4..5]].concat();
        assert_eq!(who_gives_way(&with_b, &all[5]), Some(2));
        let even = [&all[..2], &all[4..6]].concat();
        assert_eq!(who_gives_way(&even, &all[6]), None);
    }

    #[test]
    fn who_was_served_more_takes_nothing() {
        let all = claims(&[("a", 1.0, Normal), ("a", 1.0, Normal), ("b", 2.0, Normal)]);
        assert_eq!(who_gives_way(&all[..2], &all[2]), None);
    }

    #[test]
    fn an_urgent_one_takes_the_slot_of_its_own_tenants_bulk() {
        let all = claims(&[
            ("a", 1.0, Normal),
            ("a", 1.0, Bulk),
            ("a", 1.0, Interactive),
        ]);
        assert_eq!(who_gives_way(&all[..2], &all[2]), Some(1));
        assert_eq!(who_gives_way(&all[..1], &all[1]), None);
    }

    #[test]
    fn a_weight_counts_as_so_many_tenants() {
        let mut all = claims(&[("a", 9.0, Normal), ("a", 9.0, Normal), ("b", 1.0, Normal)]);
        assert_eq!(who_gives_way(&all[..2], &all[2]), Some(1));
        all[0].standing.weight = 1.0;
        all[2].standing.weight = 0.5;
        assert_eq!(
            who_gives_way(&all[..2], &all[2]),
            None,
            "two slots by its weight"
        );
    }

    #[test]
    fn blocks_come_from_who_was_served_most_and_came_last() {
        let all = claims(&[
            ("a", 5.0, Normal),
            ("b", 9.0, Normal),
            ("b", 9.0, Interactive),
        ]);
        assert_eq!(who_goes_last(&all), Some(1));
    }
}
