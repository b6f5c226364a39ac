//! Which connections are open, and which of them makes room for a new one when there are as many as there may be.
//!
//! A connection that does nothing for anybody is worth less than one that has just come. So at a bound, the connection
//! that has been idle for longest is closed for the newcomer: before all others those on which nobody who is known has
//! ever called, then those without such a call now. Only where all are at work is the newcomer turned away. Thousands of
//! silent connections, or of unknown callers, keep nobody out.
//!
//! A connection: `Idle <=> Working`, `Idle => Displaced`.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};

/// Connections that have been displaced and are not closed yet, at most. So many more than the bound may be open.
pub(crate) const CLOSING: usize = 32;

/// Connections of an address may be closed for what its client did on them so far apart; when they are closer, the next ones
/// wait.
const PAUSE: Duration = Duration::from_millis(500);
/// It waits for so long at most.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// The places for the connections of a listener. Its bounds hold for `open` connections; those that are being closed for
/// others come on top, [`CLOSING`] at most.
pub(super) struct Places {
    most: usize,
    most_of_address: usize,
    state: Mutex<State>,
}

/// A connection's place. Free again when it is dropped.
pub(super) struct Place {
    usage: Use,
    origin: Option<Origin>,
    displaced: CancellationToken,
    due: Instant,
}

/// Tells the use that is made of a place; calls have it, which may outlive their connection for a moment.
#[derive(Clone)]
pub(super) struct Use {
    places: Arc<Places>,
    number: u64,
    known: Arc<AtomicBool>,
}

/// Why there is no place: all that could make room are at work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Full {
    /// The listener has as many connections as it may have.
    Limit,
    /// The address has.
    Address,
}

impl Full {
    /// In metrics.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Limit => "limit",
            Self::Address => "address",
        }
    }
}

/// Whose connections are counted together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Origin {
    V4(Ipv4Addr),
    /// The network, /64: its owner has all addresses in it.
    V6([u8; 8]),
}

/// Idle connections, in the order in which they make room: unknown ones first, then by when they became idle.
type Idle = BTreeMap<(bool, u64), u64>;

#[derive(Default)]
struct State {
    /// Orders what happens; also the number of the next connection.
    clock: u64,
    /// By number. Those that were displaced are not in it.
    open: HashMap<u64, Entry>,
    idle: Idle,
    /// Of every address that has a connection.
    origins: HashMap<Origin, Group>,
    /// Displaced, and not closed yet.
    closing: usize,
    /// When the next connections of addresses are served whose connections were misused; some of it is past.
    pauses: HashMap<Origin, Instant>,
}

#[derive(Default)]
struct Group {
    open: usize,
    idle: Idle,
}

struct Entry {
    /// `None`: there is no address to count by.
    origin: Option<Origin>,
    /// Somebody who is known has called on it.
    known: bool,
    /// Calls of somebody who is known that are open.
    calls: usize,
    since: u64,
    displaced: CancellationToken,
}

impl Places {
    /// For `most` connections, of which `most_of_address` may come from one address.
    pub(super) fn new(most: usize, most_of_address: usize) -> Arc<Self> {
        Arc::new(Self {
            most,
            most_of_address,
            state: Mutex::default(),
        })
    }

    /// A place for a connection from this address, perhaps another one's.
    ///
    /// # Errors
    /// There is none, and none can be made.
    pub(super) fn take(self: &Arc<Self>, address: Option<IpAddr>) -> Result<Place, Full> {
        let origin = address.map(Origin::of);
        let mut state = self.lock();
        let of_origin = origin.and_then(|origin| state.origins.get(&origin));
        if of_origin.is_some_and(|group| group.open >= self.most_of_address) {
            let first = of_origin.and_then(|group| group.idle.values().next().copied());
            let full = match state.open.len() < self.most {
                true => Full::Address,
                false => Full::Limit,
            };
            state.displace(first).ok_or(full)?;
        } else if state.open.len() >= self.most {
            let first = state.idle.values().next().copied();
            state.displace(first).ok_or(Full::Limit)?;
        }
        let number = state.tick();
        let displaced = CancellationToken::new();
        let entry = Entry {
            origin,
            known: false,
            calls: 0,
            since: number,
            displaced: displaced.clone(),
        };
        if let Some(origin) = origin {
            state.origins.entry(origin).or_default().open += 1;
        }
        state.set_idle(&entry, number, true);
        state.open.insert(number, entry);
        let paused = origin.and_then(|origin| state.pauses.get(&origin).copied());
        drop(state);
        let usage = Use {
            places: self.clone(),
            number,
            known: Arc::default(),
        };
        Ok(Place {
            usage,
            origin,
            displaced,
            due: paused.unwrap_or_else(Instant::now),
        })
    }

    /// Closes the connection that has been idle for longest, if there is one: for when the process has run out of what
    /// connections are made of.
    pub(super) fn make_room(&self) -> bool {
        let mut state = self.lock();
        let first = state.idle.values().next().copied();
        state.displace(first).is_some()
    }

    /// Whether connections that were displaced are not closed yet.
    pub(super) fn closing(&self) -> bool {
        self.lock().closing > 0
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Use {
    /// Somebody who is known begins a call.
    pub(super) fn call_begins(&self) {
        self.known.store(true, Ordering::Relaxed);
        self.places
            .lock()
            .change_calls(self.number, |calls| calls + 1);
    }

    /// And this is its end.
    pub(super) fn call_ends(&self) {
        self.places
            .lock()
            .change_calls(self.number, |calls| calls - 1);
    }
}

impl Place {
    /// To tell the use that is made of it.
    pub(super) fn usage(&self) -> Use {
        self.usage.clone()
    }

    /// A number that no other connection of the listener has.
    pub(super) fn number(&self) -> u64 {
        self.usage.number
    }

    /// Whether somebody who is known has ever called on it.
    pub(super) fn was_known(&self) -> bool {
        self.usage.known.load(Ordering::Relaxed)
    }

    /// When it may be served: now, unless its address has misused others.
    pub(super) fn due(&self) -> Instant {
        self.due
    }

    /// The connection is closed for what its client did on it.
    pub(super) fn misused(&self) {
        if let Some(origin) = self.origin {
            self.usage.places.lock().pause(origin, Instant::now());
        }
    }

    /// Resolves when the connection is to be closed for another one.
    pub(super) fn displaced(&self) -> WaitForCancellationFuture<'_> {
        self.displaced.cancelled()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.usage.places.lock();
        if state.remove(self.usage.number).is_none() {
            state.closing -= 1;
        }
    }
}

impl State {
    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    /// The next connections of this one wait, longer each time.
    fn pause(&mut self, origin: Origin, now: Instant) {
        if self.pauses.len() == self.pauses.capacity() {
            self.pauses.retain(|_, due| *due + PAUSE > now);
        }
        let wait = (self.pauses.get(&origin)).map_or(Duration::ZERO, |due| {
            (*due + PAUSE).saturating_duration_since(now)
        });
        self.pauses.insert(origin, now + wait.min(LONGEST_PAUSE));
    }

    /// Its place is free at once. `None`: there was none to displace, or too many are being closed as it is.
    fn displace(&mut self, number: Option<u64>) -> Option<()> {
        if self.closing >= CLOSING {
            return None;
        }
        let entry = self.remove(number?)?;
        self.closing += 1;
        entry.displaced.cancel();
        Some(())
    }

    fn remove(&mut self, number: u64) -> Option<Entry> {
        let entry = self.open.remove(&number)?;
        self.set_idle(&entry, number, false);
        if let Some(origin) = entry.origin
            && let Some(group) = self.origins.get_mut(&origin)
        {
            group.open -= 1;
            if group.open == 0 {
                self.origins.remove(&origin);
            }
        }
        Some(entry)
    }

    fn change_calls(&mut self, number: u64, change: impl FnOnce(usize) -> usize) {
        let now = self.tick();
        // Taken out, so that its place among the idle ones is that of what it was.
        let Some(mut entry) = self.open.remove(&number) else {
            return;
        };
        self.set_idle(&entry, number, false);
        entry.calls = change(entry.calls);
        (entry.known, entry.since) = (true, now);
        self.set_idle(&entry, number, entry.calls == 0);
        self.open.insert(number, entry);
    }

    /// Puts a connection among those that can make room, or takes it away from there.
    fn set_idle(&mut self, entry: &Entry, number: u64, idle: bool) {
        let key = (entry.known, entry.since);
        let group = (entry.origin).and_then(|origin| self.origins.get_mut(&origin));
        for order in [Some(&mut self.idle), group.map(|group| &mut group.idle)]
            .into_iter()
            .flatten()
        {
            if idle {
                order.insert(key, number);
            } else {
                order.remove(&key);
            }
        }
    }
}

impl Origin {
    fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self::V4(address),
            IpAddr::V6(address) => {
                let [a, b, c, d, e, f, g, h, ..] = address.octets();
                Self::V6([a, b, c, d, e, f, g, h])
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(address: &str) -> Option<IpAddr> {
        Some(address.parse().expect("an address"))
    }

    fn gone(place: &Place) -> bool {
        place.displaced.is_cancelled()
    }

    #[test]
    fn the_longest_silent_makes_room_before_those_that_were_used() {
        let places = Places::new(3, 3);
        let a = from("10.0.0.1");
        let used = places.take(a).expect("room");
        used.usage.call_begins();
        used.usage.call_ends();
        let silent = [places.take(a).expect("room"), places.take(a).expect("room")];
        let newest = places
            .take(from("10.0.0.2"))
            .expect("the oldest silent one goes");
        assert!(gone(&silent[0]) && !gone(&silent[1]) && !gone(&used));
        newest.usage.call_begins();
        silent[1].usage.call_begins();
        let last = places.take(a).expect("the one that was used goes");
        assert!(gone(&used) && used.was_known() && !gone(&newest));
        last.usage.call_begins();
        assert_eq!(places.take(a).err(), Some(Full::Limit), "all are at work");
        assert!(!places.make_room());
        drop(last);
        places.take(a).expect("its place is free");
    }

    #[test]
    fn an_address_has_its_share_and_makes_room_within_it() {
        let places = Places::new(4, 2);
        let other = places.take(from("10.0.0.9")).expect("room");
        let mine: Vec<Place> = ["2001:db8::1", "2001:db8::ffff:2"]
            .map(|a| places.take(from(a)).expect("room"))
            .into();
        mine[0].usage.call_begins();
        let third = places
            .take(from("2001:db8::3"))
            .expect("another of its own goes");
        assert!(gone(&mine[1]) && !gone(&other), "the same /64");
        third.usage.call_begins();
        assert_eq!(places.take(from("2001:db8::4")).err(), Some(Full::Address));
        places
            .take(from("2001:db8:0:1::4"))
            .expect("another network");
        assert_eq!(
            Origin::of(from("::ffff:10.0.0.9").expect("one")),
            Origin::of(from("10.0.0.9").expect("one"))
        );
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_that_misuses_connections_waits_and_others_do_not() {
        let places = Places::new(8, 8);
        let wait = |address| {
            let place = places.take(from(address)).expect("room");
            place.due().saturating_duration_since(Instant::now())
        };
        let first = places.take(from("10.0.0.1")).expect("room");
        first.misused();
        assert_eq!(wait("10.0.0.1"), Duration::ZERO, "once in a while");
        first.misused();
        assert_eq!(
            (wait("10.0.0.1"), wait("10.0.0.2")),
            (PAUSE, Duration::ZERO)
        );
        for _ in 0..100 {
            first.misused();
        }
        assert_eq!(wait("10.0.0.1"), LONGEST_PAUSE);
        tokio::time::advance(LONGEST_PAUSE).await;
        assert_eq!(wait("10.0.0.1"), Duration::ZERO);
        for host in 0..=255 {
            places
                .lock()
                .pause(Origin::V4([10, 0, 1, host].into()), Instant::now());
            tokio::time::advance(PAUSE).await;
        }
        assert!(
            places.lock().pauses.len() < 16,
            "those that are past are forgotten"
        );
    }

    #[test]
    fn no_more_are_closed_at_once_than_there_is_room_for_and_nothing_is_left_behind() {
        let places = Places::new(CLOSING + 8, CLOSING + 8);
        let mut held: Vec<Place> = (0..2 * CLOSING + 8)
            .map(|_| places.take(from("10.0.0.1")).expect("room"))
            .collect();
        assert_eq!(places.take(None).err(), Some(Full::Limit));
        held.remove(0);
        held.push(places.take(None).expect("one has been closed"));
        for place in &held {
            place.usage.call_begins();
            place.usage.call_ends();
        }
        drop(held);
        let state = places.lock();
        assert_eq!((state.open.len(), state.closing), (0, 0));
        assert!(state.idle.is_empty() && state.origins.is_empty());
    }
}
