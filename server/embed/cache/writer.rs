//! The thread that writes: gathers what comes, and syncs it as one transaction.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::time::{Duration, Instant};

use redb::{Database, ReadableTable, ReadableTableMetadata};

use super::shares::Shares;
use super::value::{self, VectorKey};
use super::{Counters, ORDER, VECTORS};
use crate::disk::{DiskError, RecoveringDatabase};

/// The oldest write of a batch waits so long for others.
pub(super) const SYNC_EVERY: Duration = Duration::from_millis(200);
/// Writes of a batch at most.
const BATCH: usize = 512;
/// Writes that wait at most; more are dropped and counted. 14 MB of vectors of 384 numbers.
const BACKLOG: usize = 8192;

enum Change {
    Put(VectorKey, Vec<u8>),
    Touch(VectorKey),
    Remove(VectorKey),
    Clear,
    /// To be told when all before it is on disk.
    Flush(Sender<()>),
}

pub(super) struct Writer {
    changes: Option<SyncSender<Change>>,
    thread: Option<std::thread::JoinHandle<()>>,
    counters: Arc<Counters>,
}

impl Writer {
    pub(super) fn start(
        database: Arc<RecoveringDatabase>,
        counters: Arc<Counters>,
        limit: u64,
    ) -> std::io::Result<Self> {
        let (changes, incoming) = sync_channel(BACKLOG);
        let shared = counters.clone();
        let thread = std::thread::Builder::new().name("embedding-cache".into());
        let thread = thread.spawn(move || run(&database, &shared, limit, &incoming))?;
        Ok(Self {
            changes: Some(changes),
            thread: Some(thread),
            counters,
        })
    }

    pub(super) fn put(&self, key: VectorKey, value: Vec<u8>) {
        if !self.send(Change::Put(key, value)) {
            self.counters.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A use that is not noted costs an entry its place in the order, no more.
    pub(super) fn touch(&self, key: VectorKey) {
        self.send(Change::Touch(key));
    }

    pub(super) fn remove(&self, key: VectorKey) {
        self.send(Change::Remove(key));
    }

    pub(super) fn clear(&self) {
        if let Some(changes) = &self.changes {
            let _ = changes.send(Change::Clear);
        }
        self.flush();
    }

    pub(super) fn flush(&self) {
        let (done, wait) = channel();
        if let Some(changes) = &self.changes
            && changes.send(Change::Flush(done)).is_ok()
        {
            // An error: the thread has ended, so that there is nothing to wait for.
            let _ = wait.recv();
        }
    }

    fn send(&self, change: Change) -> bool {
        self.changes
            .as_ref()
            .is_some_and(|changes| changes.try_send(change).is_ok())
    }
}

/// The last batch is written before the cache is gone.
impl Drop for Writer {
    fn drop(&mut self) {
        self.changes = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn run(
    database: &RecoveringDatabase,
    counters: &Counters,
    limit: u64,
    incoming: &Receiver<Change>,
) {
    while let Ok(first) = incoming.recv() {
        let (mut batch, mut flushed) = (Vec::new(), Vec::new());
        let until = Instant::now() + SYNC_EVERY;
        let mut next = Some(first);
        loop {
            match next.take() {
                Some(Change::Flush(done)) => {
                    flushed.push(done);
                    break;
                }
                Some(change) => batch.push(change),
                None => {}
            }
            if batch.len() >= BATCH {
                break;
            }
            match incoming.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(change) => next = Some(change),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
            }
        }
        if counters.clear.swap(false, Ordering::Relaxed) {
            batch.insert(0, Change::Clear);
        }
        let puts = batch
            .iter()
            .filter(|c| matches!(c, Change::Put(..)))
            .count() as u64;
        let clears = batch.iter().any(|c| matches!(c, Change::Clear));
        if let Err(error) = database.write(|database| write(database, counters, limit, batch)) {
            if !matches!(error, DiskError::Away { .. }) {
                tracing::warn!(%error, vectors = puts, "the embedding cache cannot be written");
            }
            counters.dropped.fetch_add(puts, Ordering::Relaxed);
            // Then it is done with the next batch, or when the disk works again.
            counters.clear.fetch_or(clears, Ordering::Relaxed);
        }
        for done in flushed {
            let _ = done.send(());
        }
    }
}

/// One transaction, on disk when this returns.
fn write(
    database: &Database,
    counters: &Counters,
    limit: u64,
    batch: Vec<Change>,
) -> Result<(), redb::Error> {
    if batch.is_empty() {
        return Ok(());
    }
    let transaction = database.begin_write()?;
    let mut evicted = 0;
    // Where the transaction fails, they are read anew when the database is opened again.
    let mut shares = counters.shares();
    let entries = {
        let mut vectors = transaction.open_table(VECTORS)?;
        let mut order = transaction.open_table(ORDER)?;
        let mut touched = HashSet::new();
        for change in batch {
            let (key, value) = match change {
                Change::Put(key, value) => (key, Some(value)),
                Change::Touch(key) if touched.insert(key) => {
                    let stored = vectors.get(key.as_bytes())?;
                    (key, stored.map(|value| value.value().to_vec()))
                }
                Change::Remove(key) => (key, None),
                Change::Clear => {
                    vectors.retain(|_, _| false)?;
                    order.retain(|_, _| false)?;
                    *shares = Shares::default();
                    continue;
                }
                Change::Touch(_) | Change::Flush(_) => continue,
            };
            let old = vectors
                .remove(key.as_bytes())?
                .and_then(|value| value::used(value.value()));
            let owner = VectorKey::owner(key.as_bytes());
            if let Some(used) = old {
                order.remove(used)?;
                shares.remove(owner, used);
            }
            if let Some(mut value) = value {
                let used = counters.sequence.fetch_add(1, Ordering::Relaxed);
                value::set_used(&mut value, used);
                vectors.insert(key.as_bytes(), value.as_slice())?;
                order.insert(used, key.as_bytes())?;
                shares.insert(owner, used);
            }
        }
        while vectors.len()? > limit {
            let oldest = match shares.make_room() {
                Some(used) => order.remove(used)?.map(|key| *key.value()),
                None => None,
            };
            let Some(oldest) = oldest else {
                // The order is lost, which only a damaged file has: begin again.
                vectors.retain(|_, _| false)?;
                order.retain(|_, _| false)?;
                *shares = Shares::default();
                break;
            };
            vectors.remove(&oldest)?;
            evicted += 1;
        }
        vectors.len()?
    };
    transaction.commit()?;
    counters.entries.store(entries, Ordering::Relaxed);
    counters.evictions.fetch_add(evicted, Ordering::Relaxed);
    Ok(())
}
