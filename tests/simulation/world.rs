//! A world of its own for a thread: its time and its chances follow from a number, and nothing outside it is asked.
//!
//! This program defines three functions of the C library, so that all code of a simulation's thread, that of libraries
//! included, gets them: what the time is, what is random, and the wait for something to happen, which here is the only
//! thing that takes time. On threads without a world they are the system's.

use std::cell::Cell;
use std::ffi::{c_int, c_uint, c_void};
use std::time::Duration;

thread_local! {
    static INHABITED: Cell<bool> = const { Cell::new(false) };
    static NANOSECONDS: Cell<u64> = const { Cell::new(0) };
    /// For what programs draw: keys of hash tables, tokens, jitter.
    static ENTROPY: Cell<u64> = const { Cell::new(0) };
    /// For what befalls them.
    static FATE: Cell<u64> = const { Cell::new(0) };
}

/// Since the machine started, as it seems: long enough that any time that a program takes off it is still one.
const UPTIME: Duration = Duration::from_secs(1 << 22);
/// On the first of November 2026, as it seems.
const EPOCH: Duration = Duration::from_secs(1_793_491_200);

/// This thread lives in the world of this number from here on.
pub(crate) fn enter(seed: u64) {
    INHABITED.set(true);
    NANOSECONDS.set(0);
    ENTROPY.set(mix(seed ^ 0x656e_7472_6f70_7900));
    FATE.set(mix(seed));
}

/// Whether this thread lives in a world of its own.
pub(crate) fn is_inhabited() -> bool {
    INHABITED.get()
}

/// The time since it began.
pub(crate) fn elapsed() -> Duration {
    Duration::from_nanos(NANOSECONDS.get())
}

/// A number below `end`, as fate has it.
pub(crate) fn below(end: u64) -> u64 {
    draw(&FATE) % end.max(1)
}

/// A number from `low` to `high`.
pub(crate) fn between(low: u64, high: u64) -> u64 {
    low + below(high - low + 1)
}

/// Once in so many times.
pub(crate) fn once_in(times: u64) -> bool {
    below(times) == 0
}

/// A time from `low` to `high` milliseconds.
pub(crate) fn milliseconds(low: u64, high: u64) -> Duration {
    Duration::from_millis(between(low, high))
}

/// `SplitMix64`, by Steele, Lea and Flood.
fn draw(state: &'static std::thread::LocalKey<Cell<u64>>) -> u64 {
    let next = state.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
    state.set(next);
    mix(next)
}

fn mix(z: u64) -> u64 {
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// # Safety
/// As of the C library's: `time` is valid for a write.
#[unsafe(no_mangle)]
unsafe extern "C" fn clock_gettime(clock: libc::clockid_t, time: *mut libc::timespec) -> c_int {
    if !INHABITED.get() {
        // SAFETY: the caller keeps to what the system asks for.
        return unsafe { libc::syscall(libc::SYS_clock_gettime, clock, time) } as c_int;
    }
    let since = if clock == libc::CLOCK_REALTIME {
        EPOCH
    } else {
        UPTIME
    };
    let now = since + elapsed();
    let now = libc::timespec {
        tv_sec: now.as_secs() as libc::time_t,
        tv_nsec: now.subsec_nanos().into(),
    };
    // SAFETY: the caller says that it is valid.
    unsafe { time.write(now) };
    0
}

/// # Safety
/// As of the C library's: `buffer` is valid for writes of `length` bytes.
#[unsafe(no_mangle)]
unsafe extern "C" fn getrandom(buffer: *mut c_void, length: usize, flags: c_uint) -> isize {
    if !INHABITED.get() {
        // SAFETY: the caller keeps to what the system asks for.
        return unsafe { libc::syscall(libc::SYS_getrandom, buffer, length, flags) } as isize;
    }
    for at in 0..length {
        let byte = draw(&ENTROPY) as u8;
        // SAFETY: the caller says that it is valid up to the length.
        unsafe { buffer.cast::<u8>().add(at).write(byte) };
    }
    length as isize
}

/// Where a runtime waits: the time of its next timer comes at once.
///
/// # Safety
/// As of the C library's: `events` is valid for writes of `most` events.
#[unsafe(no_mangle)]
unsafe extern "C" fn epoll_wait(
    epoll: c_int,
    events: *mut libc::epoll_event,
    most: c_int,
    timeout: c_int,
) -> c_int {
    if !INHABITED.get() {
        let no_mask = std::ptr::null::<libc::sigset_t>();
        // SAFETY: the caller keeps to what the system asks for; no mask is one that is allowed.
        return unsafe {
            libc::syscall(
                libc::SYS_epoll_pwait,
                epoll,
                events,
                most,
                timeout,
                no_mask,
                8_usize,
            )
        } as c_int;
    }
    let Ok(milliseconds) = u64::try_from(timeout) else {
        eprintln!("nothing will ever happen again in this world");
        std::process::abort();
    };
    NANOSECONDS.set(NANOSECONDS.get() + milliseconds * 1_000_000);
    0
}
