//! Level 2 of the cache, on a real Redis: shared by replicas, and never in the way when it fails.

use std::sync::Arc;
use std::time::Duration;

use code_explainer::cache::{
    Cache, CacheConfig, CacheKey, CachedAnswer, FinishReason, KeyParts, Level, Lookup, RedisConfig,
    Timings,
};
use redis::AsyncCommands;
use redis::aio::MultiplexedConnection;

use crate::common::redis::{RedisServer, eventually};

/// Failures in a row after which Redis is left alone.
const FAILURES: u64 = 5;
/// Longer than any test: for Redis that is left alone to the end, or that must not be given up.
const LONG: Duration = Duration::from_secs(3600);
/// Longer than a loaded machine needs: for replies that must come.
const PATIENT: Duration = Duration::from_secs(20);
/// For replies that do not come.
const SHORT: Duration = Duration::from_millis(50);
const TTL: Duration = Duration::from_secs(600);

fn key(code: &str) -> CacheKey {
    CacheKey::new(&KeyParts {
        salt: b"test",
        code: code.as_bytes(),
        language: "python",
        strategy: "vanilla",
        prompt_revision: 1,
        model_digest: b"digest",
        precision: "fp32",
        temperature: 0.0,
        top_p: 1.0,
        top_k: 0,
        repetition_penalty: 1.0,
        seed: 0,
        stops: &[],
        ignore_eos: false,
        max_new_tokens: 64,
        min_new_tokens: 0,
    })
}

fn redis_key(key: &CacheKey) -> String {
    format!("code-explainer:v1:{key}")
}

fn answer(text: &str) -> Arc<CachedAnswer> {
    Arc::new(CachedAnswer {
        deltas: text.split_inclusive(' ').map(str::to_owned).collect(),
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

/// A replica without memory of its own, so that every look-up is one of Redis.
fn replica(url: &str, timeout: Duration, cooldown: Duration) -> Cache {
    let redis = RedisConfig {
        timeout,
        cooldown,
        ..RedisConfig::new(url)
    };
    let config = CacheConfig {
        size: 0,
        ttl: TTL,
        redis: Some(redis),
        ..CacheConfig::default()
    };
    Cache::new(config).expect("a valid configuration")
}

async fn raw(server: &RedisServer) -> MultiplexedConnection {
    let client = redis::Client::open(server.url()).expect("a valid URL");
    client
        .get_multiplexed_async_connection()
        .await
        .expect("the server runs")
}

async fn put_and_wait(cache: &Cache, key: CacheKey, answer: &Arc<CachedAnswer>) {
    cache.put(key, Arc::clone(answer));
    eventually("the answer is in Redis", async || found(cache, &key).await).await;
}

async fn found(cache: &Cache, key: &CacheKey) -> Option<Arc<CachedAnswer>> {
    match cache.lookup(key).await {
        Lookup::Hit(Level::Redis, answer) => Some(answer),
        _ => None,
    }
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
    let mut raw = raw(&server).await;
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
    let mut raw = raw(&server).await;
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
    let mut raw = raw(&server).await;
    let (name, valid) = (redis_key(&key("a")), answer("a").encode(&key("a")));
    let mut future_version = valid.clone();
    future_version[4] += 1;
    let mut flipped = valid.clone();
    *flipped.last_mut().expect("not empty") ^= 1;
    let of_another_key = answer("a").encode(&key("b"));
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
    for (n, value) in (1..).zip(broken) {
        let () = raw.set(&name, value).await.expect("SET");
        misses(&cache, 1).await;
        assert_eq!(
            cache.stats().broken_values,
            n,
            "{}",
            value[..8].escape_ascii()
        );
    }
    let () = raw.del(&name).await.expect("DEL");
    let () = raw.rpush(&name, "a list").await.expect("RPUSH");
    // More often than the breaker forgives: a server with bad values is not a bad server.
    misses(&cache, 2 * FAILURES).await;

    let stats = cache.stats();
    assert_eq!(stats.broken_values, broken.len() as u64 + 2 * FAILURES);
    assert_eq!(stats.redis_errors, 0);
    assert!(stats.redis_available);
    put_and_wait(&cache, key("a"), &answer("a")).await;
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
    let exists: bool = raw(&server)
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
        .query_async(&mut raw(&server).await)
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
    put_and_wait(&cache, key("a"), &answer("a")).await;
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
    let mut raw = raw(&server).await;
    let text = |n: usize| format!("answer number {n} ").repeat(1 + n % 50);
    for n in (0..200).step_by(2) {
        let key = key(&format!("{n}"));
        let () = raw
            .set(redis_key(&key), answer(&text(n)).encode(&key))
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
        2,
        "one connection for all look-ups, and the test's own"
    );
}
