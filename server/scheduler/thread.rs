//! The engine thread. It waits for work, and for nothing else.

use std::sync::mpsc::{Receiver, TryRecvError};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Instant;

use tokio::sync::oneshot;

use crate::engine::{Backend, BackendInfo, EngineError};
use crate::scheduler::core::{Core, warm_up};
use crate::scheduler::policy::StepLimits;
use crate::scheduler::sequence::Failure;
use crate::scheduler::{Command, Gauges, Observer};

/// An engine thread on its way.
pub struct Started {
    /// Gets the backend's description when it is ready to serve, or why it never will be.
    pub ready: oneshot::Receiver<Result<BackendInfo, EngineError>>,
    /// Ends when the scheduler is stopped or dropped.
    pub thread: JoinHandle<()>,
    /// Closed when the thread ends, however it does.
    pub ended: oneshot::Receiver<()>,
}

pub(super) fn spawn(
    load: impl FnOnce() -> Result<Box<dyn Backend>, EngineError> + Send + 'static,
    limits: StepLimits,
    commands: mpsc::Receiver<Command>,
    gauges: Arc<Gauges>,
    observer: Observer,
) -> Started {
    let (tell, ready) = oneshot::channel();
    let (alive, ended) = oneshot::channel();
    let body = move || {
        let _alive: oneshot::Sender<()> = alive;
        match load_and_try(load) {
            Ok(backend) => {
                let info = backend.info().clone();
                let mut core = Core::new(backend, limits, gauges.clone());
                // A server that no longer waits has been stopped, which the commands say as well.
                let _ = tell.send(Ok(info));
                serve(&mut core, &commands, &gauges, observer);
            }
            Err(error) => {
                let _ = tell.send(Err(error));
            }
        }
    };
    let thread = std::thread::Builder::new()
        .name("engine".into())
        .spawn(body);
    Started {
        ready,
        thread: thread.expect("the system can start a thread"),
        ended,
    }
}

fn load_and_try(
    load: impl FnOnce() -> Result<Box<dyn Backend>, EngineError>,
) -> Result<Box<dyn Backend>, EngineError> {
    let mut backend = load()?;
    let took = warm_up(&mut *backend)?;
    tracing::info!(
        milliseconds = took.as_millis() as u64,
        "a one-token forward pass has run"
    );
    Ok(backend)
}

/// ## Idle => (Idle | Busy | ended)
/// Idle, it sleeps until a command comes. Busy, it takes the commands that are there between two steps.
fn serve(core: &mut Core, commands: &Receiver<Command>, gauges: &Gauges, mut observer: Observer) {
    let mut last_end = Instant::now();
    loop {
        let command = if core.is_idle() {
            commands.recv().map_err(|_| TryRecvError::Disconnected)
        } else {
            commands.try_recv()
        };
        match command {
            Ok(Command::Run(sequence)) => {
                gauges.arrived();
                core.submit(sequence);
                continue;
            }
            Ok(Command::Stop) | Err(TryRecvError::Disconnected) => {
                return core.fail_all(Failure::ShuttingDown);
            }
            Err(TryRecvError::Empty) => {}
        }
        if let Some(report) = core.tick(Instant::now()) {
            if let Ok(ended @ 1..) = u32::try_from(report.ended) {
                gauges.left(ended, last_end.elapsed());
                last_end = Instant::now();
            }
            observer(&report);
        }
    }
}
