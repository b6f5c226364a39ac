//! The cores that an engine's threads run on.

use std::io;

use code_explainer_engine::CpuShare;

/// An engine's cores: all that there are, or a share of them that it stays on.
#[derive(Debug, Clone)]
pub struct Cores {
    count: usize,
    #[cfg(target_os = "linux")]
    pinned: Option<rustix::thread::CpuSet>,
}

impl Cores {
    /// The share's part of the cores that the calling thread may use. Only Linux can hold threads to cores; elsewhere a
    /// part is only a number of them.
    ///
    /// # Errors
    /// The system's, when it does not say which cores there are; `InvalidInput` when the share gets none of them.
    pub fn of(share: CpuShare) -> io::Result<Self> {
        // Fewer than the cores where a container has a quota.
        let usable = std::thread::available_parallelism().map_or(1, usize::from);
        if share.parts == 1 {
            return Ok(Self {
                count: usable,
                #[cfg(target_os = "linux")]
                pinned: None,
            });
        }
        Self::part(share, usable.div_ceil(share.parts))
    }

    #[cfg(target_os = "linux")]
    fn part(share: CpuShare, most: usize) -> io::Result<Self> {
        use rustix::thread::{CpuSet, sched_getaffinity};

        let all = sched_getaffinity(None)?;
        let cores: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|&c| all.is_set(c)).collect();
        let cores = share.of(&cores);
        if cores.is_empty() {
            let reason = format!("no core for part {} of {}", share.index, share.parts);
            return Err(io::Error::new(io::ErrorKind::InvalidInput, reason));
        }
        tracing::debug!(?cores, part = share.index, "the engine's cores");
        let mut pinned = CpuSet::new();
        cores.iter().for_each(|&core| pinned.set(core));
        Ok(Self {
            count: cores.len().min(most),
            pinned: Some(pinned),
        })
    }

    #[cfg(not(target_os = "linux"))]
    fn part(share: CpuShare, most: usize) -> io::Result<Self> {
        tracing::warn!(
            part = share.index,
            "threads cannot be held to cores on this system: the engines share all of them"
        );
        Ok(Self { count: most })
    }

    /// How many threads they can run at once.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Whether they are a part of the machine's that threads are held to.
    pub fn is_part(&self) -> bool {
        #[cfg(target_os = "linux")]
        return self.pinned.is_some();
        #[cfg(not(target_os = "linux"))]
        return false;
    }

    /// Holds the calling thread, and those that it starts from now on, to these cores.
    ///
    /// # Errors
    /// The system's.
    pub fn pin(&self) -> io::Result<()> {
        #[cfg(target_os = "linux")]
        if let Some(cores) = &self.pinned {
            rustix::thread::sched_setaffinity(None, cores)?;
        }
        Ok(())
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Mutex;

    use rustix::thread::{CpuSet, sched_getaffinity};

    use super::*;
    use crate::pool::Pool;

    fn allowed() -> BTreeSet<usize> {
        let set = sched_getaffinity(None).expect("the cores");
        (0..CpuSet::MAX_CPU).filter(|&c| set.is_set(c)).collect()
    }

    #[test]
    fn a_pool_on_a_share_runs_on_its_cores() {
        let all = allowed();
        let parts = all.len().min(3);
        let mut dealt = BTreeSet::new();
        for index in 0..parts {
            // On a thread of its own: the one that starts the pool is pinned too.
            let seen = std::thread::spawn(move || {
                let cores = Cores::of(CpuShare { index, parts }).expect("a core");
                let pool = Pool::on(&cores, 3).expect("threads");
                let seen = Mutex::new(vec![None; pool.threads()]);
                let met = std::sync::Barrier::new(pool.threads());
                pool.run(pool.threads(), &|_, worker| {
                    // Nobody goes on before all workers have a task.
                    met.wait();
                    seen.lock().expect("not poisoned")[worker] = Some(allowed());
                });
                seen.into_inner().expect("not poisoned")
            });
            let seen = seen.join().expect("no panic");
            let first = seen[0].clone().expect("the caller worked");
            assert!(seen.iter().all(|cores| cores.as_ref() == Some(&first)));
            if parts > 1 {
                assert!(first.iter().all(|&core| dealt.insert(core)), "shared cores");
            }
        }
        assert_eq!(allowed(), all, "another thread is pinned");
        if parts > 1 {
            assert_eq!(dealt, all);
        }
    }

    #[test]
    fn the_whole_machine_pins_nothing() {
        let before = allowed();
        let cores = Cores::of(CpuShare::WHOLE).expect("cores");
        cores.pin().expect("nothing to do");
        assert!(!cores.is_part());
        assert_eq!(allowed(), before);
    }

    #[test]
    fn a_share_without_a_core_is_an_error() {
        let share = CpuShare {
            index: 0,
            parts: 1 << 20,
        };
        let error = Cores::of(share).expect_err("no core").to_string();
        assert!(error.contains("no core for part 0 of"), "{error}");
    }
}
