//! An engine's thread. It waits for work, and for nothing else.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use tokio::sync::oneshot;

use crate::engine::{Backend, BackendInfo, EngineError};
use crate::scheduler::core::{Core, warm_up};
use crate::scheduler::queue::{Queue, Seat, Wake};
use crate::scheduler::{EngineRules, Failure, Gauges, Loader, Observer};

/// An engine thread on its way.
pub struct Started {
    /// Gets the backend's description when it is ready to serve, or why it never will be.
    pub ready: oneshot::Receiver<Result<BackendInfo, EngineError>>,
    /// Ends when the scheduler is stopped.
    pub thread: JoinHandle<()>,
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
}

pub(super) fn spawn(seat: Seat, load: Arc<Loader>, shared: Shared) -> Started {
    let (tell, ready) = oneshot::channel();
    let (alive, ended) = oneshot::channel();
    let body = move || {
        let _alive: oneshot::Sender<()> = alive;
        match load_and_try(&load) {
            Ok(backend) => {
                let info = backend.info().clone();
                let gauges = shared.gauges.engine(seat.engine);
                let mut core = Core::new(backend, shared.rules, gauges);
                // A server that no longer waits has been stopped, which the queue says as well.
                let _ = tell.send(Ok(info));
                serve(seat, &mut core, &shared);
            }
            Err(error) => {
                let _ = tell.send(Err(error));
            }
        }
    };
    let thread = std::thread::Builder::new()
        .name(format!("engine-{}", seat.engine))
        .spawn(body);
    Started {
        ready,
        thread: thread.expect("the system can start a thread"),
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

/// ## Idle => (Idle | Busy | ended), Busy => (Idle | Busy | ended)
/// Idle, it sleeps until there is a job, or somebody wants to see that it can still run one. Busy, it takes the jobs that
/// are there between two steps.
///
/// An engine that was given up finds that its life is over when it comes back from the step that it hung in. What it did
/// there goes nowhere: its clients have been told, and nobody reads its gauges.
fn serve(seat: Seat, core: &mut Core, shared: &Shared) {
    let queue = &shared.queue;
    loop {
        if core.is_idle() && queue.wait(seat) == Wake::Test {
            if let Err(error) = core.self_test() {
                tracing::error!(%error, engine = seat.engine, "a one-token forward pass failed");
            }
            continue;
        }
        if !queue.schedule(seat, core, Instant::now()) {
            return core.fail_all(Failure::ShuttingDown);
        }
        let report = core.tick(Instant::now());
        if !queue.settle(seat, core, Instant::now()) {
            tracing::warn!(
                engine = seat.engine,
                "an engine that was given up came back; it ends"
            );
            return core.fail_all(Failure::Wedged);
        }
        if let Some(report) = report {
            shared.gauges.stepped(&report);
            (shared.observer)(&report);
        }
    }
}
