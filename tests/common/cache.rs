//! Answers and caches for tests of the cache alone.

use std::sync::Arc;
use std::time::Duration;

use code_explainer_cache::{
    Cache, CacheConfig, CacheKey, CachedAnswer, CachedDelta, FinishReason, KeyParts, Level, Lookup,
    MacKey, RedisConfig, Selection, Timings,
};

use super::redis::{RedisServer, eventually};

/// Longer than any test: for Redis that is left alone to the end, or that must not be given up.
pub(crate) const LONG: Duration = Duration::from_secs(3600);
/// Longer than a loaded machine needs: for replies that must come.
pub(crate) const PATIENT: Duration = Duration::from_secs(20);
/// Failures in a row after which Redis is left alone.
pub(crate) const FAILURES: u64 = 5;

/// The secret of the installation that caches here belong to.
pub(crate) const SECRET: &str = "secret";

/// Keys the codes of what they put into Redis.
pub(crate) fn mac() -> MacKey {
    MacKey::new(SECRET.as_bytes())
}

/// The key of a snippet of Python, explained by "vanilla", of the tenant "test".
pub(crate) fn key(code: &str) -> CacheKey {
    key_of("test", "python", "vanilla", code)
}

/// The key of a snippet.
pub(crate) fn key_of(tenant: &str, language: &str, strategy: &str, code: &str) -> CacheKey {
    CacheKey::new(&KeyParts {
        secret: SECRET.as_bytes(),
        salt: tenant.as_bytes(),
        code: code.as_bytes(),
        language,
        strategy,
        ..KeyParts::default()
    })
}

/// Deltas of a word each, a millisecond after one another.
pub(crate) fn deltas(text: &str) -> Vec<CachedDelta> {
    (0..)
        .step_by(1000)
        .zip(text.split_inclusive(' ').map(str::to_owned))
        .map(|(at_us, text)| CachedDelta { text, at_us })
        .collect()
}

pub(crate) fn answer(text: &str) -> Arc<CachedAnswer> {
    Arc::new(CachedAnswer {
        deltas: deltas(text),
        finish_reason: FinishReason::Stop,
        prompt_tokens: 40,
        generated_tokens: 17,
        seed: u64::MAX,
        notes: vec!["outlined \"as far\" as it could be parsed 🌍".to_owned()],
        language: "python".to_owned(),
        timings: Timings {
            queue: Duration::from_nanos(1),
            prefill: Duration::from_millis(20),
            decode: Duration::from_micros(1_234_567),
        },
    })
}

/// A Redis that is waited for, and never given up.
pub(crate) fn patient(urls: Vec<String>) -> RedisConfig {
    RedisConfig {
        urls,
        timeout: PATIENT,
        cooldown: LONG,
        ..RedisConfig::new("")
    }
}

/// A replica without memory of its own, so that every look-up is one of Redis.
pub(crate) fn replica(redis: RedisConfig) -> Cache {
    let redis = RedisConfig {
        secret: SECRET.to_owned(),
        ..redis
    };
    let config = CacheConfig {
        size: 0,
        ttl: Duration::from_secs(600),
        redis: Some(redis),
        ..CacheConfig::default()
    };
    Cache::new(config).expect("a valid configuration")
}

/// A patient replica of a server.
pub(crate) fn replica_of(server: &RedisServer) -> Cache {
    replica(patient(vec![server.url()]))
}

pub(crate) async fn put_and_wait(cache: &Cache, key: CacheKey, answer: &Arc<CachedAnswer>) {
    cache.put(key, Arc::clone(answer));
    eventually("the answer is in Redis", async || found(cache, &key).await).await;
}

pub(crate) async fn found(cache: &Cache, key: &CacheKey) -> Option<Arc<CachedAnswer>> {
    match cache.lookup(key).await {
        Lookup::Hit(Level::Redis, answer) => Some(answer),
        _ => None,
    }
}

/// The name that an answer has in Redis.
pub(crate) fn redis_key(key: &CacheKey) -> String {
    let selection = Selection::new(
        SECRET.as_bytes(),
        Some(b"test"),
        Some("python"),
        Some("vanilla"),
    );
    format!("code-explainer:v3:{selection}:{{{key}}}")
}

/// A replica without memory of its own that waits for Redis, and leaves it alone, for so long.
pub(crate) fn impatient_replica(url: &str, timeout: Duration, cooldown: Duration) -> Cache {
    replica(RedisConfig {
        timeout,
        cooldown,
        ..RedisConfig::new(url)
    })
}

/// Look-ups that must miss, one after the other.
pub(crate) async fn misses(cache: &Cache, count: u64) {
    for _ in 0..count {
        assert_eq!(cache.lookup(&key("a")).await, Lookup::Miss);
    }
}
