//! Work for many on few cores: places at which tenants take turns by the CPU time that they have used, however much each
//! of them has to do.
//!
//! A place is given to the tenant that used the least so far (virtual time, as in `scheduler::ledger`); one that comes back
//! starts at the least of those that are there, so that nobody saves up while away. What a piece of work costs is known when
//! it is done: until then it counts as much as [`ADVANCE`], so that who holds a place comes after who holds none.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

/// What a piece of work counts until it is known: about what the longest code takes, parsed once.
const ADVANCE: Duration = Duration::from_millis(20);
/// Tenants that are not there and used more than those that are: so many of them are remembered.
const MOST_AWAY: usize = 1024;

/// A bounded number of places. Who finds none waits: the tenant that has used the least is next, and each one's work goes in
/// its order. Clones are the same one.
#[derive(Debug, Clone)]
pub struct FairSemaphore(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    free: usize,
    /// Those who wait, in the order in which they began to. None is empty.
    waiting: VecDeque<Queue>,
    /// CPU time that tenants used, by virtual time. Bounded: see [`State::prune`].
    used: HashMap<Tenant, Used>,
    /// Where a newcomer starts: the least that anybody has used who is there. It never falls while anybody is.
    floor: Duration,
    prune_at: usize,
}

type Tenant = Arc<[u8]>;

#[derive(Debug, Default)]
struct Used {
    time: Duration,
    /// Places that it holds.
    holds: usize,
}

#[derive(Debug)]
struct Queue {
    tenant: Tenant,
    work: VecDeque<oneshot::Sender<Permit>>,
}

/// A place at a semaphore. Dropping it lets the next one have it.
#[derive(Debug)]
pub struct Permit {
    /// Nothing, once it was passed on.
    at: Option<(FairSemaphore, Tenant)>,
    used: Duration,
}

impl FairSemaphore {
    /// With so many places, at least one.
    pub fn new(places: usize) -> Self {
        Self(Arc::new(Mutex::new(State {
            free: places.max(1),
            waiting: VecDeque::new(),
            used: HashMap::new(),
            floor: Duration::ZERO,
            prune_at: 64,
        })))
    }

    /// Waits for a place. `tenant` is anything that tells tenants apart. Safe to drop.
    pub async fn place(&self, tenant: &[u8]) -> Permit {
        self.wait(tenant, VecDeque::push_back).await
    }

    /// Waits for a place to go on with what was begun: before the tenant's work that was not. Safe to drop.
    pub async fn place_again(&self, tenant: &[u8]) -> Permit {
        self.wait(tenant, VecDeque::push_front).await
    }

    async fn wait(
        &self,
        tenant: &[u8],
        push: impl FnOnce(&mut VecDeque<oneshot::Sender<Permit>>, oneshot::Sender<Permit>),
    ) -> Permit {
        let turn = {
            let mut state = self.lock();
            let tenant = state.join(tenant);
            if state.free > 0 {
                // Nobody waits: a place that is given back goes to one who does.
                state.free -= 1;
                return state.give(self, tenant);
            }
            let (give, turn) = oneshot::channel();
            push(state.queue(tenant), give);
            turn
        };
        // The bench is there as long as anybody waits at it.
        turn.await.unwrap_or(Permit {
            at: None,
            used: Duration::ZERO,
        })
    }

    /// Places that nobody holds.
    pub fn free(&self) -> usize {
        self.lock().free
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Each operation leaves it whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The tenant is there: it starts where the others are.
    fn join(&mut self, tenant: &[u8]) -> Tenant {
        let known = self.used.get_key_value(tenant);
        let tenant = known.map_or_else(|| tenant.into(), |(tenant, _)| tenant.clone());
        let floor = self.floor;
        let used = self.used.entry(tenant.clone()).or_default();
        used.time = used.time.max(floor);
        tenant
    }

    fn queue(&mut self, tenant: Tenant) -> &mut VecDeque<oneshot::Sender<Permit>> {
        let known = self.waiting.iter().position(|q| q.tenant == tenant);
        let at = known.unwrap_or_else(|| {
            self.waiting.push_back(Queue {
                tenant,
                work: VecDeque::new(),
            });
            self.waiting.len() - 1
        });
        let work = &mut self.waiting[at].work;
        if work.len() == work.capacity() {
            // Those who went without their turn make room first. Those who stay are bounded by the items in flight.
            work.retain(|turn| !turn.is_closed());
        }
        work
    }

    fn give(&mut self, bench: &FairSemaphore, tenant: Tenant) -> Permit {
        self.used.entry(tenant.clone()).or_default().holds += 1;
        Permit {
            at: Some((bench.clone(), tenant)),
            used: Duration::ZERO,
        }
    }

    /// CPU time that counts for whose turn it is.
    fn used(&self, queue: &Queue) -> Duration {
        let used = self.used.get(&queue.tenant);
        used.map_or(self.floor, |used| used.time + ADVANCE * used.holds as u32)
    }

    /// Whose turn it is.
    fn next(&mut self) -> Option<(Tenant, oneshot::Sender<Permit>)> {
        // Of equals, who began to wait first.
        let (at, _) =
            (self.waiting.iter().enumerate()).min_by_key(|(_, queue)| self.used(queue))?;
        let mut queue = self.waiting.remove(at)?;
        let (tenant, first) = (queue.tenant.clone(), queue.work.pop_front());
        if !queue.work.is_empty() {
            self.waiting.push_back(queue);
        }
        Some((tenant, first?))
    }

    /// A tenant has used a place for so long, and gives it back.
    fn charge(&mut self, tenant: &Tenant, time: Duration) {
        if let Some(used) = self.used.get_mut(tenant) {
            used.time += time;
            used.holds = used.holds.saturating_sub(1);
        }
        let waiting = (self.waiting.iter()).filter_map(|queue| self.used.get(&queue.tenant));
        let holding = self.used.values().filter(|used| used.holds > 0);
        match waiting.chain(holding).map(|used| used.time).min() {
            Some(least) => self.floor = self.floor.max(least),
            // With nobody there, nobody has waited for what anybody used.
            None => {
                self.used.clear();
                self.floor = Duration::ZERO;
            }
        }
        if self.used.len() >= self.prune_at {
            self.prune();
        }
    }

    /// Forgets those who are not there and would start at the floor anyway, and of others those who used the least.
    fn prune(&mut self) {
        let floor = self.floor;
        let waiting: Vec<&Tenant> = self.waiting.iter().map(|queue| &queue.tenant).collect();
        let is_there = |tenant: &Tenant, used: &Used| used.holds > 0 || waiting.contains(&tenant);
        let mut away: Vec<Duration> = (self.used.iter())
            .filter(|(tenant, used)| !is_there(tenant, used) && used.time > floor)
            .map(|(_, used)| used.time)
            .collect();
        away.sort_unstable_by(|a, b| b.cmp(a));
        let least = away.get(MOST_AWAY).copied().unwrap_or(floor);
        self.used
            .retain(|tenant, used| used.time > least || is_there(tenant, used));
        self.prune_at = (self.used.len() * 2).max(64);
    }
}

impl Permit {
    /// So much CPU time was used at it.
    pub fn spend(&mut self, time: Duration) {
        self.used += time;
    }

    /// Whether a tenant waits that has used less than this one, with what was spent at this place.
    pub fn is_wanted(&self) -> bool {
        let Some((bench, tenant)) = &self.at else {
            return false;
        };
        let state = bench.lock();
        let used = (state.used.get(tenant)).map_or(Duration::ZERO, |used| used.time + self.used);
        let waits = |queue: &&Queue| queue.work.iter().any(|turn| !turn.is_closed());
        let mut waiting = state.waiting.iter().filter(waits);
        waiting.any(|queue| queue.tenant != *tenant && state.used(queue) < used)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let Some((bench, tenant)) = self.at.take() else {
            return;
        };
        let mut state = bench.lock();
        state.charge(&tenant, self.used);
        while let Some((next, turn)) = state.next() {
            let place = state.give(&bench, next.clone());
            match turn.send(place) {
                Ok(()) => return,
                // It does not wait any more.
                Err(mut place) => {
                    place.at = None;
                    state.charge(&next, Duration::ZERO);
                }
            }
        }
        state.free += 1;
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    /// Waits at a bench with nobody to wake: what has not come by now will not come by itself.
    fn has(place: &mut (impl Future<Output = Permit> + Unpin)) -> Option<Permit> {
        place.now_or_never()
    }

    /// Has one place taken in turn by work of this tenant and cost, in milliseconds; the order in which it was.
    fn order(work: &[(&'static str, u64)]) -> Vec<&'static str> {
        let bench = FairSemaphore::new(1);
        let mut held = has(&mut Box::pin(bench.place(b"first"))).expect("it is free");
        let mut waiting: Vec<_> = (work.iter())
            .map(|(name, cost)| (*name, *cost, Box::pin(bench.place(&name.as_bytes()[..1]))))
            .collect();
        assert!(waiting.iter_mut().all(|(_, _, place)| has(place).is_none()));
        let mut order = Vec::new();
        while !waiting.is_empty() {
            drop(held);
            let next = waiting.iter_mut().enumerate();
            let next = next.filter_map(|(at, (_, _, place))| Some((at, has(place)?)));
            let mut next: Vec<_> = next.collect();
            assert_eq!(next.len(), 1, "one place, one owner");
            let (at, mut place) = next.remove(0);
            let (name, cost, _) = waiting.remove(at);
            place.spend(Duration::from_millis(cost));
            held = place;
            order.push(name);
        }
        order
    }

    #[test]
    fn tenants_with_like_work_take_turns_and_each_ones_goes_in_its_order() {
        let work = ["a1", "a2", "a3", "b1", "b2", "c1"].map(|name| (name, 10));
        assert_eq!(order(&work), ["a1", "b1", "c1", "a2", "b2", "a3"]);
    }

    #[test]
    fn who_used_more_waits_until_the_others_have_used_as_much() {
        let work = [
            ("a1", 35),
            ("a2", 35),
            ("b1", 10),
            ("b2", 10),
            ("b3", 10),
            ("b4", 10),
            ("b5", 10),
        ];
        assert_eq!(order(&work), ["a1", "b1", "b2", "b3", "b4", "a2", "b5"]);
    }

    #[test]
    fn who_holds_a_place_comes_after_who_holds_none() {
        let bench = FairSemaphore::new(2);
        let take = |tenant: &'static [u8]| Box::pin(bench.place(tenant));
        let mut first = has(&mut take(b"a")).expect("it is free");
        let _second = has(&mut take(b"a")).expect("it is free");
        let (mut third, mut other) = (take(b"a"), take(b"b"));
        assert!(has(&mut third).is_none() && !first.is_wanted());
        assert!(has(&mut other).is_none() && !first.is_wanted());
        first.spend(Duration::from_millis(1));
        assert!(first.is_wanted());
        drop(first);
        assert!(has(&mut third).is_none());
        assert!(has(&mut other).is_some());
    }

    #[test]
    fn what_was_begun_goes_on_before_the_tenants_other_work() {
        let bench = FairSemaphore::new(1);
        let held = has(&mut Box::pin(bench.place(b"a"))).expect("it is free");
        let mut next = Box::pin(bench.place(b"a"));
        let mut begun = Box::pin(bench.place_again(b"a"));
        assert!(has(&mut next).is_none() && has(&mut begun).is_none());
        drop(held);
        assert!(has(&mut next).is_none());
        assert!(has(&mut begun).is_some());
    }

    #[test]
    fn who_goes_takes_no_place_along() {
        let bench = FairSemaphore::new(2);
        let held: Vec<_> = (0..2)
            .map(|_| has(&mut Box::pin(bench.place(b"a"))).expect("it is free"))
            .collect();
        let (mut goes, mut given, mut stays) = (
            Box::pin(bench.place(b"a")),
            Box::pin(bench.place(b"b")),
            Box::pin(bench.place(b"c")),
        );
        for place in [&mut goes, &mut given, &mut stays] {
            assert!(has(place).is_none());
        }
        drop(goes);
        drop(held);
        // One of the two was given a place and goes without having looked.
        drop(given);
        let last = has(&mut stays).expect("its turn has come");
        drop(last);
        assert_eq!(bench.free(), 2, "all places are there again");
    }

    #[test]
    fn tenants_that_come_once_are_forgotten() {
        let bench = FairSemaphore::new(2);
        let mut stays = has(&mut Box::pin(bench.place(b"stays"))).expect("it is free");
        for i in 0..3 * MOST_AWAY {
            let mut once = has(&mut Box::pin(bench.place(&i.to_le_bytes()))).expect("it is free");
            once.spend(Duration::from_millis(1 + i as u64));
        }
        assert!(bench.lock().used.len() <= 2 * MOST_AWAY + 128);
        stays.spend(Duration::from_secs(3600));
        drop(stays);
        assert!(bench.lock().used.is_empty(), "nobody is there");
    }
}
