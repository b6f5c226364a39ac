//! The threads that share a step's operators.
//!
//! A decode step forks and joins some 150 times in a few milliseconds, so a join must cost well under a microsecond:
//! helpers spin for a short while between operators and go to sleep when none comes. The calling thread works too and
//! never waits for a helper that has not started: what a late one would have done is done by then.
//!
//! A line of memory takes hundreds of nanoseconds from one core to another where they are far apart. So each worker has
//! a range of the tasks of its own, the same part of every job, and takes from another's only when its own is done.

use std::cell::{Cell, UnsafeCell};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle, Thread};
use std::time::{Duration, Instant};

use code_explainer_engine::CpuShare;

use super::cores::Cores;

/// How long a helper spins for the next job before it sleeps. The scheduler's work between two steps fits in.
const SPIN: Duration = Duration::from_micros(80);

/// Threads for fork and join. Owned and driven by one thread at a time.
pub struct Pool {
    shared: Arc<Shared>,
    helpers: Vec<JoinHandle<()>>,
    /// Tasks of all jobs so far that the helpers did. Not Sync: a second caller, or a task that forks again, would overwrite
    /// the job in progress.
    done: Cell<u64>,
}

/// What a job calls: `(task, worker)`.
type Task<'a> = dyn Fn(usize, usize) + Sync + 'a;

/// Keeps what one thread writes off the lines that another reads; two lines, because they are fetched in pairs.
#[repr(align(128))]
struct Apart<T>(T);

struct Shared {
    workers: Box<[Worker]>,
    panicked: AtomicBool,
    shutdown: AtomicBool,
}

struct Worker {
    share: Apart<Share>,
    /// Tasks that it has done so far, in all jobs; only a helper's is used.
    done: Apart<AtomicU64>,
    sleeping: AtomicBool,
}

/// A worker's part of a job. What it is to do lies beside its range, so that it gets both at once.
struct Share {
    left: Range,
    job: UnsafeCell<*const Task<'static>>,
}

/// A range of tasks: the first in the low half, the end in the high half. Its worker takes from the front, the others
/// from the back.
struct Range(AtomicU64);

impl Range {
    fn set(&self, from: usize, to: usize) {
        self.0
            .store(from as u64 | (to as u64) << 32, Ordering::Release);
    }

    fn bounds(word: u64) -> (u64, u64) {
        (word & 0xffff_ffff, word >> 32)
    }

    /// Whoever takes a task may follow the job's pointer until it has counted the task as done.
    fn take(&self, from_front: bool) -> Option<usize> {
        let next = |word| {
            let (from, to) = Self::bounds(word);
            (from < to).then(|| {
                if from_front {
                    word + 1
                } else {
                    word - (1 << 32)
                }
            })
        };
        let (success, failure) = (Ordering::Acquire, Ordering::Relaxed);
        let word = self.0.fetch_update(success, failure, next).ok()?;
        let (from, to) = Self::bounds(word);
        Some(if from_front { from } else { to - 1 } as usize)
    }

    fn is_empty(&self) -> bool {
        let (from, to) = Self::bounds(self.0.load(Ordering::Acquire));
        from >= to
    }

    /// Nobody starts what is left; says how much that is.
    fn clear(&self) -> u64 {
        let (from, to) = Self::bounds(self.0.swap(0, Ordering::Acquire));
        to.saturating_sub(from)
    }
}

// SAFETY: a share's job is written by the caller only while its range is empty and all tasks that were taken are done, and
// read only between taking a task of that range and counting it as done; the atomics of ranges and counters order the two.
// The task it points to is Sync.
unsafe impl Sync for Shared {}
// SAFETY: as above; the pointer is only followed while the caller's closure is borrowed.
unsafe impl Send for Shared {}

impl Pool {
    /// A pool of `threads` threads on all cores, the caller's among them; 0: one for each core.
    ///
    /// # Errors
    /// See [`on`](Self::on).
    pub fn new(threads: usize) -> std::io::Result<Self> {
        Self::on(&Cores::of(CpuShare::WHOLE)?, threads)
    }

    /// As [`new`](Self::new), on these cores: if they are a part, the calling thread is held to them as well.
    ///
    /// # Errors
    /// The system's, when a thread cannot be started or pinned.
    pub fn on(cores: &Cores, threads: usize) -> std::io::Result<Self> {
        let threads = match threads {
            0 => cores.count(),
            n => n,
        };
        // The helpers inherit it.
        cores.pin()?;
        let worker = |_| Worker {
            share: Apart(Share {
                left: Range(AtomicU64::new(0)),
                job: UnsafeCell::new(&|_: usize, _: usize| {}),
            }),
            done: Apart(AtomicU64::new(0)),
            sleeping: AtomicBool::new(false),
        };
        let shared = Arc::new(Shared {
            workers: (0..threads).map(worker).collect(),
            panicked: AtomicBool::new(false),
            shutdown: AtomicBool::new(false),
        });
        let mut pool = Self {
            shared,
            helpers: Vec::new(),
            done: Cell::new(0),
        };
        for helper in 1..threads {
            let shared = Arc::clone(&pool.shared);
            let thread = thread::Builder::new()
                .name(format!("engine-{helper}"))
                .spawn(move || shared.help(helper))?;
            pool.helpers.push(thread);
        }
        Ok(pool)
    }

    /// How many threads work on a job; workers are numbered from 0 (the caller) to below this.
    pub fn threads(&self) -> usize {
        self.helpers.len() + 1
    }

    /// Calls `task(i, worker)` once for each `i` below `tasks`, on any of the threads, and returns when all are done. No two
    /// calls that overlap in time have the same `worker`. Each worker begins with its own part of the tasks, from the first
    /// to the last: neighbours mostly run on the same thread, one after the other, and so do the same parts of several jobs
    /// of the same size.
    ///
    /// # Panics
    /// When a task does, after all threads have left the job; with 2^32 tasks or more.
    pub fn run(&self, tasks: usize, task: &Task<'_>) {
        if tasks <= 1 || self.helpers.is_empty() {
            return (0..tasks).for_each(|i| task(i, 0));
        }
        assert!(u32::try_from(tasks).is_ok());
        let shared = &*self.shared;
        let erased: *const Task<'_> = task;
        // SAFETY: only the lifetime changes. Helpers follow the pointer while they have a task that is not done, and this
        // function waits for all tasks that were taken before it returns or unwinds.
        let task_pointer =
            unsafe { std::mem::transmute::<*const Task<'_>, *const Task<'static>>(erased) };
        let threads = self.threads();
        let bound = |worker: usize| (tasks * worker).div_ceil(threads);
        for (number, worker) in shared.workers.iter().enumerate().rev() {
            let share = &worker.share.0;
            // SAFETY: all ranges are empty and nobody has a task (the previous `run` waited for that; `self` is not Sync), but
            // for the workers before this one, who do not look here before this range is set.
            unsafe { *share.job.get() = task_pointer };
            share.left.set(bound(number), bound(number + 1));
        }
        // Without a fence a helper that is just falling asleep may be missed. Then the others do its share, and it wakes
        // with the next job; a fence would wait, with every job, for the shares to reach the other cores.
        for (worker, helper) in shared.workers[1..].iter().zip(&self.helpers) {
            if worker.sleeping.load(Ordering::Relaxed) {
                wake(helper.thread());
            }
        }
        let mut mine = 0;
        let result = catch_unwind(AssertUnwindSafe(|| shared.work(0, &mut mine)));
        let mut theirs = tasks as u64 - mine;
        if result.is_err() {
            // The task that panicked is not in `mine`; it and what nobody has begun are not waited for.
            theirs -= 1 + shared.clear();
        }
        let expected = self.done.get() + theirs;
        let mut spins = 0u32;
        while shared.done_by_helpers() != expected {
            spins = spins.wrapping_add(1);
            // A helper that lost its core can only finish if someone gives it one.
            if spins.is_multiple_of(1 << 14) {
                thread::yield_now()
            } else {
                std::hint::spin_loop()
            }
        }
        self.done.set(expected);
        let helper_panicked = shared.panicked.swap(false, Ordering::Relaxed);
        if let Err(panic) = result {
            resume_unwind(panic);
        }
        assert!(!helper_panicked, "a task of the engine's pool panicked");
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.shutdown.store(true, Ordering::SeqCst);
        for helper in self.helpers.drain(..) {
            wake(helper.thread());
            // A helper catches its tasks' panics, so there is nothing to learn from the result.
            let _ = helper.join();
        }
    }
}

fn wake(thread: &Thread) {
    thread.unpark();
}

impl Shared {
    /// Does tasks until none is left, first the worker's own, and counts those that are done.
    fn work(&self, worker: usize, done: &mut u64) {
        let others = (1..self.workers.len()).map(|n| (worker + n) % self.workers.len());
        for of in std::iter::once(worker).chain(others) {
            let share = &self.workers[of].share.0;
            while let Some(i) = share.left.take(of == worker) {
                // SAFETY: this task is not done, so the caller waits: the job is not written and its closure is alive.
                let task = unsafe { &**share.job.get() };
                task(i, worker);
                *done += 1;
            }
        }
    }

    fn done_by_helpers(&self) -> u64 {
        let done = |w: &Worker| w.done.0.load(Ordering::Acquire);
        self.workers[1..].iter().map(done).sum()
    }

    fn clear(&self) -> u64 {
        self.workers.iter().map(|w| w.share.0.left.clear()).sum()
    }

    /// A helper's life.
    fn help(&self, helper: usize) {
        let worker = &self.workers[helper];
        while self.wait(worker) {
            let mut done = 0;
            let result = catch_unwind(AssertUnwindSafe(|| self.work(helper, &mut done)));
            if result.is_err() {
                self.panicked.store(true, Ordering::Relaxed);
                // The remaining tasks are not worth doing; the caller counts them, and the one that panicked, as done.
                done += 1 + self.clear();
            }
            worker.done.0.fetch_add(done, Ordering::Release);
        }
    }

    /// Waits until there are tasks in the helper's own range: first awake, then asleep. False at the end.
    fn wait(&self, worker: &Worker) -> bool {
        let start = Instant::now();
        loop {
            for _ in 0..64 {
                if !worker.share.0.left.is_empty() {
                    return true;
                }
                std::hint::spin_loop();
            }
            if start.elapsed() < SPIN {
                continue;
            }
            worker.sleeping.store(true, Ordering::SeqCst);
            loop {
                let found = !worker.share.0.left.is_empty();
                if found || self.shutdown.load(Ordering::SeqCst) {
                    worker.sleeping.store(false, Ordering::SeqCst);
                    return found;
                }
                thread::park();
            }
        }
    }
}
