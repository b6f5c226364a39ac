//! Level 1: answers in this process's memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use moka::Expiry;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;

use super::answer::CachedAnswer;
use super::key::CacheKey;

/// Answers in memory. At the bound the least recently used one makes room.
#[derive(Debug)]
pub(super) struct Memory {
    entries: Cache<CacheKey, Entry>,
    /// Bytes of all answers that moka holds, those evicted but not yet swept out included.
    bytes: Arc<AtomicU64>,
}

#[derive(Debug, Clone)]
struct Entry {
    answer: Arc<CachedAnswer>,
    bytes: u64,
    time_to_live: Duration,
}

impl Memory {
    /// Room for `capacity` answers.
    pub(super) fn new(capacity: u64) -> Self {
        let bytes = Arc::new(AtomicU64::new(0));
        let listener = {
            let bytes = Arc::clone(&bytes);
            move |_key: Arc<CacheKey>, entry: Entry, _cause| {
                bytes.fetch_sub(entry.bytes, Ordering::Relaxed);
            }
        };
        let entries = Cache::builder()
            .max_capacity(capacity)
            .eviction_policy(EvictionPolicy::lru())
            .expire_after(OwnTimeToLive)
            .eviction_listener(listener)
            .build();
        Self { entries, bytes }
    }

    /// The answer of a key, which becomes the most recently used one.
    pub(super) fn get(&self, key: &CacheKey) -> Option<Arc<CachedAnswer>> {
        self.entries.get(key).map(|entry| entry.answer)
    }

    /// Keeps an answer for `time_to_live`, in place of the one that the key had.
    pub(super) fn put(&self, key: CacheKey, answer: Arc<CachedAnswer>, time_to_live: Duration) {
        let bytes = answer.size_bytes() as u64;
        // Counted before it is in, so that its removal never finds too few bytes.
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.entries.insert(
            key,
            Entry {
                answer,
                bytes,
                time_to_live,
            },
        );
    }

    /// Number of answers and their bytes, after sweeping out what was evicted. Expired answers are never found, but
    /// moka's timer wheel frees them, and they are counted here, up to a second or two longer.
    pub(super) fn usage(&self) -> (u64, u64) {
        self.entries.run_pending_tasks();
        (
            self.entries.entry_count(),
            self.bytes.load(Ordering::Relaxed),
        )
    }
}

/// Each entry says itself how long it lives: an answer that came from Redis has only the rest of its time left.
struct OwnTimeToLive;

impl Expiry<CacheKey, Entry> for OwnTimeToLive {
    fn expire_after_create(&self, _: &CacheKey, entry: &Entry, _: Instant) -> Option<Duration> {
        Some(entry.time_to_live)
    }

    fn expire_after_update(
        &self,
        _: &CacheKey,
        entry: &Entry,
        _: Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        Some(entry.time_to_live)
    }
}
