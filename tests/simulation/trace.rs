//! What happened in a world, as a number that two equal histories share, and as lines for a person.

use std::cell::{Cell, RefCell};
use std::fmt::Arguments;

use crate::world;

thread_local! {
    static HASH: Cell<u64> = const { Cell::new(0xcbf2_9ce4_8422_2325) };
    static TOLD: Cell<bool> = const { Cell::new(false) };
    static PANICS: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// Writes what happens, and the servers' logs between it, to standard error.
pub(crate) fn tell() {
    TOLD.set(true);
    // What has a subscriber already keeps it.
    let _ = tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_max_level(tracing_subscriber::filter::LevelFilter::INFO)
        .without_time()
        .try_init();
}

/// Something happened.
pub(crate) fn happened(what: Arguments<'_>) {
    let line = format!("{:>10.3} {what}", world::elapsed().as_secs_f64() * 1e3);
    let fnv = |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    HASH.set(line.bytes().fold(HASH.get(), fnv));
    if TOLD.get() {
        eprintln!("{line}");
    }
}

/// Of all that was noted.
pub(crate) fn hash() -> u64 {
    HASH.get()
}

/// Panics that nobody asked for. Those in tasks that nobody waits for are found here.
pub(crate) fn panics() -> Vec<String> {
    PANICS.take()
}

/// Panics in worlds are noted, and not printed; others are as ever.
pub(crate) fn watch_panics() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if !world::is_inhabited() {
            return usual(panic);
        }
        let text = panic.to_string();
        if !text.contains("asked for by the test") {
            happened(format_args!("panic: {text}"));
            PANICS.with_borrow_mut(|panics| panics.push(text));
        }
    }));
}

/// Notes what happened, as `format!` would write it.
macro_rules! note {
    ($($what:tt)*) => { $crate::trace::happened(format_args!($($what)*)) };
}
pub(crate) use note;
