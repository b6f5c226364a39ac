//! Looks after the engines: finds one that hangs or has ended, starts it again, and says whether there is one that works.
//!
//! ## Engine: Well => (Well | Stale), Stale => (Well | Stale), any => Starting => (Well | Starting | the end)
//! Stale is one that has not run a step for long, a short one of its own included: the server is not ready then. One that
//! does not come back from a step in [`SupervisorOptions::step_timeout`] is given up, as is one whose thread has ended: its
//! items fail as retryable, and a new thread loads the model again. The old one is left behind; it ends if it ever comes
//! back. What it holds of memory is lost until then.
//!
//! Restarts are bounded: who needs more than [`SupervisorOptions::restarts`] in [`RESTARTS_WITHIN`] gets no better by one
//! more, so the server ends, for others to see to.

use std::collections::VecDeque;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use code_explainer_engine::{BackendInfo, EngineError};
use tokio::sync::oneshot::error::TryRecvError;
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::queue::Incarnation;
use crate::thread::{self, Shared};
use crate::vitals::Watch;
use crate::{Failure, Loader, Started, Starting, Unattended};

/// Items that wait are told their position at most once in this time.
pub const POSITION_INTERVAL: Duration = Duration::from_millis(250);

/// Restarts are counted over this time.
pub const RESTARTS_WITHIN: Duration = Duration::from_secs(600);

/// How engines are looked after.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SupervisorOptions {
    /// A step that takes longer hangs.
    pub step_timeout: Duration,
    /// A server is ready if a step went well within this time.
    pub ready_max_age: Duration,
    /// Restarts of an engine in [`RESTARTS_WITHIN`] at most.
    pub restarts: usize,
}

/// Why an engine was started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RestartCause {
    /// It did not come back from a step.
    Wedged,
    /// Its thread ended.
    Ended,
    /// It could not be loaded again.
    NotLoaded,
}

impl RestartCause {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Wedged, Self::Ended, Self::NotLoaded];

    /// Its name in metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Wedged => "wedged",
            Self::Ended => "ended",
            Self::NotLoaded => "not_loaded",
        }
    }
}

/// Too many restarts.
#[derive(Debug, thiserror::Error)]
#[error("engine {engine} was started again {restarts} times and still does not work")]
pub struct GaveUp {
    engine: usize,
    restarts: usize,
}

/// Told of every restart: must not block.
pub type RestartObserver = Arc<dyn Fn(RestartCause) + Send + Sync>;

/// Looks after the engines of a scheduler.
pub struct Supervisor {
    shared: Shared,
    options: SupervisorOptions,
    engines: Vec<Engine>,
    observer: RestartObserver,
    working: watch::Sender<bool>,
    /// Engines do not outlive who looks after them, however that ends.
    _unattended: Unattended,
}

struct Engine {
    load: Arc<Loader>,
    /// `None` once it has been taken to be joined, or if it is a task.
    thread: Option<JoinHandle<()>>,
    ended: oneshot::Receiver<()>,
    /// Of one that is being started.
    starting: Option<oneshot::Receiver<Result<BackendInfo, EngineError>>>,
    watch: Watch,
    restarts: VecDeque<Instant>,
}

impl Supervisor {
    /// Of engines that are ready.
    pub(super) fn new(started: Starting, observer: RestartObserver, now: Instant) -> Self {
        let engine = |(load, started): (Arc<Loader>, Started)| Engine {
            load,
            thread: started.thread,
            ended: started.ended,
            starting: None,
            watch: Watch::new(now),
            restarts: VecDeque::new(),
        };
        Self {
            shared: started.shared,
            options: started.options,
            engines: started.engines.into_iter().map(engine).collect(),
            observer,
            working: watch::channel(true).0,
            _unattended: started.unattended,
        }
    }

    /// Whether there is an engine that works: one that has run a step lately and is not being started again.
    pub fn working(&self) -> watch::Receiver<bool> {
        self.working.subscribe()
    }

    /// Looks after them until `stop`. Gives the threads that are to end with the scheduler.
    ///
    /// # Errors
    /// An engine does not come back.
    pub async fn run(mut self, stop: CancellationToken) -> Result<Vec<JoinHandle<()>>, GaveUp> {
        // Often enough to find within a quarter of the time more that something takes too long.
        let interval = POSITION_INTERVAL
            .min(self.options.step_timeout / 4)
            .min(self.options.ready_max_age / 4)
            .max(Duration::from_millis(1));
        let mut ticks = tokio::time::interval(interval);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut told_at = None;
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            let now = tokio::time::Instant::now().into_std();
            if told_at.is_none_or(|at| now.saturating_duration_since(at) >= POSITION_INTERVAL) {
                told_at = Some(now);
                self.shared.queue.tell_positions();
            }
            if self.shared.queue.is_stopped() {
                continue;
            }
            for engine in 0..self.engines.len() {
                self.look_after(engine, now)?;
            }
            let fresh =
                |e: &Engine| e.starting.is_none() && e.watch.age(now) <= self.options.ready_max_age;
            let working = self.engines.iter().any(fresh);
            self.working.send_if_modified(|told| {
                let changed = *told != working;
                if changed && working {
                    tracing::info!("an engine works again");
                } else if changed {
                    tracing::error!("no engine has run a step lately");
                }
                *told = working;
                changed
            });
        }
        Ok(self
            .engines
            .iter_mut()
            .filter_map(|e| e.thread.take())
            .collect())
    }

    fn look_after(&mut self, index: usize, now: Instant) -> Result<(), GaveUp> {
        let pulse = self.shared.gauges.engine(index).vitals.pulse();
        let engine = &mut self.engines[index];
        if let Some(starting) = &mut engine.starting {
            match starting.try_recv() {
                Err(TryRecvError::Empty) => return Ok(()),
                Ok(Ok(info)) => {
                    tracing::info!(engine = index, model = info.model, "the engine is back");
                    engine.starting = None;
                    engine.watch = Watch::new(now);
                    return Ok(());
                }
                Ok(Err(error)) => {
                    tracing::error!(%error, engine = index, "the engine could not be loaded again");
                    return self.restart(index, RestartCause::NotLoaded, now);
                }
                Err(TryRecvError::Closed) => {
                    return self.restart(index, RestartCause::NotLoaded, now);
                }
            }
        }
        engine.watch.look(pulse, now);
        let hangs = |age: Duration| age > self.options.step_timeout;
        if engine.watch.step_age(now).is_some_and(hangs) {
            return self.restart(index, RestartCause::Wedged, now);
        }
        if !matches!(engine.ended.try_recv(), Err(TryRecvError::Empty)) {
            return self.restart(index, RestartCause::Ended, now);
        }
        if engine.watch.step_age(now).is_none()
            && engine.watch.age(now) > self.options.ready_max_age / 2
        {
            self.shared.queue.ask_for_test(index);
        }
        Ok(())
    }

    fn restart(&mut self, index: usize, cause: RestartCause, now: Instant) -> Result<(), GaveUp> {
        let engine = &mut self.engines[index];
        while (engine.restarts.front())
            .is_some_and(|at| now.saturating_duration_since(*at) > RESTARTS_WITHIN)
        {
            engine.restarts.pop_front();
        }
        tracing::error!(
            engine = index,
            cause = cause.as_str(),
            "an engine does not work; starting it again"
        );
        let Incarnation { engine: _, life } = self.shared.queue.give_up(index, Failure::Wedged);
        if engine.restarts.len() >= self.options.restarts {
            return Err(GaveUp {
                engine: index,
                restarts: self.options.restarts,
            });
        }
        engine.restarts.push_back(now);
        (self.observer)(cause);
        self.shared.gauges.renew(index);
        let incarnation = Incarnation {
            engine: index,
            life,
        };
        let started = thread::spawn(incarnation, engine.load.clone(), self.shared.clone());
        // The old thread is left behind: it may never end.
        engine.thread = started.thread;
        engine.ended = started.ended;
        engine.starting = Some(started.ready);
        Ok(())
    }
}
