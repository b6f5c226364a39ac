//! The one connection to Redis: made when it is first needed, shared by all, and made anew after it broke.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::{AsyncConnectionConfig, Client, Pipeline, RedisError, Value};

/// How long making a connection may take, in the background: name look-up, TCP, authentication.
const CONNECT_LIMIT: Duration = Duration::from_secs(1);

/// A connection that is made or being made. All who need it wait for the same attempt.
type Attempt = Shared<BoxFuture<'static, Result<MultiplexedConnection, RedisError>>>;

/// A connection that heals.
///
/// The `ConnectionManager` of the crate `redis` keeps a connection that was refused for a wrong password, or whose peer
/// vanished without a word, for good; this one forgets every attempt that failed and, by [`reset`](Self::reset), also
/// one that only looks alive.
pub(super) struct Link {
    client: Client,
    current: Mutex<Option<Attempt>>,
}

impl Link {
    /// Parses the URL and connects to nothing yet.
    ///
    /// # Errors
    /// The URL is not one of Redis. The error does not tell its user or password.
    pub(super) fn new(url: &str) -> Result<Self, RedisError> {
        Ok(Self {
            client: Client::open(url)?,
            current: Mutex::new(None),
        })
    }

    /// Sends commands in one go and waits for as many replies, each of which may be a `Value::ServerError`.
    ///
    /// Waits without limit for a connected server: callers set the limit. Dropping the future is safe at any time.
    ///
    /// # Errors
    /// No connection, or one that broke; the next call makes another.
    pub(super) async fn send(&self, commands: &Pipeline) -> Result<Vec<Value>, RedisError> {
        let attempt = self.attempt();
        let mut connection = match attempt.clone().await {
            Ok(connection) => connection,
            Err(err) => {
                self.forget(&attempt);
                return Err(err);
            }
        };
        let replies = connection
            .req_packed_commands(commands, 0, commands.len())
            .await;
        if replies
            .as_ref()
            .is_err_and(RedisError::is_unrecoverable_error)
        {
            self.forget(&attempt);
        }
        replies
    }

    /// Waits until there is a connection, [`CONNECT_LIMIT`] at most.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub(super) async fn connect(&self) -> Result<(), RedisError> {
        let attempt = self.attempt();
        attempt
            .clone()
            .await
            .map(drop)
            .inspect_err(|_| self.forget(&attempt))
    }

    /// Drops the connection; the next call makes another.
    pub(super) fn reset(&self) {
        *self.lock() = None;
    }

    fn attempt(&self) -> Attempt {
        let mut current = self.lock();
        if let Some(attempt) = &*current {
            return attempt.clone();
        }
        let client = self.client.clone();
        let attempt = async move {
            // Callers limit how long they wait for a reply; see `send`.
            let limits = AsyncConnectionConfig::new()
                .set_connection_timeout(Some(CONNECT_LIMIT))
                .set_response_timeout(None);
            client
                .get_multiplexed_async_connection_with_config(&limits)
                .await
        }
        .boxed()
        .shared();
        // Goes on when all who wait give up, so that a slow connection is there for those who come later.
        tokio::spawn(attempt.clone());
        *current = Some(attempt.clone());
        attempt
    }

    /// Drops a connection unless another one took its place.
    fn forget(&self, attempt: &Attempt) {
        let mut current = self.lock();
        if current
            .as_ref()
            .is_some_and(|current| current.ptr_eq(attempt))
        {
            *current = None;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Attempt>> {
        // Whatever a panicking holder left is a valid attempt or none.
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Display for Link {
    /// The server's address, without user and password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.client.get_connection_info().addr().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_logged_of_a_url_is_the_address_alone() {
        let link = Link::new("redis://user:hunter2@host:7000/3").expect("a valid URL");
        assert_eq!(link.to_string(), "host:7000");
    }
}
