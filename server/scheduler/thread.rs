//! An engine's thread. It waits for work, and for nothing else.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use tokio::sync::oneshot;

use crate::engine::{Backend, BackendInfo, EngineError};
use crate::scheduler::core::{Core, warm_up};
use crate::scheduler::queue::Queue;
use crate::scheduler::sequence::Failure;
use crate::scheduler::{Gauges, Loader, Observer, SchedulerOptions};

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
    pub(super) options: SchedulerOptions,
}

pub(super) fn spawn(engine: usize, load: Loader, shared: Shared) -> Started {
    let (tell, ready) = oneshot::channel();
    let (alive, ended) = oneshot::channel();
    let body = move || {
        let _alive: oneshot::Sender<()> = alive;
        let _leaves = Leaves(engine, shared.queue.clone());
        match load_and_try(load) {
            Ok(backend) => {
                let info = backend.info().clone();
                let gauges = shared.gauges.engine(engine);
                let mut core = Core::new(backend, shared.options, gauges);
                // A server that no longer waits has been stopped, which the queue says as well.
                let _ = tell.send(Ok(info));
                serve(engine, &mut core, &shared);
            }
            Err(error) => {
                let _ = tell.send(Err(error));
            }
        }
    };
    let thread = std::thread::Builder::new()
        .name(format!("engine-{engine}"))
        .spawn(body);
    Started {
        ready,
        thread: thread.expect("the system can start a thread"),
        ended,
    }
}

/// Leaves the queue however the thread ends.
struct Leaves(usize, Arc<Queue>);

impl Drop for Leaves {
    fn drop(&mut self) {
        self.1.leave(self.0);
    }
}

fn load_and_try(load: Loader) -> Result<Box<dyn Backend>, EngineError> {
    let mut backend = load()?;
    let took = warm_up(&mut *backend)?;
    tracing::info!(
        milliseconds = took.as_millis() as u64,
        "a one-token forward pass has run"
    );
    Ok(backend)
}

/// ## Idle => (Idle | Busy | ended), Busy => (Idle | Busy | ended)
/// Idle, it sleeps until there is a job. Busy, it takes the jobs that are there between two steps.
fn serve(engine: usize, core: &mut Core, shared: &Shared) {
    let queue = &shared.queue;
    loop {
        if core.is_idle() {
            queue.wait(engine);
        }
        if queue.is_stopped() {
            return core.fail_all(Failure::ShuttingDown);
        }
        queue.retire_cancelled();
        while let Some(sequence) = queue.take(engine, core.load(), |s| core.fits(s)) {
            core.admit(sequence);
        }
        if let Some(report) = core.tick(Instant::now()) {
            shared.gauges.left(report.ended, Instant::now());
            (shared.observer)(&report);
        }
    }
}
