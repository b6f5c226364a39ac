//! Level 2 of the cache, on a real Redis: shared by replicas, and never in the way when it fails.

use std::sync::Arc;
use std::time::Duration;

use code_explainer_cache::{Cache, CacheConfig, Level, Lookup, RedisConfig};
use redis::AsyncCommands;

use crate::common::cache::{
    FAILURES, LONG, PATIENT, SECRET, answer, found, impatient_replica, key, mac, misses,
    put_and_wait, redis_key,
};
use crate::common::redis::{RedisServer, eventually};

/// For replies that do not come.
const SHORT: Duration = Duration::from_millis(50);
/// The longest value, before it is compressed.
const LIMIT: usize = 1 << 20;
const TTL: Duration = Duration::from_secs(600);

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
        (0, [0; 4], 0)
    );
    assert!(stats.redis_configured && stats.redis_available);
}

#[tokio::test]
async fn answers_expire_in_redis_and_promoted_ones_with_them() {
    let server = RedisServer::start();
    let writer = impatient_replica(&server.url(), PATIENT, LONG);
    put_and_wait(&writer, key("a"), &answer("a")).await;
    let mut raw = server.connection().await;
    let left: i64 = raw.pttl(redis_key(&key("a"))).await.expect("PTTL");
    assert!((1..=TTL.as_millis() as i64).contains(&left), "{left}");

    // The reader would keep its own answers for ten minutes, but this one has only three seconds left.
    let redis = RedisConfig {
        timeout: PATIENT,
        secret: SECRET.to_owned(),
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
    let cache = impatient_replica(&server.url(), PATIENT, Duration::from_millis(20));
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
    let cache = impatient_replica(&server.url(), PATIENT, Duration::from_millis(20));
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
    let cache = impatient_replica(&server.url(), PATIENT, LONG);
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
    let cache = impatient_replica(&server.url(), PATIENT, LONG);
    put_and_wait(&cache, key("a"), &answer("a")).await;
    let cache = impatient_replica(&server.url(), SHORT, LONG);
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
    let writer = impatient_replica(&server.url(), PATIENT, LONG);
    put_and_wait(&writer, key("a"), &answer("a")).await;
    let cache = impatient_replica(
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
async fn a_password_is_used_and_a_wrong_or_missing_one_is_no_error() {
    let server = RedisServer::start_with(&["--requirepass", "correct horse"]);
    let url = |user: &str| format!("redis://{user}127.0.0.1:{}", server.port());
    let right = impatient_replica(&url(":correct%20horse@"), PATIENT, LONG);
    put_and_wait(&right, key("a"), &answer("a")).await;
    assert_eq!(right.stats().redis_errors, 0);
    for user in [":wrong@", "nobody:correct%20horse@", ""] {
        let cache = impatient_replica(&url(user), PATIENT, LONG);
        misses(&cache, 3 * FAILURES).await;
        assert_eq!(cache.stats().redis_errors, FAILURES, "{user}");
    }
}

#[tokio::test]
async fn a_full_redis_is_still_read_from() {
    let server = RedisServer::start();
    let cache = impatient_replica(&server.url(), PATIENT, LONG);
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
    let cache = impatient_replica(&server.url(), PATIENT, LONG);
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
                answer(&text(n)).encode(&mac(), &key, LIMIT).expect("small"),
            )
            .await
            .expect("SET");
    }
    let cache = Arc::new(impatient_replica(&server.url(), PATIENT, LONG));
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
