//! The one queue before all engines, and whose turn it is. Each engine takes the next job when it has room for it and no
//! other that has room has less to do.
//!
//! The tenant that was served least goes first, and of its jobs the one of the first rank, those that are paused in the
//! engine among them. A job that does not fit yet is not overtaken, so nobody starves. The lock is held for a few moves of
//! memory, never while anybody waits for anything else.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, mpsc};

use crate::core::Core;
use crate::ledger::{Ledger, Weights};
use crate::places::may_take;
use crate::sequence::Sequence;
use crate::turns::Standing;
use crate::waiting::{Priority, Rank, Tenant, WaitingRoom};
use crate::{Event, Failure};

/// Sequences that wait for an engine, and what each engine has in hand.
#[derive(Debug)]
pub(super) struct Queue {
    state: Mutex<State>,
    /// For engines that are threads, and for those that are tasks.
    changed: Condvar,
    bell: Notify,
}

#[derive(Debug)]
struct State {
    room: WaitingRoom<Sequence>,
    ledger: Ledger,
    engines: Vec<Engine>,
    stopped: bool,
    /// Positions may differ from what was told.
    moved: bool,
}

/// What the queue knows of an engine.
#[derive(Debug, Default)]
struct Engine {
    /// Counts its lives: an engine that is started again has a new one, and what the old one does is ignored.
    life: u64,
    /// What it has to do, in tokens, if it has room.
    load: Option<usize>,
    /// Tenants of the sequences that it has in hand.
    tenants: Vec<Tenant>,
    /// The way to the clients of those.
    outlets: Vec<mpsc::Sender<Event>>,
    /// Somebody wants to know whether it is well.
    test: bool,
}

/// An engine in one of its lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Incarnation {
    pub(super) engine: usize,
    pub(super) life: u64,
}

/// Why an engine with nothing to do was woken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wake {
    /// There is something to do.
    Work,
    /// It is to run a forward pass, to show that it can.
    Test,
    /// It is to end.
    End,
}

/// Why a job was not queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    /// There are too many prompt tokens in the queue.
    Full,
    /// Nobody will work on it.
    Stopped,
}

impl Queue {
    /// A queue before `engines` engines. Its bound in items is that of the places that are given out: see
    /// [`Scheduler::enter`](super::Scheduler::enter).
    pub(super) fn new(engines: usize, aging: Duration, weights: Weights) -> Self {
        Self {
            state: Mutex::new(State {
                room: WaitingRoom::new(aging),
                ledger: Ledger::new(weights),
                engines: (0..engines).map(|_| Engine::default()).collect(),
                stopped: false,
                moved: false,
            }),
            changed: Condvar::new(),
            bell: Notify::new(),
        }
    }

    /// The rank of a job that comes now.
    pub(super) fn rank(&self, priority: Priority, now: Instant) -> Rank {
        self.lock().room.rank(priority, now)
    }

    /// Adds one. Gives how many are before it.
    ///
    /// A prompt that is larger than all of `most_tokens` waits alone. Where there are `several` tenants, the last eighth of
    /// the tokens is for those who have little, as it is with places.
    pub(super) fn push(
        &self,
        sequence: Sequence,
        most_tokens: usize,
        several: bool,
        now: Instant,
    ) -> Result<usize, Refused> {
        let mut state = self.lock();
        if state.stopped {
            return Err(Refused::Stopped);
        }
        let (room, tenant) = (&mut state.room, sequence.tenant().clone());
        let size = sequence.size();
        let held = room.tokens_of(&tenant);
        if !room.is_empty() && !may_take(room.tokens(), held, size.prompt, most_tokens, several) {
            return Err(Refused::Full);
        }
        let rank = sequence.rank();
        room.push(&tenant, rank, size, sequence);
        state.ledger.join(&tenant, now);
        state.moved = true;
        let position = state.position(&tenant, rank);
        drop(state);
        self.ring();
        Ok(position)
    }

    /// Makes a job that waits more urgent. Gives its rank from then on; `None`: it does not wait any more.
    pub(super) fn raise(
        &self,
        tenant: &str,
        rank: Rank,
        priorities: (Priority, Priority),
    ) -> Option<Rank> {
        let mut state = self.lock();
        let (rank, sequence) = state.room.raise(tenant, rank, priorities)?;
        sequence.set_rank(rank);
        state.moved = true;
        Some(rank)
    }

    /// Tells everybody who waits how many are before it, where that has changed.
    pub(super) fn tell_positions(&self) {
        let mut state = self.lock();
        if !std::mem::take(&mut state.moved) {
            return;
        }
        let mut turns: Vec<_> = state.turns().collect();
        turns.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        for (position, (_, _, sequence)) in turns.into_iter().enumerate() {
            sequence.tell_position(position);
        }
    }

    /// Fails all that wait, and wakes all engines to end.
    pub(super) fn stop(&self) {
        let mut state = self.lock();
        state.stopped = true;
        for sequence in state.room.drain() {
            sequence.fail(Failure::ShuttingDown);
        }
        drop(state);
        self.ring();
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.lock().stopped
    }

    fn ring(&self) {
        self.changed.notify_all();
        self.bell.notify_waiters();
    }

    /// An engine with nothing to do waits here until there is something.
    pub(super) fn wait(&self, incarnation: Incarnation) -> Wake {
        let mut state = self.lock();
        loop {
            if let Some(wake) = state.wake(incarnation) {
                return wake;
            }
            let woken = self.changed.wait(state);
            state = woken.unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The same for an engine that is a task. Safe to drop.
    pub(super) async fn woken(&self, incarnation: Incarnation) -> Wake {
        loop {
            let rung = self.bell.notified();
            tokio::pin!(rung);
            // From here on no ring is missed.
            rung.as_mut().enable();
            if let Some(wake) = self.lock().wake(incarnation) {
                return wake;
            }
            rung.await;
        }
    }

    /// Has an engine that has nothing to do show that it is well.
    pub(super) fn ask_for_test(&self, engine: usize) {
        self.lock().engines[engine].test = true;
        self.ring();
    }

    /// Forgets what was cancelled, and gives the engine what it is its turn to take. False if it is to end.
    pub(super) fn schedule(&self, incarnation: Incarnation, core: &mut Core, now: Instant) -> bool {
        let mut state = self.lock();
        if !state.goes_on(incarnation) {
            return false;
        }
        state.engines[incarnation.engine].test = false;
        let waiting = state.room.len();
        state.room.retain(|s| !s.is_cancelled());
        core.retire_cancelled();
        while state.take_next(incarnation.engine, core, now) {}
        state.moved |= state.room.len() != waiting;
        state.note(incarnation.engine, core);
        true
    }

    /// Takes note of a step. False if it does not count, as the engine has been given up meanwhile.
    pub(super) fn settle(&self, incarnation: Incarnation, core: &mut Core, now: Instant) -> bool {
        let mut state = self.lock();
        if !state.is_current(incarnation) {
            return false;
        }
        for (tenant, tokens) in core.take_served() {
            state.ledger.charge(&tenant, tokens, now);
        }
        state.note(incarnation.engine, core);
        state.settle();
        true
    }

    /// Gives an engine up: its clients are told why, and it may come back in a new life.
    pub(super) fn give_up(&self, engine: usize, why: Failure) -> Incarnation {
        let mut state = self.lock();
        let old = &mut state.engines[engine];
        for outlet in old.outlets.drain(..) {
            // One that has ended has no room left, or nobody who listens.
            let _ = outlet.try_send(Event::Failed(why));
        }
        let life = old.life + 1;
        *old = Engine {
            life,
            ..Engine::default()
        };
        state.settle();
        Incarnation { engine, life }
    }

    /// What a tenant was served, by its weight.
    #[cfg(test)]
    pub(super) fn served(&self, tenant: &str) -> f64 {
        self.lock().ledger.served(tenant)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is whole between any two of its operations, so a panic elsewhere does not spoil it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn is_current(&self, incarnation: Incarnation) -> bool {
        self.engines[incarnation.engine].life == incarnation.life
    }

    fn goes_on(&self, incarnation: Incarnation) -> bool {
        !self.stopped && self.is_current(incarnation)
    }

    /// What an engine with nothing to do is woken for, if anything.
    fn wake(&mut self, incarnation: Incarnation) -> Option<Wake> {
        if !self.goes_on(incarnation) {
            return Some(Wake::End);
        }
        let engine = &mut self.engines[incarnation.engine];
        engine.load = Some(0);
        if !self.room.is_empty() {
            return Some(Wake::Work);
        }
        std::mem::take(&mut engine.test).then_some(Wake::Test)
    }

    /// The engine takes one more. False if it is not its turn, or there is none for it.
    fn take_next(&mut self, engine: usize, core: &mut Core, now: Instant) -> bool {
        let paused: Vec<Tenant> = core.paused_tenants().cloned().collect();
        let least = self.least_served(engine);
        core.set_standings(|tenant| self.standing(tenant, paused.contains(tenant), least, now));
        let load = core.load();
        self.engines[engine].load = load;
        let others = || (self.engines.iter().enumerate()).filter(|(i, _)| *i != engine);
        let mine = match load {
            Some(load) => others().all(|(_, e)| e.load.is_none_or(|other| other >= load)),
            // Somebody may have to give way, unless there is room elsewhere.
            None => others().all(|(_, e)| e.load.is_none()),
        };
        // What is paused here nobody else can go on with, so it does not wait for the others.
        if !mine && (load.is_none() || paused.is_empty()) {
            return false;
        }
        let candidates = self.room.tenants().filter(|_| mine).chain(&paused);
        let first = candidates.min_by(|a, b| {
            let served = |tenant: &Tenant| self.ledger.served(tenant);
            let by_served = served(a).total_cmp(&served(b));
            // Equals by who came first, so that it is nobody's luck.
            by_served.then_with(|| self.first_rank(a, core).cmp(&self.first_rank(b, core)))
        });
        let Some(tenant) = first.cloned() else {
            return false;
        };
        let taken = self.take_from(&tenant, engine, core, now, mine);
        if !taken {
            // What it has no room for, another may have.
            self.engines[engine].load = None;
        }
        taken
    }

    /// The engine goes on with one of the tenant's that are paused there or, if it `may`, takes one that waits.
    fn take_from(
        &mut self,
        tenant: &Tenant,
        engine: usize,
        core: &mut Core,
        now: Instant,
        may: bool,
    ) -> bool {
        let paused = core.first_paused(tenant);
        let waiting = self.room.first_rank(tenant).filter(|_| may);
        if let Some(rank) = paused.filter(|p| waiting.is_none_or(|w| *p < w)) {
            return core.resume(rank);
        }
        let standing = self.standing(tenant, false, self.least_served(engine), now);
        let Some((_, next)) = self.room.first(tenant) else {
            return false;
        };
        next.standing = standing;
        if !core.make_room(next) {
            // What it took of this engine's blocks is no use to another.
            next.preempt();
            return false;
        }
        let Some(next) = self.room.pop(tenant) else {
            return false;
        };
        self.engines[engine].outlets.push(next.outlet());
        core.admit(next);
        true
    }

    fn first_rank(&self, tenant: &str, core: &Core) -> Option<Rank> {
        let ranks = [self.room.first_rank(tenant), core.first_paused(tenant)];
        ranks.into_iter().flatten().min()
    }

    /// Where the least served one who is there got `least`.
    fn standing(&self, tenant: &Tenant, paused: bool, least: f64, now: Instant) -> Standing {
        let served = self.ledger.served(tenant);
        Standing {
            served,
            weight: self.ledger.weight(tenant),
            backlogged: paused || self.room.has(tenant),
            ahead: served > least,
            shared: self.ledger.is_shared(now),
        }
    }

    /// The least that anybody was served who waits, or is in the engine's hands.
    fn least_served(&self, engine: usize) -> f64 {
        let running = &self.engines[engine].tenants;
        let there = self.room.tenants().chain(running);
        there
            .map(|tenant| self.ledger.served(tenant))
            .fold(f64::INFINITY, f64::min)
    }

    /// Keeps what the engine has in hand.
    fn note(&mut self, engine: usize, core: &Core) {
        let engine = &mut self.engines[engine];
        engine.tenants.clear();
        engine.tenants.extend(core.tenants().cloned());
        engine.outlets.retain(|outlet| !outlet.is_closed());
    }

    fn settle(&mut self) {
        let Self {
            room,
            ledger,
            engines,
            ..
        } = self;
        let running = engines.iter().flat_map(|engine| &engine.tenants);
        let there: Vec<&Tenant> = room.tenants().chain(running).collect();
        ledger.settle(there.into_iter());
    }

    fn turns(&self) -> impl Iterator<Item = (f64, Rank, &Sequence)> {
        self.room
            .turns(|tenant| (self.ledger.served(tenant), self.ledger.weight(tenant)))
    }

    /// How many are before one that waits.
    fn position(&self, tenant: &str, rank: Rank) -> usize {
        let own = |(_, r, s): &(f64, Rank, &Sequence)| *r == rank && **s.tenant() == *tenant;
        let Some((time, ..)) = self.turns().find(own) else {
            return 0;
        };
        let before = |(t, r, _): &(f64, Rank, &Sequence)| {
            t.total_cmp(&time).then(r.cmp(&rank)) == std::cmp::Ordering::Less
        };
        self.turns().filter(before).count()
    }
}
