//! Answers as values in Redis: which are written, which are believed, and how they are cleared.

use std::sync::Arc;

use code_explainer_cache::{Cache, CacheConfig, Level, Lookup, RedisConfig, Selection};
use redis::AsyncCommands;
use redis::aio::MultiplexedConnection;

use crate::common::cache::{
    FAILURES, LONG, PATIENT, answer, found, impatient_replica, key, key_of, mac, misses,
    put_and_wait, redis_key, replica_of,
};
use crate::common::redis::{RedisServer, eventually};

/// The longest value, before it is compressed.
const LIMIT: usize = 1 << 20;

#[tokio::test]
async fn values_that_are_no_answer_are_dropped_counted_and_replaced() {
    let server = RedisServer::start();
    let cache = impatient_replica(&server.url(), PATIENT, LONG);
    let mut raw = server.connection().await;
    let (name, valid) = (
        redis_key(&key("a")),
        answer("a").encode(&mac(), &key("a"), LIMIT).expect("small"),
    );
    let mut future_version = valid.clone();
    future_version[4] += 1;
    let mut flipped = valid.clone();
    *flipped.last_mut().expect("not empty") ^= 1;
    let of_another_key = answer("a").encode(&mac(), &key("b"), LIMIT).expect("small");
    let too_large = vec![b'x'; (1 << 20) + 1];
    let broken: [&[u8]; 7] = [
        b"garbage",
        b"{\"deltas\":[]}",
        &future_version,
        &flipped,
        &of_another_key,
        &valid[..valid.len() / 2],
        &too_large,
    ];
    let mut count = 0;
    for value in broken {
        let () = raw.set(&name, value).await.expect("SET");
        misses(&cache, 1).await;
        count += 1;
        let start = value[..7].escape_ascii();
        assert_eq!(broken_values(&cache), count, "{start}");
        gone(&mut raw, &name).await;
    }
    // More often than the breaker forgives: a server with bad values is not a bad server.
    for _ in 0..2 * FAILURES {
        let () = raw.rpush(&name, "a list").await.expect("RPUSH");
        misses(&cache, 1).await;
        count += 1;
        gone(&mut raw, &name).await;
    }

    let stats = cache.stats();
    assert_eq!(broken_values(&cache), count);
    // By kind: not authentic, no answer, too large, right but no answer inside.
    assert_eq!(stats.broken_values, [3, 3 + 2 * FAILURES, 1, 0]);
    assert_eq!(stats.redis_errors, 0);
    assert!(stats.redis_available);
    put_and_wait(&cache, key("a"), &answer("a")).await;
}

fn broken_values(cache: &Cache) -> u64 {
    cache.stats().broken_values.iter().sum()
}

/// Waits until a broken value has been removed.
async fn gone(raw: &mut MultiplexedConnection, name: &str) {
    let gone = async || {
        let exists: bool = raw.exists(name).await.expect("EXISTS");
        (!exists).then_some(())
    };
    eventually("the broken value is removed", gone).await;
}

#[tokio::test]
async fn a_selection_is_cleared_and_nothing_else() {
    let server = RedisServer::start();
    let cache = replica_of(&server);
    let mut raw = server.connection().await;
    let () = raw.set("somebody:else", "x").await.expect("SET");
    let kinds = [
        ("a", "python", "vanilla"),
        ("a", "rust", "vanilla"),
        ("a", "rust", "ast_augmented"),
        ("b", "python", "vanilla"),
        ("b", "rust", "vanilla"),
    ];
    for (tenant, language, strategy) in kinds {
        for code in 0..300 {
            let key = key_of(tenant, language, strategy, &code.to_string());
            let name = format!(
                "code-explainer:v3:{}:{{{key}}}",
                Selection::new(
                    b"secret",
                    Some(tenant.as_bytes()),
                    Some(language),
                    Some(strategy)
                )
            );
            let value = answer("a").encode(&mac(), &key, LIMIT).expect("small");
            let () = raw.set(name, value).await.expect("SET");
        }
    }
    let usage = cache.remote_usage().await.expect("a Redis").expect("works");
    assert_eq!(usage.keys, 1501);
    assert!(usage.used_bytes > 300_000, "{usage:?}");
    let clear = async |tenant: Option<&str>, language, strategy| {
        let tenant = tenant.map(str::as_bytes);
        let selection = Selection::new(b"secret", tenant, language, strategy);
        let cleared = cache.clear_remote(&selection).await;
        cleared.expect("a Redis").expect("it works")
    };
    let has = async |(tenant, language, strategy)| {
        let key = key_of(tenant, language, strategy, "7");
        found(&cache, &key).await.is_some()
    };
    assert_eq!(clear(Some("c"), None, None).await, 0);
    assert_eq!(clear(Some("a"), Some("rust"), None).await, 600);
    assert!(has(kinds[0]).await && has(kinds[4]).await);
    assert!(!has(kinds[1]).await && !has(kinds[2]).await);
    assert_eq!(clear(None, Some("python"), Some("vanilla")).await, 600);
    assert!(!has(kinds[0]).await && !has(kinds[3]).await);
    assert_eq!(clear(None, None, None).await, 300);
    let left: Vec<String> = raw.keys("*").await.expect("KEYS");
    assert_eq!(left, ["somebody:else"]);
}

#[tokio::test]
async fn an_answer_that_is_too_large_as_a_value_is_not_written() {
    let server = RedisServer::start();
    let redis = RedisConfig {
        timeout: PATIENT,
        ..RedisConfig::new(server.url())
    };
    // Control characters take one byte in memory and six in the value.
    let large = answer(&"\u{1}".repeat(10_000));
    let config = CacheConfig {
        max_answer_bytes: large.size_bytes(),
        redis: Some(redis),
        ..CacheConfig::default()
    };
    let cache = Cache::new(config).expect("valid");
    cache.put(key("a"), Arc::clone(&large));
    let dropped = async || (cache.stats().dropped_puts == 1).then_some(());
    eventually("the write is dropped", dropped).await;
    let exists: bool = server
        .connection()
        .await
        .exists(redis_key(&key("a")))
        .await
        .expect("EXISTS");
    assert!(!exists);
    assert_eq!(
        cache.lookup(&key("a")).await,
        Lookup::Hit(Level::Memory, large)
    );
}
