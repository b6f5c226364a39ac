//! The one queue before all engines. Each takes the next job when it has room for it and no other that has room has less
//! to do.
//!
//! First come, first served: a job that does not fit yet is not overtaken, so nobody starves. The lock is held for a few
//! moves of memory, never while anybody waits for anything else.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crate::scheduler::sequence::{Failure, Sequence};

/// Sequences that wait for an engine.
#[derive(Debug)]
pub(super) struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    waiting: VecDeque<Sequence>,
    /// What each engine that has room has to do, in tokens.
    loads: Vec<Option<usize>>,
    /// Engines that have not ended.
    engines: usize,
    stopped: bool,
}

impl Queue {
    /// A queue before `engines` engines. Its bound is that of the places that are given out: see
    /// [`Scheduler::enter`](super::Scheduler::enter).
    pub(super) fn new(engines: usize) -> Self {
        Self {
            state: Mutex::new(State {
                waiting: VecDeque::new(),
                loads: vec![None; engines],
                engines,
                stopped: false,
            }),
            changed: Condvar::new(),
        }
    }

    /// Adds one at the end. False if nobody is left to work on it.
    pub(super) fn push(&self, sequence: Sequence) -> bool {
        let mut state = self.lock();
        if state.stopped || state.engines == 0 {
            return false;
        }
        state.waiting.push_back(sequence);
        drop(state);
        self.changed.notify_all();
        true
    }

    /// Fails all that wait, and wakes all engines to end.
    pub(super) fn stop(&self) {
        let mut state = self.lock();
        state.stopped = true;
        fail_all(&mut state);
        drop(state);
        self.changed.notify_all();
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.lock().stopped
    }

    /// An engine with nothing to do waits here until there is something, or the end.
    pub(super) fn wait(&self, engine: usize) {
        let mut state = self.lock();
        state.loads[engine] = Some(0);
        let nothing = |s: &mut State| s.waiting.is_empty() && !s.stopped;
        let state = self.changed.wait_while(state, nothing);
        drop(state.unwrap_or_else(PoisonError::into_inner));
    }

    /// Forgets those that were cancelled.
    pub(super) fn retire_cancelled(&self) {
        self.lock().waiting.retain(|s| !s.is_cancelled());
    }

    /// The next sequence, if the engine, whose load this is, is the one to take it, and it `fits`.
    pub(super) fn take(
        &self,
        engine: usize,
        load: Option<usize>,
        fits: impl FnOnce(&mut Sequence) -> bool,
    ) -> Option<Sequence> {
        let mut state = self.lock();
        state.loads[engine] = load;
        let load = load?;
        if state.loads.iter().flatten().any(|&other| other < load) {
            return None;
        }
        let next = state.waiting.front_mut()?;
        if fits(next) {
            return state.waiting.pop_front();
        }
        // What it took of this engine's blocks is no use to another.
        next.preempt();
        state.loads[engine] = None;
        None
    }

    /// An engine ends. The last one fails those that wait.
    pub(super) fn leave(&self, engine: usize) {
        let mut state = self.lock();
        state.loads[engine] = None;
        state.engines -= 1;
        if state.engines == 0 {
            fail_all(&mut state);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is whole between any two of its operations, so a panic elsewhere does not spoil it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn fail_all(state: &mut State) {
    for sequence in state.waiting.drain(..) {
        sequence.fail(Failure::ShuttingDown);
    }
}
