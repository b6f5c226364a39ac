//! The engine's threads: every task of every job runs once, and a task that panics is the caller's panic.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use code_explainer_engine_native::pool::Pool;

#[test]
fn every_task_runs_once_whatever_the_jobs_sizes() {
    for threads in [1, 2, 3, 5] {
        let pool = Pool::new(threads).unwrap();
        for tasks in (0..40).chain([97, 640, 5]).cycle().take(2000) {
            let ran: Vec<_> = (0..tasks).map(|_| AtomicUsize::new(0)).collect();
            let busy: Vec<_> = (0..threads).map(|_| AtomicBool::new(false)).collect();
            pool.run(tasks, &|task, worker| {
                assert!(!busy[worker].swap(true, Ordering::AcqRel), "one at a time");
                ran[task].fetch_add(1, Ordering::Relaxed);
                busy[worker].store(false, Ordering::Release);
            });
            // Nobody is on his way: what the tasks borrow may go.
            assert!(ran.into_iter().all(|n| n.into_inner() == 1), "{tasks}");
        }
    }
}

#[test]
fn a_panic_comes_back_to_the_caller_and_leaves_the_pool_usable() {
    for threads in [1, 2, 4] {
        let pool = Pool::new(threads).unwrap();
        for bad in 0..24 {
            let ran = AtomicUsize::new(0);
            let job = || {
                pool.run(24, &|task, _| {
                    assert!(task != bad, "task {bad}");
                    ran.fetch_add(1, Ordering::Relaxed);
                });
            };
            assert!(catch_unwind(AssertUnwindSafe(job)).is_err(), "task {bad}");
            // Those that were not begun need not run, and none runs later.
            let before = ran.load(Ordering::Relaxed);
            assert!(before < 24);
            let after = AtomicUsize::new(0);
            pool.run(24, &|_, _| {
                after.fetch_add(1, Ordering::Relaxed);
            });
            assert_eq!(after.into_inner(), 24);
            assert_eq!(ran.into_inner(), before);
        }
    }
}
