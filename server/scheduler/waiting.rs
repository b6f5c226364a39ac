//! Items that wait, in the order in which they are to be served. Pure: the time is an argument.
//!
//! Each tenant has a lane of its own, and [`ledger`](super::ledger) says whose turn it is. In a lane, an item goes as if
//! it had come later than it did by what its [`Priority`] costs it. So an item of a low priority is overtaken only by
//! those of its tenant that come within that time: nobody starves.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Whose item it is. Empty: nobody's in particular.
pub type Tenant = Arc<str>;

/// How urgent an item is, beside those of its own tenant: less is more urgent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Priority {
    /// Somebody looks at the screen.
    Interactive,
    /// As most.
    #[default]
    Normal,
    /// Whenever there is nothing better to do.
    Bulk,
}

impl Priority {
    /// How much later than it came an item counts as having come.
    pub fn handicap(self, aging: Duration) -> Duration {
        aging.saturating_mul(match self {
            Self::Interactive => 0,
            Self::Normal => 1,
            Self::Bulk => 2,
        })
    }
}

/// An item's place among those of its tenant: less goes first. No two are equal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank {
    due: Instant,
    number: u64,
}

/// A bounded number of items that wait: the bound is kept by who pushes.
#[derive(Debug)]
pub struct WaitingRoom<T> {
    /// Those with items.
    lanes: HashMap<Tenant, Lane<T>>,
    items: usize,
    tokens: usize,
    pushed: u64,
    aging: Duration,
}

#[derive(Debug)]
struct Lane<T> {
    items: BTreeMap<Rank, Waiting<T>>,
    tokens: usize,
}

#[derive(Debug)]
struct Waiting<T> {
    item: T,
    size: Size,
}

/// What an item will take, in tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Of its prompt.
    pub prompt: usize,
    /// That it may generate.
    pub answer: usize,
}

impl<T> WaitingRoom<T> {
    /// Nobody waits. After `aging` longer, an item is as good as one of the next priority.
    pub fn new(aging: Duration) -> Self {
        Self {
            lanes: HashMap::new(),
            items: 0,
            tokens: 0,
            pushed: 0,
            aging,
        }
    }

    /// Items that wait.
    pub fn len(&self) -> usize {
        self.items
    }

    /// Nobody waits.
    pub fn is_empty(&self) -> bool {
        self.items == 0
    }

    /// Tokens of the prompts that wait.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// The rank of an item that comes now.
    pub fn rank(&mut self, priority: Priority, now: Instant) -> Rank {
        self.pushed += 1;
        Rank {
            due: now + priority.handicap(self.aging),
            number: self.pushed,
        }
    }

    /// One more waits.
    pub fn push(&mut self, tenant: &Tenant, rank: Rank, size: Size, item: T) {
        self.items += 1;
        self.tokens += size.prompt;
        let lane = self.lanes.entry(tenant.clone()).or_insert_with(|| Lane {
            items: BTreeMap::new(),
            tokens: 0,
        });
        lane.tokens += size.prompt;
        lane.items.insert(rank, Waiting { item, size });
    }

    /// Makes one that waits as urgent as if it had come with the priority `to` and not `from`, and gives its rank from
    /// then on. `None`: it does not wait.
    pub fn raise(
        &mut self,
        tenant: &str,
        rank: Rank,
        (from, to): (Priority, Priority),
    ) -> Option<(Rank, &mut T)> {
        let lane = self.lanes.get_mut(tenant)?;
        let waiting = lane.items.remove(&rank)?;
        let came = rank.due - from.handicap(self.aging);
        let rank = Rank {
            due: came + to.handicap(self.aging),
            ..rank
        };
        let waiting = lane.items.entry(rank).or_insert(waiting);
        Some((rank, &mut waiting.item))
    }

    /// Tenants with items that wait.
    pub fn tenants(&self) -> impl Iterator<Item = &Tenant> {
        self.lanes.keys()
    }

    /// Whether this one has any.
    pub fn has(&self, tenant: &str) -> bool {
        self.lanes.contains_key(tenant)
    }

    /// Tokens of this one's prompts that wait.
    pub fn tokens_of(&self, tenant: &str) -> usize {
        self.lanes.get(tenant).map_or(0, |lane| lane.tokens)
    }

    /// The rank of a tenant's next item.
    pub fn first_rank(&self, tenant: &str) -> Option<Rank> {
        Some(*self.lanes.get(tenant)?.items.first_key_value()?.0)
    }

    /// A tenant's next item.
    pub fn first(&mut self, tenant: &str) -> Option<(Rank, &mut T)> {
        let (rank, waiting) = self.lanes.get_mut(tenant)?.items.iter_mut().next()?;
        Some((*rank, &mut waiting.item))
    }

    /// Takes a tenant's next item.
    pub fn pop(&mut self, tenant: &str) -> Option<T> {
        let lane = self.lanes.get_mut(tenant)?;
        let (_, waiting) = lane.items.pop_first()?;
        lane.tokens -= waiting.size.prompt;
        if lane.items.is_empty() {
            self.lanes.remove(tenant);
        }
        self.items -= 1;
        self.tokens -= waiting.size.prompt;
        Some(waiting.item)
    }

    /// Forgets items.
    pub fn retain(&mut self, keep: impl Fn(&T) -> bool) {
        for lane in self.lanes.values_mut() {
            lane.items.retain(|_, waiting| {
                let stays = keep(&waiting.item);
                if !stays {
                    self.items -= 1;
                    self.tokens -= waiting.size.prompt;
                    lane.tokens -= waiting.size.prompt;
                }
                stays
            });
        }
        self.lanes.retain(|_, lane| !lane.items.is_empty());
    }

    /// Takes everything out.
    pub fn drain(&mut self) -> impl Iterator<Item = T> + use<T> {
        self.items = 0;
        self.tokens = 0;
        let lanes = std::mem::take(&mut self.lanes);
        let items = lanes
            .into_values()
            .flat_map(|lane| lane.items.into_values());
        items.map(|waiting| waiting.item)
    }

    /// All that wait, each with the virtual time at which its turn comes if nobody else does: what its tenant has been
    /// served, and what those before it in the lane will take. Less comes sooner; equals by their rank.
    ///
    /// This is start-time fair queueing (Goyal, Vin and Cheng, 1996) with the most that each item may take, so it is an
    /// upper bound on the work before it: answers often end sooner.
    pub fn turns(
        &self,
        account: impl Fn(&Tenant) -> (f64, f64),
    ) -> impl Iterator<Item = (f64, Rank, &T)> {
        self.lanes.iter().flat_map(move |(tenant, lane)| {
            let (mut time, weight) = account(tenant);
            lane.items.iter().map(move |(rank, waiting)| {
                let start = time;
                time += (waiting.size.prompt + waiting.size.answer) as f64 / weight;
                (start, *rank, &waiting.item)
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const AGING: Duration = Duration::from_secs(10);
    const SIZE: Size = Size {
        prompt: 10,
        answer: 10,
    };

    fn priority() -> impl Strategy<Value = Priority> {
        prop_oneof![
            Just(Priority::Interactive),
            Just(Priority::Normal),
            Just(Priority::Bulk)
        ]
    }

    #[test]
    fn the_urgent_go_first_until_the_others_have_waited_long_enough() {
        let (mut room, start) = (WaitingRoom::new(AGING), Instant::now());
        let tenant: Tenant = "a".into();
        for (name, priority, after) in [
            ("bulk", Priority::Bulk, 0),
            ("normal", Priority::Normal, 1),
            ("soon", Priority::Interactive, 9),
            ("too late for normal", Priority::Interactive, 12),
            ("too late for bulk", Priority::Interactive, 21),
        ] {
            let rank = room.rank(priority, start + Duration::from_secs(after));
            room.push(&tenant, rank, SIZE, name);
        }
        assert_eq!((room.len(), room.tokens()), (5, 50));
        let order: Vec<_> = std::iter::from_fn(|| room.pop("a")).collect();
        let wanted = ["soon", "normal", "too late for normal", "bulk"];
        assert_eq!(order[..4], wanted);
        assert_eq!((room.len(), room.tokens()), (0, 0));
    }

    #[test]
    fn who_is_raised_goes_as_if_it_had_always_been_as_urgent() {
        let (mut room, start) = (WaitingRoom::new(AGING), Instant::now());
        let tenant: Tenant = "a".into();
        let mut push = |name, priority, after| {
            let rank = room.rank(priority, start + Duration::from_secs(after));
            room.push(&tenant, rank, SIZE, name);
            rank
        };
        push("normal", Priority::Normal, 0);
        let bulk = push("bulk", Priority::Bulk, 1);
        push("interactive", Priority::Interactive, 2);
        let raise = (Priority::Bulk, Priority::Interactive);
        let (raised, item) = room.raise("a", bulk, raise).expect("it waits");
        assert_eq!(*item, "bulk");
        assert_eq!(room.raise("a", bulk, raise), None, "it has another rank");
        assert_eq!(room.first_rank("a"), Some(raised));
        assert_eq!((room.len(), room.tokens()), (3, 30));
        let order: Vec<_> = std::iter::from_fn(|| room.pop("a")).collect();
        assert_eq!(order, ["bulk", "interactive", "normal"]);
    }

    #[test]
    fn turns_alternate_between_tenants_by_what_they_take() {
        let (mut room, now) = (WaitingRoom::new(AGING), Instant::now());
        for (tenant, name) in [
            ("a", "a1"),
            ("a", "a2"),
            ("a", "a3"),
            ("b", "b1"),
            ("b", "b2"),
        ] {
            let rank = room.rank(Priority::Normal, now);
            room.push(&tenant.into(), rank, SIZE, name);
        }
        // The second has twice the weight.
        let mut turns: Vec<_> = room
            .turns(|tenant| (0.0, if **tenant == *"b" { 2.0 } else { 1.0 }))
            .collect();
        turns.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        let order: Vec<_> = turns.iter().map(|turn| *turn.2).collect();
        assert_eq!(order, ["a1", "b1", "b2", "a2", "a3"]);
    }

    proptest! {
        /// The bound of the documentation: who comes more than the handicap later, goes later; and none is lost.
        #[test]
        fn nobody_is_overtaken_by_those_who_come_later_than_its_handicap(
            items in prop::collection::vec((priority(), 0..40_u64), 1..40),
        ) {
            let (mut room, start) = (WaitingRoom::new(AGING), Instant::now());
            let tenant: Tenant = "".into();
            let mut at = start;
            let mut all = Vec::new();
            for (priority, gap) in items {
                at += Duration::from_secs(gap);
                let rank = room.rank(priority, at);
                room.push(&tenant, rank, SIZE, (priority, at));
                all.push((priority, at));
            }
            let order: Vec<_> = std::iter::from_fn(|| room.pop("")).collect();
            prop_assert_eq!(order.len(), all.len());
            for (index, (priority, came)) in order.iter().enumerate() {
                let latest = *came + priority.handicap(AGING);
                for (_, overtook) in &order[..index] {
                    prop_assert!(*overtook <= latest);
                }
                for (later, _) in order[index..].iter().filter(|(_, c)| c < came) {
                    prop_assert!(later.handicap(AGING) > priority.handicap(AGING), "only lower ones are overtaken");
                }
            }
        }
    }
}
