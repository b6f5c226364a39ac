//! Level 1 of the cache: what is kept in memory, for how long, and within which bounds.

use std::sync::Arc;
use std::time::Duration;

use code_explainer_cache::{Cache, CacheConfig, CacheError, Level, Lookup, Policy, RedisConfig};

use crate::common::cache::{answer, key};
use crate::common::redis::eventually;

fn cache(size: u64) -> Cache {
    Cache::new(CacheConfig {
        size,
        ..CacheConfig::default()
    })
    .expect("a valid configuration")
}

async fn is_kept(cache: &Cache, code: &str) -> bool {
    matches!(
        cache.lookup(&key(code)).await,
        Lookup::Hit(Level::Memory, _)
    )
}

#[tokio::test]
async fn an_answer_is_found_as_it_was_put() {
    let cache = cache(10);
    assert_eq!(cache.lookup(&key("a")).await, Lookup::Miss);
    let put = answer("This adds two numbers.");
    cache.put(key("a"), Arc::clone(&put));
    assert_eq!(
        cache.lookup(&key("a")).await,
        Lookup::Hit(Level::Memory, put)
    );
    assert_eq!(cache.lookup(&key("b")).await, Lookup::Miss);

    let stats = cache.stats();
    assert_eq!(
        (stats.memory_hits, stats.redis_hits, stats.misses),
        (1, 0, 2)
    );
    assert!((stats.hit_ratio - 1.0 / 3.0).abs() < 1e-12);
    assert!(!stats.redis_configured && !stats.redis_available);
}

#[tokio::test]
async fn a_later_answer_replaces_the_earlier_one_and_its_bytes() {
    let cache = cache(10);
    cache.put(key("a"), answer(&"long ".repeat(1000)));
    let short = answer("short");
    cache.put(key("a"), Arc::clone(&short));
    let stats = cache.stats();
    assert_eq!(
        (stats.memory_entries, stats.memory_bytes),
        (1, short.size_bytes() as u64)
    );
    assert_eq!(
        cache.lookup(&key("a")).await,
        Lookup::Hit(Level::Memory, short)
    );
}

#[tokio::test]
async fn the_least_recently_used_answer_makes_room() {
    let cache = cache(3);
    for code in ["a", "b", "c"] {
        cache.put(key(code), answer(code));
        cache.stats();
    }
    assert!(is_kept(&cache, "a").await);
    cache.stats();
    cache.put(key("d"), answer("d"));
    assert_eq!(cache.stats().memory_entries, 3);
    for (code, kept) in [("a", true), ("b", false), ("c", true), ("d", true)] {
        assert_eq!(is_kept(&cache, code).await, kept, "{code}");
    }
}

#[tokio::test]
async fn the_policy_that_was_set_says_who_makes_room() {
    let kept = async |policy| {
        let config = CacheConfig {
            size: 2,
            policy,
            ..CacheConfig::default()
        };
        let cache = Cache::new(config).expect("valid");
        cache.put(key("often"), answer("a much longer answer"));
        cache.lookup(&key("often")).await;
        cache.lookup(&key("often")).await;
        cache.put(key("late"), answer("short"));
        cache.lookup(&key("late")).await;
        cache.put(key("new"), answer("new"));
        (
            is_kept(&cache, "often").await,
            is_kept(&cache, "late").await,
        )
    };
    assert_eq!(kept(Policy::Lru).await, (false, true));
    assert_eq!(kept(Policy::Lfu).await, (true, false));
    assert_eq!(kept(Policy::Fifo).await, (false, true));
    assert_eq!(kept(Policy::Size).await, (false, true));
    assert_eq!(kept(Policy::Ttl).await, (false, true));
}

#[tokio::test]
async fn bytes_are_bounded_too() {
    let each = answer("xxxx").size_bytes();
    let config = CacheConfig {
        bytes: 3 * each as u64,
        max_answer_bytes: each,
        ..CacheConfig::default()
    };
    let cache = Cache::new(config).expect("valid");
    for code in ["a", "b", "c", "d"] {
        cache.put(key(code), answer("xxxx"));
    }
    let stats = cache.stats();
    assert_eq!(
        (stats.memory_entries, stats.memory_bytes),
        (3, 3 * each as u64)
    );
    assert!(!is_kept(&cache, "a").await);
}

#[test]
fn entries_stay_within_the_bound_and_bytes_are_theirs_under_many_threads() {
    let cache = cache(100);
    let bytes = answer("xxxx").size_bytes() as u64;
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let cache = &cache;
            scope.spawn(move || {
                for n in 0..2_000 {
                    cache.put(
                        key(&format!("{}", (thread * 1_000 + n) % 3_000)),
                        answer("xxxx"),
                    );
                }
            });
        }
    });
    let stats = cache.stats();
    assert!((1..=100).contains(&stats.memory_entries), "{stats:?}");
    assert_eq!(stats.memory_bytes, stats.memory_entries * bytes);
}

#[tokio::test]
async fn an_answer_expires() {
    let ttl = Duration::from_millis(200);
    let cache = Cache::new(CacheConfig {
        ttl,
        ..CacheConfig::default()
    })
    .expect("valid");
    cache.put(key("a"), answer("a"));
    let expired = async || (!is_kept(&cache, "a").await).then_some(());
    eventually("the answer has expired", expired).await;
    let freed = async || {
        let stats = cache.stats();
        ((stats.memory_entries, stats.memory_bytes) == (0, 0)).then_some(())
    };
    eventually("its memory is freed", freed).await;
}

#[tokio::test]
async fn an_answer_that_is_too_large_is_not_kept() {
    let (fits, large) = (answer("fits"), answer("fits not"));
    let config = CacheConfig {
        max_answer_bytes: fits.size_bytes(),
        ..CacheConfig::default()
    };
    let cache = Cache::new(config).expect("valid");
    cache.put(key("a"), fits);
    cache.put(key("b"), large);
    assert!(is_kept(&cache, "a").await);
    assert!(!is_kept(&cache, "b").await);
    assert_eq!(cache.stats().dropped_puts, 1);
}

#[tokio::test]
async fn size_0_without_redis_is_off() {
    let cache = cache(0);
    assert!(!cache.enabled());
    cache.put(key("a"), answer("a"));
    assert_eq!(cache.lookup(&key("a")).await, Lookup::Miss);
    assert_eq!(cache.stats(), Default::default());
}

#[test]
fn bad_values_are_refused_by_the_name_of_their_option() {
    let check = |config: CacheConfig, expected: &str| {
        let message = Cache::new(config).expect_err(expected).to_string();
        assert!(message.starts_with(expected), "{message}");
    };
    let memory = CacheConfig::default;
    let redis = |redis| CacheConfig {
        redis: Some(redis),
        ..memory()
    };
    let local = || RedisConfig::new("redis://localhost");
    let (zero, ever) = (Duration::ZERO, Duration::MAX);
    check(
        CacheConfig {
            ttl: zero,
            ..memory()
        },
        "cache_ttl is 0ns",
    );
    check(
        CacheConfig {
            ttl: ever,
            ..memory()
        },
        "cache_ttl is ",
    );
    check(
        CacheConfig {
            max_answer_bytes: 0,
            ..memory()
        },
        "cache_max_answer_bytes is 0",
    );
    check(
        CacheConfig {
            bytes: 1 << 19,
            ..memory()
        },
        "cache_bytes is 524288",
    );
    check(
        redis(RedisConfig {
            timeout: zero,
            ..local()
        }),
        "redis_timeout is 0ns",
    );
    check(
        redis(RedisConfig {
            cooldown: ever,
            ..local()
        }),
        "redis_cooldown is ",
    );
    for url in [
        "",
        "localhost",
        "http://localhost",
        "redis://host/not-a-number",
        "rediss://host/#insecure",
    ] {
        check(redis(RedisConfig::new(url)), "redis_url: ");
    }
}

#[test]
fn no_message_repeats_the_password() {
    for url in [
        "redis://user:hunter2@host/x",
        "redis//user:hunter2@host",
        "http://:hunter2@host",
    ] {
        let config = CacheConfig {
            redis: Some(RedisConfig::new(url)),
            ..CacheConfig::default()
        };
        assert!(!format!("{config:?}").contains("hunter2"));
        let error = Cache::new(config).expect_err("not a URL of Redis");
        assert!(matches!(error, CacheError::RedisUrl { .. }));
        assert!(
            !format!("{error} {error:?}").contains("hunter2"),
            "{error:?}"
        );
    }
    let config = CacheConfig {
        redis: Some(RedisConfig::new("redis://user:hunter2@host")),
        ..CacheConfig::default()
    };
    assert!(!format!("{:?}", Cache::new(config)).contains("hunter2"));
}
