//! Streams that can be gone on with after their connection is lost, by a token that nobody can guess.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use crate::explain::Outlet;
use crate::session::Session;

/// Length of a token: 128 bits in hexadecimal digits.
const TOKEN_BYTES: usize = 32;

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
///
/// When there are as many as there may be, a tenant takes the place of one of its own that is over. Where it has none, and
/// fewer than another, it takes one of those of who has most: of the oldest that is over, else of the oldest whose client is
/// away, else of the oldest, which is then served without. So no tenant keeps another from an equal share.
#[derive(Debug)]
pub struct Sessions {
    pub(super) options: ResumeOptions,
    table: Arc<Mutex<Table>>,
}

#[derive(Debug, Default)]
struct Table {
    /// By a hash of the token, so that the time of a look-up tells nothing about tokens.
    known: HashMap<Digest, Known>,
    /// Those of each tenant, oldest first.
    tenants: HashMap<Arc<str>, BTreeMap<u64, Digest>>,
    /// How many there have been.
    registered: u64,
}

type Digest = [u8; 32];

#[derive(Debug)]
struct Known {
    session: Weak<Session>,
    out: Outlet,
}

/// A session's place among those that can be resumed; given back when it is dropped with the session.
#[derive(Debug)]
pub(super) struct Registration {
    table: Arc<Mutex<Table>>,
    tenant: Arc<str>,
    number: u64,
}

impl Sessions {
    /// None yet.
    pub fn new(options: ResumeOptions) -> Self {
        Self {
            options,
            table: Arc::default(),
        }
    }

    /// A token for the session, and its place; `None` where there are too many, or none is kept at all. Another session
    /// may have to make room, which is given, and is to be told.
    pub(super) fn register(
        &self,
        session: &Arc<Session>,
    ) -> Option<(String, Registration, Option<Arc<Session>>)> {
        if self.options.ttl.is_zero() {
            return None;
        }
        let token = token()?;
        let tenant = &session.identity.tenant;
        let mut table = lock(&self.table);
        let displaced = if table.known.len() < self.options.sessions {
            None
        } else {
            Some(table.make_room(tenant)?)
        };
        let number = table.registered;
        table.registered += 1;
        let digest = digest(&token);
        let of_tenant = table.tenants.entry(tenant.clone()).or_default();
        of_tenant.insert(number, digest);
        let known = Known {
            session: Arc::downgrade(session),
            out: session.out.clone(),
        };
        table.known.insert(digest, known);
        drop(table);
        let registration = Registration {
            table: self.table.clone(),
            tenant: tenant.clone(),
            number,
        };
        // Only here: a session that ends gives its own place back.
        let displaced = displaced.and_then(|session| session.upgrade());
        Some((token, registration, displaced))
    }

    /// The tenant's session of this token, if it is still there.
    pub fn find(&self, token: &str, tenant: &str) -> Option<Arc<Session>> {
        if token.len() != TOKEN_BYTES {
            return None;
        }
        let digest = digest(token);
        let found = lock(&self.table).known.get(&digest)?.session.clone();
        let session = found.upgrade()?;
        (*session.identity.tenant == *tenant).then_some(session)
    }
}

impl Table {
    /// Takes one out: the tenant's own that is over, else one of those of who has most, if that is more than the tenant would
    /// have. `None`: there is none.
    fn make_room(&mut self, tenant: &Arc<str>) -> Option<Weak<Session>> {
        if let Some(number) = self.oldest(tenant, Outlet::is_over) {
            return self.take(tenant, number);
        }
        let own = self.tenants.get(tenant).map_or(0, BTreeMap::len);
        let sizes = self.tenants.iter().map(|(name, of)| (of.len(), name));
        let (most, largest) = sizes.max()?;
        if own + 1 < most {
            let largest = largest.clone();
            let number = (self.oldest(&largest, Outlet::is_over))
                .or_else(|| self.oldest(&largest, Outlet::is_detached))
                .or_else(|| self.oldest(&largest, |_| true))?;
            return self.take(&largest, number);
        }
        if own > 0 {
            return None;
        }
        // With one for each, who has none at all is before one that is over.
        let over = |name: &Arc<str>| Some((name.clone(), self.oldest(name, Outlet::is_over)?));
        let (name, number) = self.tenants.keys().find_map(over)?;
        self.take(&name, number)
    }

    /// The tenant's oldest of which this is so.
    fn oldest(&self, tenant: &Arc<str>, is: fn(&Outlet) -> bool) -> Option<u64> {
        let known = |digest: &Digest| self.known.get(digest).is_some_and(|known| is(&known.out));
        let mut all = self.tenants.get(tenant)?.iter();
        all.find(|(_, digest)| known(digest))
            .map(|(number, _)| *number)
    }

    fn take(&mut self, tenant: &Arc<str>, number: u64) -> Option<Weak<Session>> {
        let of_tenant = self.tenants.get_mut(tenant)?;
        let digest = of_tenant.remove(&number)?;
        if of_tenant.is_empty() {
            self.tenants.remove(tenant);
        }
        self.known.remove(&digest).map(|known| known.session)
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        // One that had to make room is not there any more.
        let _ = lock(&self.table).take(&self.tenant, self.number);
    }
}

/// No session is dropped under it, since that gives its place back.
fn lock(table: &Mutex<Table>) -> MutexGuard<'_, Table> {
    // Each operation leaves it whole.
    table.lock().unwrap_or_else(PoisonError::into_inner)
}

/// 128 random bits; `None` where the system has none to give.
fn token() -> Option<String> {
    let mut bytes = [0; TOKEN_BYTES / 2];
    getrandom::fill(&mut bytes)
        .inspect_err(|error| tracing::error!(%error, "no random bytes for a token"))
        .ok()?;
    Some(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn digest(token: &str) -> Digest {
    *blake3::hash(token.as_bytes()).as_bytes()
}
