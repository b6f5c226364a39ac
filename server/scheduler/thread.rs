//! An engine's thread. It waits for work, and for nothing else. In a simulation it is a task.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use code_explainer_engine::{Backend, BackendInfo, EngineError};
use code_explainer_host::machine::{Durations, Machine};
use tokio::sync::oneshot;
use tokio::time::sleep;

use crate::core::{Core, warm_up};
use crate::queue::{Incarnation, Queue, Wake};
use crate::{EngineGauges, EngineRules, Failure, Gauges, Loader, Observer};

/// An engine thread on its way.
pub struct Started {
    /// Gets the backend's description when it is ready to serve, or why it never will be.
    pub ready: oneshot::Receiver<Result<BackendInfo, EngineError>>,
    /// Ends when the scheduler is stopped. `None`: it is a task.
    pub thread: Option<JoinHandle<()>>,
    /// Closed when the thread ends, however it does.
    pub ended: oneshot::Receiver<()>,
}

/// What an engine's thread shares with the others.
#[derive(Clone)]
pub(super) struct Shared {
    pub(super) queue: Arc<Queue>,
    pub(super) gauges: Arc<Gauges>,
    pub(super) observer: Observer,
    pub(super) rules: EngineRules,
    pub(super) machine: Machine,
}

pub(super) fn spawn(incarnation: Incarnation, load: Arc<Loader>, shared: Shared) -> Started {
    let (tell, ready) = oneshot::channel();
    let (alive, ended) = oneshot::channel();
    let machine = shared.machine.clone();
    let begin = move || match load_and_try(&load) {
        Ok(backend) => {
            let info = backend.info().clone();
            let engine = Engine::new(incarnation, backend, shared);
            // A server that no longer waits has been stopped, which the queue says as well.
            let _ = tell.send(Ok(info));
            Some(engine)
        }
        Err(error) => {
            let _ = tell.send(Err(error));
            None
        }
    };
    let thread = match machine {
        Machine::Threads => {
            let body = move || {
                let _alive: oneshot::Sender<()> = alive;
                if let Some(engine) = begin() {
                    engine.serve();
                }
            };
            let thread = std::thread::Builder::new().name(format!("engine-{}", incarnation.engine));
            Some(thread.spawn(body).expect("the system can start a thread"))
        }
        Machine::OneThread(durations) => {
            tokio::spawn(async move {
                let _alive: oneshot::Sender<()> = alive;
                sleep(durations.load()).await;
                if let Some(engine) = begin() {
                    engine.serve_in_time(&*durations).await;
                }
            });
            None
        }
    };
    Started {
        ready,
        thread,
        ended,
    }
}

fn load_and_try(load: &Loader) -> Result<Box<dyn Backend>, EngineError> {
    let mut backend = load()?;
    let took = warm_up(&mut *backend)?;
    tracing::info!(
        milliseconds = took.as_millis() as u64,
        "a one-token forward pass has run"
    );
    Ok(backend)
}

/// An engine in one of its lives.
///
/// ## Idle => (Idle | Busy | ended), Busy => (Idle | Busy | ended)
/// Idle, it sleeps until there is a job, or somebody wants to see that it can still run one. Busy, it takes the jobs that
/// are there between two steps.
///
/// An engine that was given up finds that its life is over when it comes back from the step that it hung in. What it did
/// there goes nowhere: its clients have been told, and nobody reads its gauges.
struct Engine {
    incarnation: Incarnation,
    core: Core,
    gauges: Arc<EngineGauges>,
    shared: Shared,
}

impl Engine {
    fn new(incarnation: Incarnation, backend: Box<dyn Backend>, shared: Shared) -> Self {
        let gauges = shared.gauges.engine(incarnation.engine);
        Self {
            incarnation,
            core: Core::new(backend, shared.rules, gauges.clone()),
            gauges,
            shared,
        }
    }

    fn serve(mut self) {
        loop {
            if self.core.is_idle() && self.shared.queue.wait(self.incarnation) == Wake::Test {
                self.test();
            } else if !(self.take() && self.step(Instant::now(), Duration::ZERO)) {
                return;
            }
        }
    }

    /// The same, where a step takes the time that it is said to take.
    async fn serve_in_time(mut self, durations: &dyn Durations) {
        loop {
            if self.core.is_idle() && self.shared.queue.woken(self.incarnation).await == Wake::Test
            {
                spend_a_step(&self.gauges, durations).await;
                self.test();
                continue;
            }
            if !self.take() {
                return;
            }
            let began = Instant::now();
            spend_a_step(&self.gauges, durations).await;
            if !self.step(began, began.elapsed()) {
                return;
            }
        }
    }

    fn test(&mut self) {
        if let Err(error) = self.core.self_test() {
            tracing::error!(%error, engine = self.incarnation.engine, "a one-token forward pass failed");
        }
    }

    /// Takes the jobs that it is its turn to take. False if it is to end.
    fn take(&mut self) -> bool {
        let goes_on =
            (self.shared.queue).schedule(self.incarnation, &mut self.core, Instant::now());
        if !goes_on {
            self.core.fail_all(Failure::ShuttingDown);
        }
        goes_on
    }

    /// Runs a step, and tells of it. False if it is to end.
    fn step(&mut self, began: Instant, spent: Duration) -> bool {
        let report = self.core.tick(began, spent);
        if !(self.shared.queue).settle(self.incarnation, &mut self.core, Instant::now()) {
            tracing::warn!(
                engine = self.incarnation.engine,
                "an engine that was given up came back; it ends"
            );
            self.core.fail_all(Failure::Wedged);
            return false;
        }
        if let Some(report) = report {
            self.shared.gauges.stepped(&report);
            (self.shared.observer)(&report);
        }
        true
    }
}

/// Time goes on as it does while a backend works; who looks after the engine sees it in a step.
async fn spend_a_step(gauges: &EngineGauges, durations: &dyn Durations) {
    gauges.vitals.begin();
    sleep(durations.step()).await;
    // The step that follows says whether it went well.
    gauges.vitals.end(false);
}
