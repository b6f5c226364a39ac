//! Answers as values of Redis.

use std::sync::Arc;
use std::time::Duration;

use redis::{Cmd, Pipeline, Value};
use tokio::runtime::Handle;

use super::token::{Lease, Token};
use super::{Failure, Remote, names};
use crate::answer::CachedAnswer;
use crate::codec::BrokenValue;
use crate::key::CacheKey;

/// An answer that Redis had.
pub(crate) struct Found {
    pub(crate) answer: Arc<CachedAnswer>,
    /// For how long it may be kept still; `None`: it has just expired.
    pub(crate) time_to_live: Option<Duration>,
}

impl Remote {
    /// The answer of a key. Takes the configured timeout at most, and nothing while Redis is left alone.
    pub(crate) async fn get(self: &Arc<Self>, key: &CacheKey) -> Option<Found> {
        if !self.admitted(key) {
            return None;
        }
        match self.fetch(key).await {
            Ok(found) => {
                self.record(key, true);
                found
            }
            Err(err) => {
                self.could_not_read(key, err);
                None
            }
        }
    }

    /// Stores an answer in the background, or drops it: see [`WRITES`](super::WRITES).
    pub(crate) fn put(self: &Arc<Self>, key: CacheKey, answer: Arc<CachedAnswer>) {
        let store = async move |this: Arc<Self>| this.store(&key, &answer).await;
        let written = self.in_background(&key, store);
        if !written {
            self.counters.dropped_puts.add_one();
        }
    }

    /// Takes a value away that nobody can use. Where that fails the value is found and removed again, or expires.
    pub(super) fn remove(self: &Arc<Self>, key: CacheKey) {
        self.in_background(&key, async move |this: Arc<Self>| {
            let mut commands = Pipeline::new();
            commands.cmd("UNLINK").arg(names::answer(&key));
            this.write(&key, &commands).await;
        });
    }

    /// Gives a lease up that stands for nobody.
    pub(super) fn release_soon(self: &Arc<Self>, key: CacheKey, token: Token) {
        self.in_background(&key, async move |this: Arc<Self>| {
            this.release(&key, token).await;
        });
    }

    /// Runs a write behind the caller's back. False: it will not be done, because too much is being written already,
    /// Redis is left alone, or there is no runtime to do it.
    fn in_background<F, W>(self: &Arc<Self>, key: &CacheKey, write: W) -> bool
    where
        W: FnOnce(Arc<Self>) -> F + Send + 'static,
        F: Future<Output = ()> + Send,
    {
        let Ok(runtime) = Handle::try_current() else {
            return false;
        };
        let _guard = runtime.enter();
        let permit = match Arc::clone(&self.writes).try_acquire_owned() {
            Ok(permit) if self.admitted(key) => permit,
            _ => return false,
        };
        let this = Arc::clone(self);
        runtime.spawn(async move {
            write(this).await;
            drop(permit);
        });
        true
    }

    async fn fetch(&self, key: &CacheKey) -> Result<Option<Found>, Failure> {
        let name = names::answer(key);
        let mut commands = Pipeline::new();
        // GETRANGE instead of GET: one byte more than the limit tells that a value is too large, and nobody can make
        // this server read a value of 512 MB. A missing key reads as empty.
        commands
            .cmd("GETRANGE")
            .arg(&name)
            .arg(0)
            .arg(self.limits.value_bytes)
            .cmd("PTTL")
            .arg(&name);
        match <[Value; 2]>::try_from(self.send(&commands).await?) {
            Ok([Value::ServerError(err), _] | [_, Value::ServerError(err)]) => Err(err.into()),
            // Nothing, or somebody is making it.
            Ok([Value::BulkString(value), _])
                if value.is_empty() || Lease::read(&self.mac, key, &value)?.is_some() =>
            {
                Ok(None)
            }
            Ok([value, remaining]) => self.found(key, value, remaining).map(Some),
            Err(_) => Err(Failure::Protocol),
        }
    }

    /// The answer in a value that was read, and what is left of its time.
    pub(super) fn found(
        &self,
        key: &CacheKey,
        value: Value,
        remaining: Value,
    ) -> Result<Found, Failure> {
        let (Value::BulkString(value), Value::Int(remaining)) = (value, remaining) else {
            return Err(Failure::Protocol);
        };
        let limit = self.limits.value_bytes;
        if value.len() > limit {
            return Err(BrokenValue::TooLarge { limit }.into());
        }
        let answer = Arc::new(CachedAnswer::decode(&self.mac, key, &value, limit)?);
        // Redis says -1 for a value that never expires, -2 for one that did so since it was read.
        let time_to_live = match u64::try_from(remaining) {
            Ok(0) => None,
            Ok(ms) => Some(Duration::from_millis(ms).min(self.limits.time_to_live)),
            Err(_) if remaining == -1 => Some(self.limits.time_to_live),
            Err(_) => None,
        };
        Ok(Found {
            answer,
            time_to_live,
        })
    }

    async fn store(&self, key: &CacheKey, answer: &CachedAnswer) {
        match self.set(key, answer) {
            Some(set) => {
                let mut commands = Pipeline::new();
                commands.add_command(set);
                self.write(key, &commands).await;
            }
            None => self.counters.dropped_puts.add_one(),
        }
    }

    /// The command that stores an answer; `None`: it is too large.
    pub(super) fn set(&self, key: &CacheKey, answer: &CachedAnswer) -> Option<Cmd> {
        let value = answer.encode(&self.mac, key, self.limits.value_bytes)?;
        let ttl = u64::try_from(self.limits.time_to_live.as_millis()).unwrap_or(u64::MAX);
        let mut set = redis::cmd("SET");
        set.arg(names::answer(key)).arg(value);
        set.arg("PX").arg(ttl.max(1));
        Some(set)
    }

    pub(super) async fn write(&self, key: &CacheKey, commands: &Pipeline) {
        let refused = match self.send(commands).await {
            Ok(replies) => replies.into_iter().find_map(|reply| match reply {
                Value::ServerError(err) => Some(err.into()),
                _ => None,
            }),
            Err(err) => Some(err),
        };
        if let Some(err) = refused {
            self.could_not_write(key, err);
        }
    }
}
