//! What holds where several engines share the queue.

use super::*;
use crate::queue::Wake;

/// Nobody else can go on with it.
#[test]
fn an_engine_goes_on_with_what_it_paused_though_another_has_less_to_do() {
    // Of 16 blocks each of two wants 14.
    let mut bench = Bench::new(plain(2, 16), 16);
    bench.queue = Queue::new(2, AGING, Weights::default());
    let tickets = [0, 1].map(|salt| bench.submit(job(0, salt, 20, 36)));
    for _ in 0..100 {
        bench.tick();
        if bench.paused > 0 {
            break;
        }
    }
    assert!(bench.paused > 0, "there is no room for both");
    bench.queue.ask_for_test(1);
    let other = Incarnation { engine: 1, life: 0 };
    assert_eq!(bench.queue.wait(other), Wake::Test, "it has nothing to do");
    bench.finish(2).expect("both come to their end");
    drop(tickets);
}
