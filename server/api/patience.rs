//! How much an address may have the server do in vain: calls that it takes back in haste, and connections that HTTP/2
//! closes for what was sent on them. It is counted over all of an address's connections, also those that are closed, so
//! that more of them are worth little to whoever floods. Once nothing is left, new connections come one after the other.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::time::Duration;

use tokio::time::Instant;

use crate::api::origin::Origin;

/// Patience that is used up is back after this.
const TIME: Duration = Duration::from_secs(4);
/// What a connection costs that HTTP/2 has closed, in time until it is back.
const FLOOD: Duration = Duration::from_secs(1);
/// New connections come so far apart where nothing is left. A balancer, which has few, hardly waits.
const PACE: Duration = Duration::from_millis(250);
/// None waits for longer.
const LONGEST_WAIT: Duration = Duration::from_secs(5);
/// Addresses that are counted by themselves; more are counted together.
const ADDRESSES: usize = 4096;

/// What is left for each address. The generic cell rate algorithm, whose state is a time.
pub(super) struct Patience {
    /// What a call costs that is taken back; `None`: nothing is counted.
    reset: Option<Duration>,
    /// When all that an address has used is back; some of it is past. Those of unknown address are one.
    back: HashMap<Option<Origin>, Instant>,
}

impl Patience {
    /// For so many calls that an address takes back at once; `None`: for any number.
    pub(super) fn new(resets: Option<NonZeroU32>) -> Self {
        Self {
            reset: resets.map(|resets| TIME / resets.get()),
            back: HashMap::new(),
        }
    }

    /// A call was taken back in haste. False: there was nothing left.
    pub(super) fn takes_back(&mut self, origin: Option<Origin>, now: Instant) -> bool {
        let Some(reset) = self.reset else {
            return true;
        };
        let back = self.back(origin, now) + reset;
        let left = back <= now + TIME;
        if left {
            self.set(origin, back, now);
        }
        left
    }

    /// A connection was closed for what was sent on it.
    pub(super) fn floods(&mut self, origin: Option<Origin>, now: Instant) {
        let before = self.back(origin, now);
        // What waits in line goes on waiting.
        let back = (before + FLOOD).min(now + TIME).max(before);
        if self.reset.is_some() {
            self.set(origin, back, now);
        }
    }

    /// When a new connection may be served: now, unless nothing is left. `None`: too many wait.
    pub(super) fn due(&mut self, origin: Option<Origin>, now: Instant) -> Option<Instant> {
        let back = self.back(origin, now) + PACE;
        let wait = back.saturating_duration_since(now + TIME);
        if wait.is_zero() {
            return Some(now);
        }
        if wait > LONGEST_WAIT {
            return None;
        }
        self.set(origin, back, now);
        Some(now + wait)
    }

    fn back(&self, origin: Option<Origin>, now: Instant) -> Instant {
        let back = self.back.get(&self.counted_as(origin));
        back.map_or(now, |back| now.max(*back))
    }

    fn counted_as(&self, origin: Option<Origin>) -> Option<Origin> {
        origin.filter(|_| self.back.len() < ADDRESSES || self.back.contains_key(&origin))
    }

    fn set(&mut self, origin: Option<Origin>, back: Instant, now: Instant) {
        let origin = self.counted_as(origin);
        if !self.back.contains_key(&origin) && self.back.len() == self.back.capacity() {
            self.back.retain(|_, back| *back > now);
        }
        self.back.insert(origin, back);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RESETS: u32 = 32;
    const NOBODY: Option<Origin> = None;

    fn patience() -> Patience {
        Patience::new(NonZeroU32::new(RESETS))
    }

    fn host(a: u8, b: u8) -> Option<Origin> {
        Some(Origin::of([10, 0, a, b].into()))
    }

    fn wait(patience: &mut Patience, origin: Option<Origin>, now: Instant) -> Option<Duration> {
        patience.due(origin, now).map(|due| due - now)
    }

    #[test]
    fn so_many_at_once_and_as_many_more_over_time_are_borne() {
        let (mut patience, mut now) = (patience(), Instant::now());
        for taken_back in 0..RESETS {
            assert!(patience.takes_back(NOBODY, now), "{taken_back} of {RESETS}");
        }
        assert!(!patience.takes_back(NOBODY, now));
        for _ in 0..100 {
            now += TIME / RESETS;
            assert!(patience.takes_back(NOBODY, now) && !patience.takes_back(NOBODY, now));
        }
        assert!(
            patience.takes_back(host(0, 1), now),
            "another's is another's"
        );
    }

    #[test]
    fn where_nothing_is_left_connections_come_one_after_the_other() {
        let (mut patience, now) = (patience(), Instant::now());
        let (flooder, other) = (host(0, 1), host(0, 2));
        for _ in 0..4 {
            assert_eq!(wait(&mut patience, flooder, now), Some(Duration::ZERO));
            patience.floods(flooder, now);
        }
        assert!(!patience.takes_back(flooder, now), "it is one patience");
        for line in 1..=LONGEST_WAIT.div_duration_f64(PACE) as u32 {
            assert_eq!(wait(&mut patience, flooder, now), Some(PACE * line));
            patience.floods(flooder, now);
        }
        assert_eq!(
            wait(&mut patience, flooder, now),
            None,
            "so many wait at most"
        );
        assert_eq!(wait(&mut patience, other, now), Some(Duration::ZERO));
        let later = now + LONGEST_WAIT;
        assert_eq!(wait(&mut patience, flooder, later), Some(PACE));
        let later = later + TIME;
        assert_eq!(wait(&mut patience, flooder, later), Some(Duration::ZERO));
    }

    #[test]
    fn where_nothing_is_counted_nobody_waits() {
        let (mut patience, now) = (Patience::new(None), Instant::now());
        for _ in 0..100 {
            patience.floods(NOBODY, now);
            assert!(patience.takes_back(NOBODY, now));
            assert_eq!(wait(&mut patience, NOBODY, now), Some(Duration::ZERO));
        }
    }

    #[test]
    fn what_is_past_is_forgotten_and_what_is_kept_has_a_bound() {
        let (mut patience, mut now) = (patience(), Instant::now());
        for n in 0..=255 {
            patience.floods(host(0, n), now);
            now += FLOOD;
        }
        assert!(patience.back.len() < 16, "{}", patience.back.len());
        for n in 0..2 * ADDRESSES {
            let [.., a, b] = n.to_be_bytes();
            patience.floods(host(a, b), now);
        }
        assert!(patience.back.len() <= ADDRESSES + 1);
        assert!(!patience.takes_back(host(255, 255), now), "one of the rest");
        assert!(patience.takes_back(host(0, 9), now));
    }
}
