//! Streams that can be gone on with after their connection is lost, by a token that nobody can guess.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use crate::session::Session;

/// How long and how much of a stream is kept after its connection is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResumeOptions {
    /// How long; zero: not at all.
    pub ttl: Duration,
    /// Streams that can be resumed at most; more are served without.
    pub sessions: usize,
    /// Finished answers of a stream that are kept, in bytes; the oldest are forgotten first.
    pub bytes: usize,
}

/// The streams that can be resumed. A token of another server, or of before a restart, is not known here.
#[derive(Debug)]
pub struct Sessions {
    pub(super) options: ResumeOptions,
    /// By a hash of the token, so that the time of a look-up tells nothing about tokens.
    known: Mutex<HashMap<[u8; 32], Weak<Session>>>,
}

impl Sessions {
    /// None yet.
    pub fn new(options: ResumeOptions) -> Self {
        Self {
            options,
            known: Mutex::default(),
        }
    }

    /// A token for the session; `None` where there are too many, or none is kept at all.
    pub fn register(&self, session: &Arc<Session>) -> Option<String> {
        if self.options.ttl.is_zero() {
            return None;
        }
        let token = token()?;
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= self.options.sessions {
            known.retain(|_, session| session.strong_count() > 0);
        }
        if known.len() >= self.options.sessions {
            return None;
        }
        known.insert(digest(&token), Arc::downgrade(session));
        Some(token)
    }

    /// The tenant's session of this token, if it is still there.
    pub fn find(&self, token: &str, tenant: &str) -> Option<Arc<Session>> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let session = known.get(&digest(token))?.upgrade()?;
        (*session.identity.tenant == *tenant).then_some(session)
    }
}

/// 128 random bits; `None` where the system has none to give.
fn token() -> Option<String> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)
        .inspect_err(|error| tracing::error!(%error, "no random bytes for a token"))
        .ok()?;
    Some(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn digest(token: &str) -> [u8; 32] {
    *blake3::hash(token.as_bytes()).as_bytes()
}
