//! What engines and long computations run on: threads; or, in a simulation, the one thread of everything else, in a time
//! that the simulation makes.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::cpu::Limit;

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

    /// The same, for work that asks how long it may go on: a pass at a time, each within a [`Limit`] of its own. Dropped,
    /// the work ends at the next look at one, even if it has not begun.
    ///
    /// # Errors
    /// It panicked.
    pub async fn compute_within<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Passes) -> T + Send + 'static,
    ) -> Result<T, Panicked> {
        let abandoned = Abandon::default();
        let flag = abandoned.0.clone();
        match self {
            Self::Threads => self.compute(move || work(&Passes::Real(flag))).await,
            Self::OneThread(durations) => {
                let durations = durations.clone();
                let cost = durations.computation();
                tokio::time::sleep(cost).await;
                let done = catch_unwind(AssertUnwindSafe(|| work(&Passes::Simulated(cost))));
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
    pub async fn block<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) {
        if let Self::Threads = self {
            // What it panics of is in the log.
            let _ = tokio::task::spawn_blocking(work).await;
        }
    }
}

/// Where a computation gets the limits of its passes.
#[derive(Debug)]
pub enum Passes {
    /// On a thread, until the flag says that nobody waits.
    Real(Arc<AtomicBool>),
    /// All of it takes so long as the simulation says, and no clock is looked at.
    Simulated(Duration),
}

impl Passes {
    /// For the pass that begins now.
    pub fn limit(&self, time: Duration) -> Limit {
        match self {
            Self::Real(abandoned) => Limit::new(time, Some(abandoned.clone())),
            Self::Simulated(cost) => Limit::fixed(*cost),
        }
    }
}

/// Sets its flag when it is dropped.
#[derive(Default)]
struct Abandon(Arc<AtomicBool>);

impl Drop for Abandon {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
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
    async fn work_ends_when_nobody_waits_for_it() {
        let (begun, begins) = tokio::sync::oneshot::channel();
        let (ended, ends) = tokio::sync::oneshot::channel();
        let spin = move |passes: &Passes| {
            let limit = passes.limit(Duration::from_secs(3600));
            let _ = begun.send(());
            while !limit.is_over() {}
            let _ = ended.send(limit.is_abandoned());
        };
        let work = tokio::spawn(async { Machine::Threads.compute_within(spin).await });
        begins.await.expect("it begins");
        work.abort();
        assert_eq!(ends.await, Ok(true));
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
