//! What engines and long computations run on: threads; or, in a simulation, the one thread of everything else, in a time
//! that the simulation makes.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

/// What engines and long computations run on. Clones are the same machine.
#[derive(Clone, Default)]
pub enum Machine {
    /// A thread for each engine, and tokio's pool for the rest.
    #[default]
    Threads,
    /// Tasks on the thread of the runtime, so that the order of all that happens follows from what the simulation draws.
    OneThread(Arc<dyn Durations>),
}

/// How long work takes on a machine that is simulated. While it takes that time, everything else goes on.
pub trait Durations: Send + Sync {
    /// For one prompt.
    fn computation(&self) -> Duration;

    /// For an engine to load its model.
    fn load(&self) -> Duration;

    /// For the next step of an engine. One that is longer than the supervisor waits hangs.
    fn step(&self) -> Duration;
}

/// A computation panicked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Panicked(String);

impl Machine {
    /// Does work that takes milliseconds, beside the threads that serve the network. Dropped, it is done all the same
    /// once it has begun.
    ///
    /// # Errors
    /// It panicked.
    pub async fn compute<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Panicked> {
        match self {
            Self::Threads => {
                let done = tokio::task::spawn_blocking(work).await;
                done.map_err(|panic| Panicked(panic.to_string()))
            }
            Self::OneThread(durations) => {
                tokio::time::sleep(durations.computation()).await;
                let done = catch_unwind(AssertUnwindSafe(work));
                done.map_err(|_| Panicked("a computation panicked".to_owned()))
            }
        }
    }

    /// Cores to share out.
    pub fn cores(&self) -> usize {
        match self {
            Self::Threads => std::thread::available_parallelism().map_or(1, usize::from),
            // The same wherever the simulation runs.
            Self::OneThread(_) => 2,
        }
    }

    /// Waits for something that holds up the thread that it runs on, and that a simulation has no need of.
    pub(crate) async fn block<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) {
        if let Self::Threads = self {
            // What it panics of is in the log.
            let _ = tokio::task::spawn_blocking(work).await;
        }
    }
}

impl fmt::Debug for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Threads => "Threads",
            Self::OneThread(_) => "OneThread",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixed;

    impl Durations for Fixed {
        fn computation(&self) -> Duration {
            Duration::from_millis(5)
        }

        fn load(&self) -> Duration {
            Duration::ZERO
        }

        fn step(&self) -> Duration {
            Duration::ZERO
        }
    }

    #[tokio::test]
    async fn work_is_done_and_its_panics_are_told() {
        for machine in [Machine::Threads, Machine::OneThread(Arc::new(Fixed))] {
            assert_eq!(machine.compute(|| 6 * 7).await, Ok(42), "{machine:?}");
            let panicked = machine.compute(|| panic!("asked for by the test")).await;
            assert!(panicked.is_err_and(|p: Panicked| p.to_string().contains("panic")));
        }
    }
}
