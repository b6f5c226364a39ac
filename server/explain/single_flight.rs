//! Who shares a flight: who asks for what is under way already joins, and makes it as urgent as it is itself.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use code_explainer_cache::CacheKey;
use code_explainer_scheduler::Priority;
use tokio::sync::watch;

use crate::explain::log::{AnswerLog, Writer};
use crate::explain::reader::Reader;

/// Answers that are being generated, by what they answer. Bounded by the queue and the engines' batches, since each has
/// a place in one of them.
#[derive(Debug, Default)]
pub(super) struct Flights {
    flying: Mutex<HashMap<CacheKey, Flight>>,
}

/// The way to a flight for those who join it.
#[derive(Debug)]
struct Flight {
    log: watch::Sender<AnswerLog>,
    /// That of the most urgent who ever joined.
    priority: watch::Sender<Priority>,
}

/// The right and the duty to generate an answer.
#[derive(Debug)]
pub(super) struct Lead {
    pub(super) writer: Writer,
    pub(super) key: Option<CacheKey>,
    /// That of the most urgent of its readers.
    pub(super) priority: watch::Receiver<Priority>,
    /// Others can join.
    shared: bool,
    flights: Arc<Flights>,
}

/// How an item comes to its answer.
pub(super) enum Role {
    /// Another item has asked for the same.
    Follower(Reader),
    /// It is the first: the flight is its to start.
    Leader(Reader, Lead),
}

impl Flights {
    /// Joins the flight of this key, or makes it. Without a key, or unless it is to be shared, nobody else can join.
    pub(super) fn board(
        self: &Arc<Self>,
        key: Option<CacheKey>,
        share: bool,
        priority: Priority,
        at: Instant,
    ) -> Role {
        let mut flying = self.lock();
        let shared = key.filter(|_| share);
        if let Some(flight) = shared.as_ref().and_then(|key| flying.get(key)) {
            (flight.priority)
                .send_if_modified(|p| priority < std::mem::replace(p, priority.min(*p)));
            return Role::Follower(Reader::new(flight.log.subscribe(), at, true));
        }
        let (log, reader) = watch::channel(AnswerLog::default());
        let (raise, priority) = watch::channel(priority);
        if let Some(key) = shared {
            let flight = Flight {
                log: log.clone(),
                priority: raise,
            };
            flying.insert(key, flight);
        }
        let lead = Lead {
            writer: Writer(log),
            key,
            priority,
            shared: shared.is_some(),
            flights: self.clone(),
        };
        Role::Leader(Reader::new(reader, at, false), lead)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<CacheKey, Flight>> {
        // Each operation leaves the map whole.
        self.flying.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lead {
    /// Waits until no reader is left, and then lets nobody board any more.
    pub(super) async fn abandoned(&mut self) {
        loop {
            self.writer.0.closed().await;
            let flights = self.flights.clone();
            let mut flying = flights.lock();
            // Readers are added under the lock, so what is seen here stays so.
            if self.writer.0.receiver_count() == 0 {
                self.give_up_key(&mut flying);
                return;
            }
        }
    }

    fn give_up_key(&mut self, flying: &mut HashMap<CacheKey, Flight>) {
        if let Some(key) = self.key.filter(|_| std::mem::take(&mut self.shared)) {
            flying.remove(&key);
        }
    }
}

impl Drop for Lead {
    fn drop(&mut self) {
        let flights = self.flights.clone();
        self.give_up_key(&mut flights.lock());
    }
}
