//! Work for many on few cores: places at which tenants take turns, however much each of them has to do.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

/// A bounded number of places. Who finds none waits: tenants one after the other, and each one's work in its order.
/// Clones are the same one.
#[derive(Debug, Clone)]
pub struct Workbench(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    free: usize,
    /// Those who wait, by the turn of their tenant. None is empty.
    waiting: VecDeque<Queue>,
}

#[derive(Debug)]
struct Queue {
    tenant: Box<[u8]>,
    work: VecDeque<oneshot::Sender<Place>>,
}

/// A place at a workbench. Dropping it lets the next one have it.
#[derive(Debug)]
pub struct Place(Option<Workbench>);

impl Workbench {
    /// With so many places, at least one.
    pub fn new(places: usize) -> Self {
        Self(Arc::new(Mutex::new(State {
            free: places.max(1),
            waiting: VecDeque::new(),
        })))
    }

    /// Waits for a place. `tenant` is anything that tells tenants apart. Safe to drop.
    pub async fn place(&self, tenant: &[u8]) -> Place {
        let turn = {
            let mut state = self.lock();
            if state.free > 0 {
                // Nobody waits: a place that is given back goes to one who does.
                state.free -= 1;
                return Place(Some(self.clone()));
            }
            state.wait(tenant)
        };
        // The bench is there as long as anybody waits at it.
        turn.await.unwrap_or(Place(None))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Each operation leaves it whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn wait(&mut self, tenant: &[u8]) -> oneshot::Receiver<Place> {
        let (give, turn) = oneshot::channel();
        match self.waiting.iter_mut().find(|q| *q.tenant == *tenant) {
            Some(queue) => queue.work.push_back(give),
            None => self.waiting.push_back(Queue {
                tenant: tenant.into(),
                work: [give].into(),
            }),
        }
        turn
    }

    /// Whose turn it is.
    fn next(&mut self) -> Option<oneshot::Sender<Place>> {
        let mut queue = self.waiting.pop_front()?;
        let first = queue.work.pop_front();
        if !queue.work.is_empty() {
            self.waiting.push_back(queue);
        }
        first
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some(bench) = self.0.take() else { return };
        let mut state = bench.lock();
        while let Some(next) = state.next() {
            match next.send(Place(Some(bench.clone()))) {
                Ok(()) => return,
                // It does not wait any more.
                Err(mut place) => place.0 = None,
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
    fn has(place: &mut (impl Future<Output = Place> + Unpin)) -> Option<Place> {
        place.now_or_never()
    }

    #[test]
    fn tenants_take_turns_and_each_ones_work_goes_in_its_order() {
        let bench = Workbench::new(1);
        let mut held = has(&mut Box::pin(bench.place(b"a"))).expect("it is free");
        let mut waiting: Vec<_> = ["a1", "a2", "a3", "b1", "b2", "c1"]
            .map(|name| (name, Box::pin(bench.place(&name.as_bytes()[..1]))))
            .into();
        assert!(waiting.iter_mut().all(|(_, place)| has(place).is_none()));
        let mut order = Vec::new();
        while !waiting.is_empty() {
            drop(held);
            let next = waiting.iter_mut().enumerate();
            let next = next.filter_map(|(at, (_, place))| Some((at, has(place)?)));
            let mut next: Vec<_> = next.collect();
            assert_eq!(next.len(), 1, "one place, one owner");
            let (at, place) = next.remove(0);
            held = place;
            order.push(waiting.remove(at).0);
        }
        assert_eq!(order, ["a1", "b1", "c1", "a2", "b2", "a3"]);
    }

    #[test]
    fn who_goes_takes_no_place_along() {
        let bench = Workbench::new(2);
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
        let all: Vec<_> = (0..2)
            .filter_map(|_| has(&mut Box::pin(bench.place(b"a"))))
            .collect();
        assert_eq!(all.len(), 2, "all places are there again");
    }
}
