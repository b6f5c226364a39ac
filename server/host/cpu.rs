//! CPU time: what a piece of work over a client's text may take, asked from inside of it.
//!
//! Times are the thread's own (`CLOCK_THREAD_CPUTIME_ID`), so that a busy machine bounds the same work as an idle one does,
//! up to what caches and clocks make of it. What depends on them must not be taken for a property of the text: whoever
//! asks a [`Limit`] is told afterwards whether it was [reached](Limit::was_reached).

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// What of an item's CPU time one pass over its text may take at most: so a neighbour waits for a part of it alone, and
/// what costs much in one grammar leaves time for another.
const SHARE: u32 = 4;

/// As much of a code as is parsed: longer code gets no more time than this.
const LONGEST_BYTES: usize = 64 * 1024;
/// Shorter code gets as much time as this: what costs the same whatever its length is in it.
const SHORTEST_BYTES: usize = 4 * 1024;

/// CPU time that an item may take in all, over all that is done with its text before an engine gets it. Clones are the
/// same one.
#[derive(Debug, Clone)]
pub struct Budget(Arc<Account>);

#[derive(Debug)]
struct Account {
    left_ns: AtomicU64,
    share: Duration,
}

impl Budget {
    /// For code of so many bytes, where the longest code that is parsed may take this time and shorter code its part of it.
    pub fn for_code(time: Duration, bytes: usize) -> Self {
        let bytes = bytes.clamp(SHORTEST_BYTES, LONGEST_BYTES);
        Self::new(time.mul_f64(bytes as f64 / LONGEST_BYTES as f64))
    }

    /// With so much time; a pass may take a quarter of it.
    pub fn new(time: Duration) -> Self {
        Self(Arc::new(Account {
            left_ns: AtomicU64::new(nanoseconds(time)),
            share: time / SHARE,
        }))
    }

    /// What the next pass may take.
    pub fn share(&self) -> Duration {
        let left = Duration::from_nanos(self.0.left_ns.load(Ordering::Relaxed));
        left.min(self.0.share)
    }

    /// So much was taken.
    pub fn spend(&self, time: Duration) {
        let spent = nanoseconds(time);
        let less = |left: u64| Some(left.saturating_sub(spent));
        // It never fails: there is always a new value.
        let _ = (self.0.left_ns).fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
    }
}

/// What one pass may take, on the thread that it was made on. It is over when its time is spent or nobody waits for the
/// work any more.
#[derive(Debug)]
pub struct Limit {
    clock: Clock,
    time: Duration,
    abandoned: Option<Arc<AtomicBool>>,
    reached: Cell<bool>,
    /// What had been spent when it was last asked.
    asked: Cell<Duration>,
    /// The most that was spent between two questions.
    longest: Cell<Duration>,
}

#[derive(Debug)]
enum Clock {
    /// The thread's, with what it showed when the pass began.
    Thread(Duration),
    /// The work takes so long whatever it does, and is never over: for simulations.
    Fixed(Duration),
}

impl Limit {
    /// So much of this thread's CPU time from now on, while nobody has set the flag.
    pub fn new(time: Duration, abandoned: Option<Arc<AtomicBool>>) -> Self {
        Self {
            clock: Clock::Thread(thread_time()),
            time,
            abandoned,
            reached: Cell::new(false),
            asked: Cell::default(),
            longest: Cell::default(),
        }
    }

    /// For work that is bounded by what it is done to alone.
    pub fn none() -> Self {
        Self::fixed(Duration::ZERO)
    }

    /// For work that is said to take so long, and is never over before its end.
    pub fn fixed(cost: Duration) -> Self {
        Self {
            clock: Clock::Fixed(cost),
            time: Duration::MAX,
            abandoned: None,
            reached: Cell::new(false),
            asked: Cell::default(),
            longest: Cell::default(),
        }
    }

    /// Whether to stop: when there would be too little time left at the next question, if that came as late as the latest
    /// did. Costs a system call: to be asked every few microseconds at most.
    pub fn is_over(&self) -> bool {
        if matches!(self.clock, Clock::Thread(_)) {
            let spent = self.spent();
            let asked = self.asked.replace(spent);
            // Before the first question the work is got ready, which happens once.
            if !asked.is_zero() {
                let late = spent.saturating_sub(asked);
                self.longest.set(self.longest.get().max(late));
            }
            if spent + self.longest.get() >= self.time {
                self.reached.set(true);
            }
        }
        self.reached.get() || self.is_abandoned()
    }

    /// Whether nobody waits for the work any more.
    pub fn is_abandoned(&self) -> bool {
        (self.abandoned.as_ref()).is_some_and(|flag| flag.load(Ordering::Relaxed))
    }

    /// Whether the pass was told that its time is spent: what came of it depends on the clock.
    pub fn was_reached(&self) -> bool {
        self.reached.get()
    }

    /// CPU time since it was made.
    pub fn spent(&self) -> Duration {
        match self.clock {
            Clock::Thread(began) => thread_time().saturating_sub(began),
            Clock::Fixed(cost) => cost,
        }
    }
}

/// CPU time of this thread so far. The kernel's own clock and not the C library's, which a simulation replaces.
pub fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.max(0) as u64, time.tv_nsec.max(0) as u32)
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(3600);

    #[test]
    fn a_pass_gets_a_quarter_and_never_more_than_is_left() {
        let budget = Budget::new(Duration::from_millis(100));
        assert_eq!(budget.share(), Duration::from_millis(25));
        budget.spend(Duration::from_millis(90));
        assert_eq!(budget.clone().share(), Duration::from_millis(10));
        budget.spend(LONG);
        assert_eq!(budget.share(), Duration::ZERO);
    }

    #[test]
    fn short_code_gets_its_part_of_the_longest_codes_time() {
        let share = |bytes| Budget::for_code(Duration::from_millis(640), bytes).share();
        assert_eq!(share(1 << 20), Duration::from_millis(160));
        assert_eq!(share(64 << 10), Duration::from_millis(160));
        assert_eq!(share(16 << 10), Duration::from_millis(40));
        assert_eq!(share(1), Duration::from_millis(10));
    }

    #[test]
    fn it_is_over_when_its_time_is_spent() {
        let limit = Limit::new(Duration::from_millis(2), None);
        assert!(!limit.was_reached());
        let mut turns = 0_u64;
        while !limit.is_over() {
            turns += 1;
        }
        assert!(limit.was_reached() && turns > 0);
        let (spent, late) = (limit.asked.get(), limit.longest.get());
        assert!(
            spent + late >= Duration::from_millis(2),
            "{spent:?}, {late:?}"
        );
        assert!(!Limit::none().is_over());
    }

    #[test]
    fn who_asks_seldom_is_told_before_the_time_is_spent() {
        let limit = Limit::new(Duration::from_millis(50), None);
        let work = |time: Duration| {
            let began = thread_time();
            while thread_time() - began < time {}
        };
        work(Duration::from_millis(20));
        assert!(!limit.is_over(), "it may take as long once more");
        work(Duration::from_millis(20));
        assert!(limit.is_over(), "as long again would be too long");
    }

    #[test]
    fn work_that_nobody_waits_for_is_over_and_its_time_was_not_reached() {
        let flag = Arc::new(AtomicBool::new(false));
        let limit = Limit::new(LONG, Some(flag.clone()));
        assert!(!limit.is_over());
        flag.store(true, Ordering::Relaxed);
        assert!(limit.is_over() && limit.is_abandoned() && !limit.was_reached());
    }
}
