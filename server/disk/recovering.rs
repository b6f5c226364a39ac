//! A database that outlives trouble with its disk.
//!
//! redb takes nothing more from a database after an input or output error, until it has been opened again. So it is closed
//! at the first error, and a thread opens it again once its disk takes writes: after 1, 2, 4 seconds and so on, a minute at
//! most, for as long as it takes. Meanwhile who asks is told [`DiskError::Away`] at once. What was committed before is
//! there again afterwards.
//!
//! ## `Open => Away => Open`

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError, RwLock, Weak};
use std::time::Duration;

use redb::{Database, TableDefinition};

use super::{DiskError, DiskHealth};

/// How long before the first attempt to open it again; twice as long before each further one.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// What an attempt writes before the disk is believed: more than the embedding cache writes at once.
const PROBE_BYTES: usize = 1 << 20;
const PROBE: TableDefinition<'static, u8, &[u8]> = TableDefinition::new("probe");

/// Opens the database, each time that it is called.
pub type Opener = Box<dyn Fn() -> Result<Database, DiskError> + Send + Sync>;
/// Takes over what is in a database that has just been opened, before anybody else sees it.
pub type Adopter = Box<dyn Fn(&Database) -> Result<(), DiskError> + Send + Sync>;

/// A database that is closed when its disk fails, and opened again when it can be.
pub struct RecoveringDatabase {
    inner: Arc<Inner>,
}

struct Inner {
    /// For people.
    name: &'static str,
    open: Opener,
    adopt: Adopter,
    database: RwLock<Slot>,
    errors: AtomicU64,
    away: AtomicBool,
    /// A thread is about to open it.
    opening: AtomicBool,
    /// Since something was written that somebody asked for.
    failures: AtomicU32,
    first_wait: Duration,
    over: Arc<Over>,
}

#[derive(Default)]
struct Slot {
    /// The number of the opening, so that an error of a database that is gone does not close its successor.
    opening: u64,
    database: Option<Database>,
}

/// Ends the wait of the thread that opens, when nobody needs the database any more.
#[derive(Default)]
struct Over {
    over: Mutex<bool>,
    told: Condvar,
}

impl RecoveringDatabase {
    /// Opens it, or begins with an unavailable one where only the disk is in the way.
    ///
    /// # Errors
    /// What is wrong with the file: [`DiskError::InUse`], [`DiskError::Damaged`].
    pub fn open(name: &'static str, open: Opener, adopt: Adopter) -> Result<Self, DiskError> {
        Self::waiting(FIRST_WAIT, name, open, adopt)
    }

    fn waiting(
        first_wait: Duration,
        name: &'static str,
        open: Opener,
        adopt: Adopter,
    ) -> Result<Self, DiskError> {
        let inner = Arc::new(Inner {
            name,
            open,
            adopt,
            database: RwLock::default(),
            errors: AtomicU64::new(0),
            away: AtomicBool::new(false),
            opening: AtomicBool::new(false),
            failures: AtomicU32::new(0),
            first_wait,
            over: Arc::default(),
        });
        match inner.attempt(false) {
            Ok(()) => {}
            Err(error) if error.is_of_the_disk() => inner.trouble(&error),
            Err(error) => return Err(error),
        }
        Ok(Self { inner })
    }

    /// Looks something up.
    ///
    /// # Errors
    /// [`DiskError::Failed`] when the disk fails now, [`DiskError::Away`] until it works again.
    pub fn read<T>(
        &self,
        work: impl FnOnce(&Database) -> Result<T, redb::Error>,
    ) -> Result<T, DiskError> {
        self.run(work)
    }

    /// Changes something.
    ///
    /// # Errors
    /// As [`read`](Self::read). What an unfinished change has done is undone, unless it failed while it was committed: then
    /// the next [`Adopter`] sees whether it is there.
    pub fn write<T>(
        &self,
        work: impl FnOnce(&Database) -> Result<T, redb::Error>,
    ) -> Result<T, DiskError> {
        let done = self.run(work)?;
        self.inner.failures.store(0, Ordering::Relaxed);
        Ok(done)
    }

    /// How it fares.
    pub fn health(&self) -> DiskHealth {
        DiskHealth {
            away: self.inner.away.load(Ordering::Relaxed),
            errors: self.inner.errors.load(Ordering::Relaxed),
        }
    }

    fn run<T>(
        &self,
        work: impl FnOnce(&Database) -> Result<T, redb::Error>,
    ) -> Result<T, DiskError> {
        let (opening, error) = {
            let slot = self.inner.database.read();
            let slot = slot.unwrap_or_else(PoisonError::into_inner);
            let Some(database) = &slot.database else {
                self.inner.open_again();
                return Err(DiskError::Away {
                    name: self.inner.name,
                });
            };
            // A page that broke since the file was opened may make redb panic.
            let error = match catch_unwind(AssertUnwindSafe(|| work(database))) {
                Ok(Ok(done)) => return Ok(done),
                Ok(Err(error)) => DiskError::Failed(Box::new(error)),
                Err(_) => DiskError::Broken {
                    name: self.inner.name,
                },
            };
            (slot.opening, error)
        };
        if error.is_of_the_disk() {
            self.inner.close(opening, &error);
        }
        Err(error)
    }
}

impl Drop for RecoveringDatabase {
    fn drop(&mut self) {
        let over = self.inner.over.over.lock();
        *over.unwrap_or_else(PoisonError::into_inner) = true;
        self.inner.over.told.notify_all();
    }
}

impl Inner {
    fn close(self: &Arc<Self>, opening: u64, error: &DiskError) {
        let closed = {
            let slot = self.database.write();
            let mut slot = slot.unwrap_or_else(PoisonError::into_inner);
            if slot.opening != opening {
                return;
            }
            slot.database.take()
        };
        let Some(database) = closed else {
            return;
        };
        // It tries to write what it still knows.
        if catch_unwind(AssertUnwindSafe(|| drop(database))).is_err() {
            tracing::warn!(database = self.name, "closing a failed database panicked");
        }
        self.trouble(error);
    }

    fn trouble(self: &Arc<Self>, error: &DiskError) {
        self.errors.fetch_add(1, Ordering::Relaxed);
        self.away.store(true, Ordering::Relaxed);
        tracing::warn!(
            database = self.name,
            %error,
            "the disk fails; going on without, and trying again"
        );
        self.open_again();
    }

    /// Starts the thread that opens the database again, unless there is one.
    fn open_again(self: &Arc<Self>) {
        if self.opening.swap(true, Ordering::AcqRel) {
            return;
        }
        let (this, over, first) = (Arc::downgrade(self), self.over.clone(), self.first_wait);
        let thread = std::thread::Builder::new().name("disk-recovery".into());
        let started = thread.spawn(move || open_until_it_works(&this, &over, first));
        if let Err(error) = started {
            // Who asks next tries again.
            self.opening.store(false, Ordering::Release);
            tracing::warn!(%error, "no thread to open a database again");
        }
    }

    fn attempt(&self, probe: bool) -> Result<(), DiskError> {
        let opened = catch_unwind(AssertUnwindSafe(|| -> Result<Database, DiskError> {
            let database = (self.open)()?;
            if probe {
                try_out(&database).map_err(|error| DiskError::Failed(Box::new(error)))?;
            }
            (self.adopt)(&database)?;
            Ok(database)
        }));
        let broken = DiskError::Broken { name: self.name };
        let database = opened.unwrap_or(Err(broken))?;
        let slot = self.database.write();
        let mut slot = slot.unwrap_or_else(PoisonError::into_inner);
        // Before anybody can find the next trouble.
        self.away.store(false, Ordering::Relaxed);
        self.opening.store(false, Ordering::Release);
        slot.opening += 1;
        slot.database = Some(database);
        Ok(())
    }
}

fn open_until_it_works(inner: &Weak<Inner>, over: &Over, first: Duration) {
    loop {
        let failures = match inner.upgrade() {
            Some(inner) => inner.failures.fetch_add(1, Ordering::Relaxed),
            None => return,
        };
        let wait = first.saturating_mul(1 << failures.min(16));
        let is_over = over.over.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = (over.told).wait_timeout_while(is_over, wait.min(LONGEST_WAIT), |over| !*over);
        if *waited.unwrap_or_else(PoisonError::into_inner).0 {
            return;
        }
        let Some(inner) = inner.upgrade() else {
            return;
        };
        match inner.attempt(true) {
            Ok(()) => {
                tracing::info!(database = inner.name, "the disk works again");
                return;
            }
            Err(error) => {
                inner.errors.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(database = inner.name, %error, "the disk still fails");
            }
        }
    }
}

/// Whether the disk takes a good deal: an empty commit finds room where nothing else does.
fn try_out(database: &Database) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    (transaction.open_table(PROBE)?).insert(0_u8, vec![0_u8; PROBE_BYTES].as_slice())?;
    transaction.commit()?;
    let transaction = database.begin_write()?;
    transaction.delete_table(PROBE)?;
    Ok(transaction.commit()?)
}

#[cfg(test)]
#[path = "recovering_tests.rs"]
mod tests;
