//! The state of queue and engines, readable from anywhere.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// The state of queue and engines, readable from anywhere.
#[derive(Debug)]
pub struct Gauges {
    /// Places that are taken: items whose prompt is being made, and jobs that wait for an engine.
    queued: AtomicUsize,
    engines: Vec<Arc<EngineGauges>>,
    /// Moving average of the time between two items leaving the engines, in microseconds.
    item_interval_us: AtomicU64,
    /// When the last item left, in microseconds since `began`.
    last_left_us: AtomicU64,
    began: Instant,
}

/// The state of an engine.
#[derive(Debug, Default)]
pub struct EngineGauges {
    running: AtomicUsize,
    blocks_used: AtomicUsize,
    blocks_idle: AtomicUsize,
    blocks_total: AtomicUsize,
}

/// A place in the queue; dropping it gives it back.
#[derive(Debug)]
pub struct Place {
    gauges: Arc<Gauges>,
    /// Items that were before it.
    pub(super) position: usize,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.gauges.queued.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Gauges {
    /// Of a queue before this many engines.
    pub fn new(engines: usize) -> Self {
        Self {
            queued: AtomicUsize::new(0),
            engines: (0..engines).map(|_| Arc::default()).collect(),
            item_interval_us: AtomicU64::new(0),
            last_left_us: AtomicU64::new(0),
            began: Instant::now(),
        }
    }

    /// One engine's.
    pub(super) fn engine(&self, engine: usize) -> Arc<EngineGauges> {
        self.engines[engine].clone()
    }

    /// Engines that work off the queue.
    pub fn engines(&self) -> usize {
        self.engines.len()
    }

    /// Items that wait to be worked on.
    pub fn queued(&self) -> usize {
        self.queued.load(Ordering::Relaxed)
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

    fn sum(&self, gauge: impl Fn(&EngineGauges) -> &AtomicUsize) -> usize {
        let load = |engine: &Arc<EngineGauges>| gauge(engine).load(Ordering::Relaxed);
        self.engines.iter().map(load).sum()
    }

    /// Takes a place, unless `limit` are taken.
    pub(super) fn enter(gauges: &Arc<Self>, limit: usize) -> Option<Place> {
        let one_more = |n| (n < limit).then_some(n + 1);
        let position = (gauges.queued)
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, one_more)
            .ok()?;
        Some(Place {
            gauges: gauges.clone(),
            position,
        })
    }

    /// Items have left an engine.
    pub(super) fn left(&self, items: usize, now: Instant) {
        let Ok(items @ 1..) = u64::try_from(items) else {
            return;
        };
        let now = (now - self.began).as_micros() as u64;
        let before = self.last_left_us.swap(now, Ordering::Relaxed);
        let sample = now.saturating_sub(before) / items;
        let old = self.item_interval_us.load(Ordering::Relaxed);
        let new = if old == 0 {
            sample
        } else {
            (old * 7 + sample) / 8
        };
        self.item_interval_us.store(new, Ordering::Relaxed);
    }

    /// When a quarter of the queue will have drained, by the rate at which items leave.
    pub(super) fn retry_delay(&self) -> Duration {
        const UNKNOWN: Duration = Duration::from_secs(1);
        const BOUNDS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(30));
        let interval = Duration::from_micros(self.item_interval_us.load(Ordering::Relaxed));
        let quarter = u32::try_from(self.queued() / 4 + 1).unwrap_or(u32::MAX);
        if interval.is_zero() {
            return UNKNOWN;
        }
        interval.saturating_mul(quarter).clamp(BOUNDS.0, BOUNDS.1)
    }
}

impl EngineGauges {
    /// The engine thread's view.
    pub(super) fn publish(&self, running: usize, used: usize, idle: usize, total: usize) {
        self.running.store(running, Ordering::Relaxed);
        self.blocks_used.store(used, Ordering::Relaxed);
        self.blocks_idle.store(idle, Ordering::Relaxed);
        self.blocks_total.store(total, Ordering::Relaxed);
    }
}
