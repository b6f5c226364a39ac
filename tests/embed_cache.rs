//! The cache of vectors on disk: what survives, what makes room, what is dropped.

use std::path::Path;

use code_explainer::embed::cache::FILE;
use code_explainer::embed::{CacheLimits, Embedding, VectorCache, VectorCacheError, VectorKey};

const DIMENSIONS: usize = 8;
const LIMITS: CacheLimits = CacheLimits {
    entries: 100,
    bytes: 1 << 20,
};

fn key(n: usize) -> VectorKey {
    VectorKey::new(b"salt", "model", &format!("text {n}"))
}

fn vector(n: usize) -> Embedding {
    Embedding {
        values: (0..DIMENSIONS).map(|i| (n * 31 + i) as f32).collect(),
        tokens: n as u32,
        truncated: n.is_multiple_of(2),
        cached: true,
    }
}

fn open(directory: Option<&Path>, model: &str, limits: CacheLimits) -> VectorCache {
    VectorCache::open(directory, model, DIMENSIONS, limits).expect("a cache")
}

fn put(cache: &VectorCache, numbers: impl IntoIterator<Item = usize>) {
    for n in numbers {
        cache.put(key(n), &vector(n));
    }
    cache.flush();
}

/// Which of the first are there; those that are, are right.
fn found(cache: &VectorCache, first: usize) -> Vec<usize> {
    let keys: Vec<VectorKey> = (0..first).map(key).collect();
    let found = cache.get(&keys).into_iter().enumerate();
    found
        .filter_map(|(n, e)| {
            assert_eq!(e.as_ref()?, &vector(n));
            Some(n)
        })
        .collect()
}

#[test]
fn vectors_survive_and_those_of_another_model_do_not() {
    let directory = tempfile::tempdir().expect("a directory");
    let place = Some(directory.path());
    let cache = open(place, "model", LIMITS);
    put(&cache, 0..10);
    assert_eq!(found(&cache, 12), Vec::from_iter(0..10));
    let stats = cache.stats();
    assert_eq!((stats.entries, stats.hits, stats.misses), (10, 10, 2));
    assert!(stats.persistent && stats.enabled);
    drop(cache);
    let cache = open(place, "model", LIMITS);
    assert_eq!(cache.stats().entries, 10);
    assert_eq!(found(&cache, 10).len(), 10);
    drop(cache);
    let other = open(place, "another model", LIMITS);
    assert_eq!(other.stats().entries, 0);
    assert!(found(&other, 10).is_empty());
}

#[test]
fn the_last_batch_is_written_when_the_cache_is_closed() {
    let directory = tempfile::tempdir().expect("a directory");
    let cache = open(Some(directory.path()), "model", LIMITS);
    cache.put(key(1), &vector(1));
    drop(cache);
    assert_eq!(
        found(&open(Some(directory.path()), "model", LIMITS), 3),
        [1]
    );
}

#[test]
fn the_least_recently_used_vectors_make_room_also_after_a_restart() {
    let directory = tempfile::tempdir().expect("a directory");
    let limits = CacheLimits {
        entries: 10,
        ..LIMITS
    };
    let cache = open(Some(directory.path()), "model", limits);
    put(&cache, 0..10);
    // The oldest is used, which keeps it.
    assert!(cache.get(&[key(0)])[0].is_some());
    cache.flush();
    drop(cache);
    let cache = open(Some(directory.path()), "model", limits);
    put(&cache, 10..13);
    assert_eq!(found(&cache, 13), [0, 4, 5, 6, 7, 8, 9, 10, 11, 12]);
    let stats = cache.stats();
    assert_eq!((stats.entries, stats.evictions), (10, 3));
}

#[test]
fn a_tenant_that_fills_the_cache_makes_room_by_its_own_also_after_a_restart() {
    let directory = tempfile::tempdir().expect("a directory");
    let limits = CacheLimits {
        entries: 10,
        ..LIMITS
    };
    let other: Vec<VectorKey> = (0..4)
        .map(|n| VectorKey::new(b"other", "model", &format!("text {n}")))
        .collect();
    let cache = open(Some(directory.path()), "model", limits);
    other.iter().for_each(|key| cache.put(*key, &vector(7)));
    put(&cache, 0..50);
    drop(cache);
    let cache = open(Some(directory.path()), "model", limits);
    put(&cache, 50..100);
    assert_eq!(cache.get(&other), vec![Some(vector(7)); 4]);
    assert_eq!(found(&cache, 100), [94, 95, 96, 97, 98, 99]);
}

#[test]
fn bytes_are_a_bound_too() {
    let one = {
        let cache = open(None, "model", LIMITS);
        put(&cache, 0..1);
        cache.stats().bytes
    };
    let cache = open(
        None,
        "model",
        CacheLimits {
            entries: 100,
            bytes: 3 * one,
        },
    );
    put(&cache, 0..20);
    let stats = cache.stats();
    assert_eq!((stats.entries, stats.bytes), (3, 3 * one));
    assert!(!stats.persistent);
}

#[test]
fn size_0_is_off() {
    let cache = open(
        None,
        "model",
        CacheLimits {
            entries: 0,
            ..LIMITS
        },
    );
    put(&cache, 0..3);
    assert!(found(&cache, 3).is_empty());
    assert!(!cache.stats().enabled);
}

#[test]
fn clearing_leaves_nothing_and_takes_new_ones() {
    let directory = tempfile::tempdir().expect("a directory");
    let cache = open(Some(directory.path()), "model", LIMITS);
    put(&cache, 0..10);
    cache.clear();
    assert_eq!(cache.stats().entries, 0);
    put(&cache, 3..4);
    drop(cache);
    assert_eq!(
        found(&open(Some(directory.path()), "model", LIMITS), 10),
        [3]
    );
}

#[test]
fn two_servers_cannot_share_a_file() {
    let directory = tempfile::tempdir().expect("a directory");
    let first = open(Some(directory.path()), "model", LIMITS);
    let second = VectorCache::open(Some(directory.path()), "model", DIMENSIONS, LIMITS);
    let problem = second
        .err()
        .map(|e: VectorCacheError| e.to_string())
        .expect("refused");
    assert!(problem.contains("--data-dir"), "{problem}");
    // The second server works without.
    let without = VectorCache::open_or_without(Some(directory.path()), "model", DIMENSIONS, LIMITS);
    assert!(!without.stats().enabled);
    put(&first, 0..1);
    assert_eq!(found(&first, 1), [0]);
}

/// Bytes anywhere in the file: it opens, perhaps empty, and gives no vector that was not put.
#[test]
fn a_damaged_file_gives_no_wrong_vector() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join(FILE);
    let cache = open(Some(directory.path()), "model", LIMITS);
    put(&cache, 0..50);
    drop(cache);
    let good = std::fs::read(&file).expect("the file");
    let (mut emptied, mut whole) = (0, 0);
    for round in 0..60_usize {
        let mut bytes = good.clone();
        let at = round * 7919 * 13 % bytes.len();
        match round % 3 {
            0 => bytes.truncate(at.max(1)),
            1 => bytes[at] ^= 1 << (round % 8),
            _ => {
                let end = (at + 64).min(bytes.len());
                bytes[at..end].fill(round as u8);
            }
        }
        std::fs::write(&file, &bytes).expect("written");
        let cache = open(Some(directory.path()), "model", LIMITS);
        match found(&cache, 50).len() {
            50 => whole += 1,
            0 => emptied += 1,
            _ => {}
        }
        put(&cache, 60..61);
        assert!(
            cache.get(&[key(60)])[0].is_some(),
            "round {round}: it works again"
        );
    }
    assert!(emptied > 0, "no damage was seen");
    assert!(whole > 0, "damage where nothing lies costs nothing");
}
