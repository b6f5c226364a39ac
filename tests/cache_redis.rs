//! Level 2 of the cache, on a real Redis: shared by replicas, and never in the way when it fails.

use std::sync::Arc;
use std::time::Duration;

use code_explainer::cache::{Cache, CacheConfig, CacheKey, Level, Lookup, RedisConfig, Selection};
use redis::AsyncCommands;
use redis::aio::MultiplexedConnection;

use crate::common::cache::{
    FAILURES, LONG, PATIENT, answer, found, key, key_of, put_and_wait, replica_of,
};
use crate::common::redis::{RedisServer, eventually};

/// For replies that do not come.
const SHORT: Duration = Duration::from_millis(50);
/// The longest value, before it is compressed.
const LIMIT: usize = 1 << 20;
const TTL: Duration = Duration::from_secs(600);

/// The name that an answer has in Redis.
fn redis_key(key: &CacheKey) -> String {
    let selection = Selection::new(b"secret", Some(b"test"), Some("python"), Some("vanilla"));
    format!("code-explainer:v2:{selection}:{{{key}}}")
}

/// A replica without memory of its own, so that every look-up is one of Redis.
fn replica(url: &str, timeout: Duration, cooldown: Duration) -> Cache {
    crate::common::cache::replica(RedisConfig {
        timeout,
        cooldown,
        ..RedisConfig::new(url)
    })
}

/// Look-ups that must miss, one after the other.
async fn misses(cache: &Cache, count: u64) {
    for _ in 0..count {
        assert_eq!(cache.lookup(&key("a")).await, Lookup::Miss);
    }
}

#[tokio::test]
async fn what_one_replica_put_another_one_finds() {
    let server = RedisServer::start();
    let config = |redis| CacheConfig {
        redis: Some(redis),
        ..CacheConfig::default()
    };
    let redis = RedisConfig {
        timeout: PATIENT,
        ..RedisConfig::new(server.url())
    };
    let (one, other) = (Cache::new(config(redis.clone())), Cache::new(config(redis)));
    let (one, other) = (one.expect("valid"), other.expect("valid"));
    assert_eq!(one.lookup(&key("a")).await, Lookup::Miss);
    let put = answer("This adds two numbers.");
    one.put(key("a"), Arc::clone(&put));
    assert_eq!(
        one.lookup(&key("a")).await,
        Lookup::Hit(Level::Memory, Arc::clone(&put))
    );

    let got = eventually("the answer is shared", async || {
        found(&other, &key("a")).await
    })
    .await;
    assert_eq!(got, put);
    // It was promoted: the next look-up does not leave the process.
    assert_eq!(
        other.lookup(&key("a")).await,
        Lookup::Hit(Level::Memory, put)
    );
    let stats = other.stats();
    assert_eq!(
        (stats.memory_hits, stats.redis_hits, stats.memory_entries),
        (1, 1, 1)
    );
    assert_eq!(
        (stats.redis_errors, stats.broken_values, stats.dropped_puts),
        (0, 0, 0)
    );
    assert!(stats.redis_configured && stats.redis_available);
}

#[tokio::test]
async fn answers_expire_in_redis_and_promoted_ones_with_them() {
    let server = RedisServer::start();
    let writer = replica(&server.url(), PATIENT, LONG);
    put_and_wait(&writer, key("a"), &answer("a")).await;
    let mut raw = server.connection().await;
    let left: i64 = raw.pttl(redis_key(&key("a"))).await.expect("PTTL");
    assert!((1..=TTL.as_millis() as i64).contains(&left), "{left}");

    // The reader would keep its own answers for ten minutes, but this one has only three seconds left.
    let redis = RedisConfig {
        timeout: PATIENT,
        ..RedisConfig::new(server.url())
    };
    let reader = CacheConfig {
        ttl: TTL,
        redis: Some(redis),
        ..CacheConfig::default()
    };
    let reader = Cache::new(reader).expect("valid");
    let () = raw
        .pexpire(redis_key(&key("a")), 3_000)
        .await
        .expect("PEXPIRE");
    assert!(found(&reader, &key("a")).await.is_some());
    assert!(matches!(
        reader.lookup(&key("a")).await,
        Lookup::Hit(Level::Memory, _)
    ));
    let expired = async || (reader.lookup(&key("a")).await == Lookup::Miss).then_some(());
    eventually("the promoted answer has expired", expired).await;
}

#[tokio::test]
async fn a_redis_that_starts_late_is_found() {
    let mut server = RedisServer::start();
    server.kill();
    let cache = replica(&server.url(), PATIENT, Duration::from_millis(20));
    misses(&cache, 2 * FAILURES).await;
    // It may have been probed meanwhile, but nothing was asked of it.
    assert_eq!(cache.stats().redis_errors, FAILURES);
    assert!(!cache.stats().redis_available);
    server.restart();
    let available = async || {
        misses(&cache, 1).await;
        cache.stats().redis_available.then_some(())
    };
    eventually("the breaker has closed", available).await;
    put_and_wait(&cache, key("a"), &answer("a")).await;
}

#[tokio::test]
async fn a_killed_redis_costs_answers_but_no_errors_and_is_found_again() {
    let mut server = RedisServer::start();
    let cache = replica(&server.url(), PATIENT, Duration::from_millis(20));
    put_and_wait(&cache, key("a"), &answer("a")).await;
    server.kill();
    misses(&cache, FAILURES).await;
    assert!(!cache.stats().redis_available);
    cache.put(key("a"), answer("a"));
    assert_eq!(cache.stats().dropped_puts, 1);

    server.restart();
    let recovered = async || {
        cache.put(key("b"), answer("b"));
        found(&cache, &key("b")).await
    };
    eventually("answers are shared again", recovered).await;
    assert!(cache.stats().redis_available);
}

#[tokio::test]
async fn a_connection_that_was_cut_while_idle_is_made_anew() {
    let server = RedisServer::start();
    let cache = replica(&server.url(), PATIENT, LONG);
    put_and_wait(&cache, key("a"), &answer("a")).await;
    let mut raw = server.connection().await;
    let () = redis::cmd("CLIENT")
        .arg(&["KILL", "TYPE", "normal", "SKIPME", "yes"])
        .query_async(&mut raw)
        .await
        .expect("CLIENT KILL");
    let hit = async || found(&cache, &key("a")).await;
    eventually("the answer is found over a new connection", hit).await;
    assert!(cache.stats().redis_errors <= 1, "{:?}", cache.stats());
}

#[tokio::test]
async fn a_redis_that_does_not_answer_is_skipped_after_five_timeouts() {
    let server = RedisServer::start();
    let cache = replica(&server.url(), PATIENT, LONG);
    put_and_wait(&cache, key("a"), &answer("a")).await;
    let cache = replica(&server.url(), SHORT, LONG);
    server.pause();
    let all = misses(&cache, FAILURES);
    tokio::time::timeout(PATIENT, all)
        .await
        .expect("each look-up waits for its own timeout");
    let stats = cache.stats();
    assert_eq!((stats.redis_errors, stats.misses), (FAILURES, FAILURES));
    assert!(!stats.redis_available);

    misses(&cache, 1_000).await;
    cache.put(key("b"), answer("b"));
    let stats = cache.stats();
    assert_eq!(
        (stats.redis_errors, stats.misses),
        (FAILURES, FAILURES + 1_000)
    );
    assert_eq!(stats.dropped_puts, 1);
    server.resume();
}

#[tokio::test]
async fn a_redis_that_answers_again_is_used_again() {
    let server = RedisServer::start();
    let writer = replica(&server.url(), PATIENT, LONG);
    put_and_wait(&writer, key("a"), &answer("a")).await;
    let cache = replica(
        &server.url(),
        Duration::from_millis(200),
        Duration::from_millis(20),
    );
    eventually("the answer is found", async || {
        found(&cache, &key("a")).await
    })
    .await;
    server.pause();
    misses(&cache, FAILURES).await;
    assert!(!cache.stats().redis_available);
    misses(&cache, 10).await;
    server.resume();
    eventually("the answer is found", async || {
        found(&cache, &key("a")).await
    })
    .await;
    assert!(cache.stats().redis_available);
}

#[tokio::test]
async fn values_that_are_no_answer_are_dropped_counted_and_replaced() {
    let server = RedisServer::start();
    let cache = replica(&server.url(), PATIENT, LONG);
    let mut raw = server.connection().await;
    let (name, valid) = (
        redis_key(&key("a")),
        answer("a").encode(&key("a"), LIMIT).expect("small"),
    );
    let mut future_version = valid.clone();
    future_version[4] += 1;
    let mut flipped = valid.clone();
    *flipped.last_mut().expect("not empty") ^= 1;
    let of_another_key = answer("a").encode(&key("b"), LIMIT).expect("small");
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
        assert_eq!(cache.stats().broken_values, count, "{start}");
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
    assert_eq!(stats.broken_values, count);
    assert_eq!(stats.redis_errors, 0);
    assert!(stats.redis_available);
    put_and_wait(&cache, key("a"), &answer("a")).await;
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
                "code-explainer:v2:{}:{{{key}}}",
                Selection::new(
                    b"secret",
                    Some(tenant.as_bytes()),
                    Some(language),
                    Some(strategy)
                )
            );
            let value = answer("a").encode(&key, LIMIT).expect("small");
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

#[tokio::test]
async fn a_password_is_used_and_a_wrong_or_missing_one_is_no_error() {
    let server = RedisServer::start_with(&["--requirepass", "correct horse"]);
    let url = |user: &str| format!("redis://{user}127.0.0.1:{}", server.port());
    let right = replica(&url(":correct%20horse@"), PATIENT, LONG);
    put_and_wait(&right, key("a"), &answer("a")).await;
    assert_eq!(right.stats().redis_errors, 0);
    for user in [":wrong@", "nobody:correct%20horse@", ""] {
        let cache = replica(&url(user), PATIENT, LONG);
        misses(&cache, 3 * FAILURES).await;
        assert_eq!(cache.stats().redis_errors, FAILURES, "{user}");
    }
}

#[tokio::test]
async fn a_full_redis_is_still_read_from() {
    let server = RedisServer::start();
    let cache = replica(&server.url(), PATIENT, LONG);
    put_and_wait(&cache, key("a"), &answer("a")).await;
    let () = redis::cmd("CONFIG")
        .arg(&["SET", "maxmemory", "1", "maxmemory-policy", "noeviction"])
        .query_async(&mut server.connection().await)
        .await
        .expect("CONFIG SET");
    for n in 1..=2 * FAILURES {
        cache.put(key("b"), answer("b"));
        let refused = async || (cache.stats().redis_errors == n).then_some(());
        eventually("the write is refused", refused).await;
    }
    assert!(found(&cache, &key("a")).await.is_some());
    assert!(cache.stats().redis_available);
}

#[tokio::test]
async fn writes_to_a_slow_redis_are_bounded_and_nobody_waits_for_them() {
    let server = RedisServer::start();
    let cache = replica(&server.url(), PATIENT, LONG);
    // Connects. A write would count as under way for a moment after others can see it.
    assert!(found(&cache, &key("a")).await.is_none());
    server.pause();
    for n in 0..200 {
        cache.put(key(&format!("{n}")), answer("x"));
    }
    assert_eq!(cache.stats().dropped_puts, 200 - 64);
    server.resume();
    for n in 0..64 {
        let written = async || found(&cache, &key(&format!("{n}"))).await;
        eventually("the writes under way are finished", written).await;
    }
    assert_eq!(cache.stats().redis_errors, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_look_ups_at_once_get_their_own_answers() {
    let server = RedisServer::start();
    let mut raw = server.connection().await;
    let text = |n: usize| format!("answer number {n} ").repeat(1 + n % 50);
    for n in (0..200).step_by(2) {
        let key = key(&format!("{n}"));
        let () = raw
            .set(
                redis_key(&key),
                answer(&text(n)).encode(&key, LIMIT).expect("small"),
            )
            .await
            .expect("SET");
    }
    let cache = Arc::new(replica(&server.url(), PATIENT, LONG));
    let lookups = (0..200).map(|n| {
        let cache = Arc::clone(&cache);
        tokio::spawn(async move { cache.lookup(&key(&format!("{n}"))).await })
    });
    for (n, lookup) in lookups.collect::<Vec<_>>().into_iter().enumerate() {
        let expected = match n % 2 {
            0 => Lookup::Hit(Level::Redis, answer(&text(n))),
            _ => Lookup::Miss,
        };
        assert_eq!(lookup.await.expect("no panic"), expected);
    }
    let stats = cache.stats();
    assert_eq!(
        (stats.redis_hits, stats.misses, stats.redis_errors),
        (100, 100, 0)
    );
    assert!((stats.hit_ratio - 0.5).abs() < 1e-12);
    let clients: String = redis::cmd("CLIENT")
        .arg("LIST")
        .query_async(&mut raw)
        .await
        .expect("CLIENT LIST");
    assert_eq!(
        clients.lines().count(),
        3,
        "two connections for all look-ups, and the test's own"
    );
}
