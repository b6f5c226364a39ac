//! The state of queue and engines, readable from anywhere.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use crate::StepReport;
use crate::blocks::BlockPool;
use crate::drain::DrainRate;
use crate::places::Places;
use crate::vitals::Vitals;

/// The state of queue and engines, readable from anywhere.
#[derive(Debug)]
pub struct Gauges {
    pub(super) places: Arc<Places>,
    /// Those of the engines that serve now: one that is started again has new ones.
    engines: RwLock<Vec<Arc<EngineGauges>>>,
    /// By engines that were started again since.
    evicted_before: AtomicUsize,
    drain: Mutex<DrainRate>,
}

/// The state of an engine.
#[derive(Debug, Default)]
pub struct EngineGauges {
    running: AtomicUsize,
    blocks_used: AtomicUsize,
    blocks_idle: AtomicUsize,
    blocks_total: AtomicUsize,
    blocks_evicted: AtomicUsize,
    pub(super) vitals: Vitals,
}

impl Gauges {
    /// Of a queue before this many engines.
    pub fn new(engines: usize) -> Self {
        Self {
            places: Arc::default(),
            engines: RwLock::new((0..engines).map(|_| Arc::default()).collect()),
            evicted_before: AtomicUsize::new(0),
            drain: Mutex::default(),
        }
    }

    /// One engine's.
    pub(super) fn engine(&self, engine: usize) -> Arc<EngineGauges> {
        self.read()[engine].clone()
    }

    /// The engine is started again: what the old one may still write is not looked at.
    pub(super) fn renew(&self, engine: usize) {
        let mut engines = self.engines.write().unwrap_or_else(PoisonError::into_inner);
        let evicted = engines[engine].blocks_evicted.load(Ordering::Relaxed);
        self.evicted_before.fetch_add(evicted, Ordering::Relaxed);
        engines[engine] = Arc::default();
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Vec<Arc<EngineGauges>>> {
        self.engines.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Engines that work off the queue.
    pub fn engines(&self) -> usize {
        self.read().len()
    }

    /// Items that wait to be worked on.
    pub fn queued(&self) -> usize {
        self.places.taken()
    }

    /// Sequences being worked on.
    pub fn running(&self) -> usize {
        self.sum(|engine| &engine.running)
    }

    /// KV blocks in use.
    pub fn blocks_used(&self) -> usize {
        self.sum(|engine| &engine.blocks_used)
    }

    /// KV blocks that nobody uses and that hold the beginnings of prompts, for those to come.
    pub fn blocks_idle(&self) -> usize {
        self.sum(|engine| &engine.blocks_idle)
    }

    /// All KV blocks.
    pub fn blocks_total(&self) -> usize {
        self.sum(|engine| &engine.blocks_total)
    }

    /// KV blocks that were kept for prompts to come, and whose room was needed, since the server started.
    pub fn blocks_evicted(&self) -> usize {
        self.evicted_before.load(Ordering::Relaxed) + self.sum(|engine| &engine.blocks_evicted)
    }

    fn sum(&self, gauge: impl Fn(&EngineGauges) -> &AtomicUsize) -> usize {
        let load = |engine: &Arc<EngineGauges>| gauge(engine).load(Ordering::Relaxed);
        self.read().iter().map(load).sum()
    }

    /// An engine has run a step.
    pub(super) fn stepped(&self, report: &StepReport) {
        let mut drain = self.drain.lock().unwrap_or_else(PoisonError::into_inner);
        drain.observe(report.duration, report.ended);
    }

    /// When a quarter of the queue will have drained, by the rate at which items leave.
    pub(super) fn retry_delay(&self) -> Duration {
        let drain = *self.drain.lock().unwrap_or_else(PoisonError::into_inner);
        drain.retry_delay(self.queued(), self.engines())
    }
}

impl EngineGauges {
    /// The engine thread's view.
    pub(super) fn publish(&self, running: usize, pool: &BlockPool) {
        self.running.store(running, Ordering::Relaxed);
        self.blocks_used.store(pool.used(), Ordering::Relaxed);
        self.blocks_idle.store(pool.idle(), Ordering::Relaxed);
        self.blocks_total.store(pool.total(), Ordering::Relaxed);
        self.blocks_evicted.store(pool.evicted(), Ordering::Relaxed);
    }
}
