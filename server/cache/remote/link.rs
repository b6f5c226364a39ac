//! The connections to Redis: made when they are first needed, shared by all, and made anew after they broke.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use redis::{Pipeline, RedisError, Value};

use super::target::{Connection, Target};

/// A connection that is made or being made. All who need it wait for the same attempt.
type Attempt = Shared<BoxFuture<'static, Result<Connection, RedisError>>>;

/// A pool of connections that heal, taken in turn. Each carries the commands of many callers at once.
///
/// The `ConnectionManager` of the crate `redis` keeps a connection that was refused for a wrong password, or whose peer
/// vanished without a word, for good; this one forgets every attempt that failed and, by [`reset`](Self::reset), also
/// those that only look alive.
pub(super) struct Link {
    target: Arc<Target>,
    slots: Box<[Mutex<Option<Attempt>>]>,
    next: AtomicUsize,
}

impl Link {
    /// Connects to nothing yet.
    pub(super) fn new(target: Target, connections: usize) -> Self {
        Self {
            target: Arc::new(target),
            slots: (0..connections.max(1)).map(|_| Mutex::default()).collect(),
            next: AtomicUsize::new(0),
        }
    }

    /// Sends commands in one go and waits for as many replies, each of which may be a `Value::ServerError`. Where the
    /// connection turns out to have been broken, they are sent once more on another: so they must be such that twice is
    /// as good as once.
    ///
    /// Waits without limit for a connected server: callers set the limit. Dropping the future is safe at any time.
    ///
    /// # Errors
    /// No connection, or one that broke; the next call makes another.
    pub(super) async fn send(&self, commands: &Pipeline) -> Result<Vec<Value>, RedisError> {
        let slot = &self.slots[self.next.fetch_add(1, Ordering::Relaxed) % self.slots.len()];
        let mut broken = None;
        loop {
            let attempt = self.attempt(slot);
            let mut connection = match attempt.clone().await {
                Ok(connection) => connection,
                Err(err) => {
                    forget(slot, &attempt);
                    return Err(err);
                }
            };
            match connection.send(commands).await {
                Err(err) if err.is_unrecoverable_error() => {
                    forget(slot, &attempt);
                    if broken.replace(err.clone()).is_some() {
                        return Err(err);
                    }
                }
                replies => return replies,
            }
        }
    }

    /// A connection of the caller's own choice of commands, for what cannot be pipelined.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub(super) async fn connection(&self) -> Result<Connection, RedisError> {
        let slot = &self.slots[0];
        let attempt = self.attempt(slot);
        let connection = attempt.clone().await;
        connection.inspect_err(|_| forget(slot, &attempt))
    }

    /// Drops the connections; the next calls make others.
    pub(super) fn reset(&self) {
        for slot in &self.slots {
            *lock(slot) = None;
        }
    }

    fn attempt(&self, slot: &Mutex<Option<Attempt>>) -> Attempt {
        let mut current = lock(slot);
        if let Some(attempt) = &*current {
            return attempt.clone();
        }
        let target = Arc::clone(&self.target);
        let attempt = async move { target.connect().await }.boxed().shared();
        // Goes on when all who wait give up, so that a slow connection is there for those who come later.
        tokio::spawn(attempt.clone());
        *current = Some(attempt.clone());
        attempt
    }
}

/// Drops a connection unless another one took its place.
fn forget(slot: &Mutex<Option<Attempt>>, attempt: &Attempt) {
    let mut current = lock(slot);
    if current
        .as_ref()
        .is_some_and(|current| current.ptr_eq(attempt))
    {
        *current = None;
    }
}

fn lock(slot: &Mutex<Option<Attempt>>) -> MutexGuard<'_, Option<Attempt>> {
    // Whatever a panicking holder left is a valid attempt or none.
    slot.lock().unwrap_or_else(PoisonError::into_inner)
}

impl fmt::Display for Link {
    /// Addresses, without user and password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.target.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::remote::config::{RedisConfig, Topology};

    #[test]
    fn what_is_logged_of_urls_is_the_addresses_alone() {
        let mut config = RedisConfig::new("redis://user:hunter2@host:7000");
        let shown = |config: &RedisConfig| {
            let target = Target::new(config).expect("valid settings");
            Link::new(target, 1).to_string()
        };
        assert_eq!(shown(&config), "host:7000");
        config.urls.push("redis://user:hunter2@other".to_owned());
        config.topology = Topology::Sentinel {
            master: "explainer".to_owned(),
        };
        assert_eq!(shown(&config), "explainer by host:7000, other:6379");
        config.topology = Topology::Cluster;
        assert_eq!(shown(&config), "cluster of host:7000, other:6379");
    }
}
