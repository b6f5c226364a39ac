//! The threads that share a step's operators.
//!
//! A decode step forks and joins some 150 times in a few milliseconds, so a join must cost well under a microsecond:
//! helpers spin for a short while between operators and go to sleep when none comes. The calling thread works too and
//! never waits for a helper that has not started: what a late one would have done is done by then.

use std::cell::{Cell, UnsafeCell};
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle, Thread};
use std::time::{Duration, Instant};

use super::cores::Cores;
use crate::engine::CpuShare;

/// How long a helper spins for the next job before it sleeps. The scheduler's work between two steps fits in.
const SPIN: Duration = Duration::from_micros(80);

/// Threads for fork and join. Owned and driven by one thread at a time.
pub struct Pool {
    shared: Arc<Shared>,
    helpers: Vec<JoinHandle<()>>,
    // Not Sync: a second caller, or a task that forks again, would overwrite the job in progress.
    one_caller: PhantomData<Cell<()>>,
}

/// What a job calls: `(task, worker)`.
type Task<'a> = dyn Fn(usize, usize) + Sync + 'a;

struct Shared {
    /// Job number (high half), whether helpers may join (bit 31), helpers that joined (low bits).
    state: AtomicU64,
    job: UnsafeCell<Job>,
    next: AtomicUsize,
    panicked: AtomicBool,
    shutdown: AtomicBool,
    sleeping: Box<[AtomicBool]>,
}

#[derive(Clone, Copy)]
struct Job {
    task: *const Task<'static>,
    tasks: usize,
}

const OPEN: u64 = 1 << 31;
const JOINED: u64 = OPEN - 1;
const NEXT_JOB: u64 = 1 << 32;

// SAFETY: `job` is written by the caller only while the state is closed and no helper is joined, and read by helpers
// only between joining an open state and leaving it; the state's atomics order the two. The task it points to is Sync.
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
        let shared = Arc::new(Shared {
            state: AtomicU64::new(0),
            job: UnsafeCell::new(Job {
                task: &|_: usize, _: usize| {},
                tasks: 0,
            }),
            next: AtomicUsize::new(0),
            panicked: AtomicBool::new(false),
            shutdown: AtomicBool::new(false),
            sleeping: (1..threads).map(|_| AtomicBool::new(false)).collect(),
        });
        let mut pool = Self {
            shared,
            helpers: Vec::new(),
            one_caller: PhantomData,
        };
        for helper in 0..threads - 1 {
            let shared = Arc::clone(&pool.shared);
            let thread = thread::Builder::new()
                .name(format!("engine-{}", helper + 1))
                .spawn(move || shared.help(helper))?;
            pool.helpers.push(thread);
        }
        Ok(pool)
    }

    /// How many threads work on a job; workers are numbered from 0 (the caller) to below this.
    pub fn threads(&self) -> usize {
        self.helpers.len() + 1
    }

    /// Calls `task(i, worker)` once for each `i` below `tasks`, in any order, on any of the threads, and returns when all
    /// are done. No two calls that overlap in time have the same `worker`.
    ///
    /// # Panics
    /// When a task does, after all threads have left the job.
    pub fn run(&self, tasks: usize, task: &Task<'_>) {
        if tasks <= 1 || self.helpers.is_empty() {
            return (0..tasks).for_each(|i| task(i, 0));
        }
        let shared = &*self.shared;
        let erased: *const Task<'_> = task;
        // SAFETY: only the lifetime changes. Helpers follow the pointer while they are joined, and this function waits
        // for all of them to leave before it returns or unwinds.
        let task_pointer =
            unsafe { std::mem::transmute::<*const Task<'_>, *const Task<'static>>(erased) };
        // SAFETY: the state is closed and nobody is joined (the previous `run` waited for it; `self` is not Sync).
        unsafe {
            *shared.job.get() = Job {
                task: task_pointer,
                tasks,
            }
        };
        shared.next.store(0, Ordering::Relaxed);
        let number =
            (shared.state.load(Ordering::Relaxed) & !(OPEN | JOINED)).wrapping_add(NEXT_JOB);
        // SeqCst pairs with the helper that says it sleeps and then looks once more.
        shared.state.store(number | OPEN, Ordering::SeqCst);
        for (sleeping, helper) in shared.sleeping.iter().zip(&self.helpers) {
            if sleeping.load(Ordering::SeqCst) {
                wake(helper.thread());
            }
        }
        let mine = catch_unwind(AssertUnwindSafe(|| shared.work(task, tasks, 0)));
        shared.state.fetch_and(!OPEN, Ordering::AcqRel);
        let mut spins = 0u32;
        while shared.state.load(Ordering::Acquire) & JOINED != 0 {
            spins = spins.wrapping_add(1);
            // A helper that lost its core can only finish if someone gives it one.
            if spins.is_multiple_of(1 << 14) {
                thread::yield_now()
            } else {
                std::hint::spin_loop()
            }
        }
        let helper_panicked = shared.panicked.swap(false, Ordering::Relaxed);
        if let Err(panic) = mine {
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
    fn work(&self, task: &Task<'_>, tasks: usize, worker: usize) {
        loop {
            let i = self.next.fetch_add(1, Ordering::Relaxed);
            if i >= tasks {
                return;
            }
            task(i, worker);
        }
    }

    /// A helper's life.
    fn help(&self, helper: usize) {
        let mut seen = 0;
        loop {
            let state = self.wait(helper, seen);
            if self.shutdown.load(Ordering::SeqCst) {
                return;
            }
            if self
                .state
                .compare_exchange(state, state + 1, Ordering::Acquire, Ordering::Relaxed)
                .is_err()
            {
                continue;
            }
            // SAFETY: joined while open, so the caller waits for this helper to leave: the job is not written and its
            // closure is alive until then.
            let (task, tasks) = unsafe {
                let job = *self.job.get();
                (&*job.task, job.tasks)
            };
            if catch_unwind(AssertUnwindSafe(|| self.work(task, tasks, helper + 1))).is_err() {
                self.panicked.store(true, Ordering::Relaxed);
                // The remaining tasks are not worth doing.
                self.next.store(tasks, Ordering::Relaxed);
            }
            self.state.fetch_sub(1, Ordering::Release);
            seen = state & !(OPEN | JOINED);
        }
    }

    /// Waits for an open job other than `seen`: first awake, then asleep.
    fn wait(&self, helper: usize, seen: u64) -> u64 {
        let fresh = |state: u64| state & OPEN != 0 && state & !(OPEN | JOINED) != seen;
        let start = Instant::now();
        loop {
            for _ in 0..64 {
                let state = self.state.load(Ordering::Acquire);
                if fresh(state) {
                    return state;
                }
                std::hint::spin_loop();
            }
            if start.elapsed() < SPIN {
                continue;
            }
            self.sleeping[helper].store(true, Ordering::SeqCst);
            loop {
                let state = self.state.load(Ordering::SeqCst);
                if fresh(state) || self.shutdown.load(Ordering::SeqCst) {
                    self.sleeping[helper].store(false, Ordering::SeqCst);
                    return state;
                }
                thread::park();
            }
        }
    }
}
