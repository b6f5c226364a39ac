//! Which connections are open, and which of them makes room for a new one when there are as many as there may be.
//!
//! A connection that does nothing for anybody is worth less than one that has just come. So at a bound, the connection
//! that has been idle for longest is closed for the newcomer: before all others those on which nobody who is known has
//! ever called, then those without such a call now. Only where all are at work is the newcomer turned away. Thousands of
//! silent connections, or of unknown callers, keep nobody out.
//!
//! A connection: `Idle <=> Working`, `Idle => Displaced`.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};

use crate::api::origin::Origin;
use crate::api::patience::Patience;

/// Connections that have been displaced and are not closed yet, at most. So many more than the bound may be open.
pub(crate) const CLOSING: usize = 32;

/// The places for the connections of a listener. Its bounds hold for `open` connections; those that are being closed for
/// others come on top, [`CLOSING`] at most.
pub(super) struct Places {
    most: usize,
    most_of_address: usize,
    state: Mutex<State>,
    patience: Mutex<Patience>,
}

/// A connection's place. Free again when it is dropped.
pub(super) struct Place {
    usage: Use,
    displaced: CancellationToken,
    due: Instant,
}

/// Tells the use that is made of a place; calls have it, which may outlive their connection for a moment.
#[derive(Clone)]
pub(super) struct Use {
    places: Arc<Places>,
    number: u64,
    origin: Option<Origin>,
    known: Arc<AtomicBool>,
}

/// Why there is no place: all that could make room are at work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Full {
    /// The listener has as many connections as it may have.
    Limit,
    /// The address has.
    Address,
    /// The address has had the server do too much in vain, and as many wait as may.
    Flood,
}

impl Full {
    /// In metrics.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Limit => "limit",
            Self::Address => "address",
            Self::Flood => "flood",
        }
    }
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
    /// For `most` connections, of which `most_of_address` may come from one address, which may take back so many calls in
    /// haste (`None`: any number).
    pub(super) fn new(
        most: usize,
        most_of_address: usize,
        resets: Option<NonZeroU32>,
    ) -> Arc<Self> {
        Arc::new(Self {
            most,
            most_of_address,
            state: Mutex::default(),
            patience: Mutex::new(Patience::new(resets)),
        })
    }

    /// A place for a connection from this address, perhaps another one's.
    ///
    /// # Errors
    /// There is none, and none can be made.
    pub(super) fn take(self: &Arc<Self>, address: Option<IpAddr>) -> Result<Place, Full> {
        let origin = address.map(Origin::of);
        let due = self.patience().due(origin, Instant::now());
        let due = due.ok_or(Full::Flood)?;
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
        drop(state);
        let usage = Use {
            places: self.clone(),
            number,
            origin,
            known: Arc::default(),
        };
        Ok(Place {
            usage,
            displaced,
            due,
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

    fn patience(&self) -> MutexGuard<'_, Patience> {
        self.patience.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Use {
    /// Somebody who is known begins a call.
    pub(super) fn call_begins(&self) {
        self.known.store(true, Ordering::Relaxed);
        self.places.lock().used(self.number, |entry| {
            entry.known = true;
            entry.calls += 1;
        });
    }

    /// And this is its end.
    pub(super) fn call_ends(&self) {
        self.places
            .lock()
            .used(self.number, |entry| entry.calls -= 1);
    }

    /// Somebody calls, and stays unknown: the connection makes room after those that have not been used since.
    pub(super) fn renew(&self) {
        self.places.lock().used(self.number, |_| {});
    }

    /// A call was taken back in haste. False: that is more than its address may.
    pub(super) fn takes_back(&self) -> bool {
        let now = Instant::now();
        self.places.patience().takes_back(self.origin, now)
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

    /// When it may be served: now, unless its address has had the server do too much in vain.
    pub(super) fn due(&self) -> Instant {
        self.due
    }

    /// HTTP/2 has closed the connection for what its client sent.
    pub(super) fn floods(&self) {
        let usage = &self.usage;
        usage.places.patience().floods(usage.origin, Instant::now());
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

    fn used(&mut self, number: u64, change: impl FnOnce(&mut Entry)) {
        let now = self.tick();
        // Taken out, so that its place among the idle ones is that of what it was.
        let Some(mut entry) = self.open.remove(&number) else {
            return;
        };
        self.set_idle(&entry, number, false);
        change(&mut entry);
        entry.since = now;
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
        let places = Places::new(3, 3, None);
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
    fn one_that_unknown_callers_use_makes_room_after_those_that_nobody_uses() {
        let places = Places::new(3, 3, None);
        let a = from("10.0.0.1");
        let open = [(); 3].map(|()| places.take(a).expect("room"));
        open[0].usage.renew();
        let newer = places.take(a).expect("the oldest unused one goes");
        assert!(gone(&open[1]) && !gone(&open[0]) && !gone(&open[2]));
        newer.usage.call_begins();
        newer.usage.call_ends();
        let _other = places.take(a).expect("the next one goes");
        let _another = places.take(a).expect("then the one that was used");
        assert!(gone(&open[2]) && gone(&open[0]) && !open[0].was_known());
        assert!(!gone(&newer), "its caller is known");
    }

    #[test]
    fn an_address_has_its_share_and_makes_room_within_it() {
        let places = Places::new(4, 2, None);
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
    }

    #[test]
    fn no_more_are_closed_at_once_than_there_is_room_for_and_nothing_is_left_behind() {
        let places = Places::new(CLOSING + 8, CLOSING + 8, None);
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
