//! An answer that one replica makes is streamed by the others, and taken over when the first one dies.

use std::sync::Arc;
use std::time::{Duration, Instant};

use code_explainer_cache::{Cache, CacheConfig, Follower, Leader, Level, Plan, RedisConfig, Told};
use redis::AsyncCommands;

use crate::common::cache::{
    LONG, PATIENT, answer, deltas, found, key, patient, replica, replica_of,
};
use crate::common::redis::{RedisServer, eventually};

const TEXT: &str = "This adds two numbers.";

async fn lead(cache: &Cache) -> Leader {
    match cache.plan(&key("a")).await {
        Plan::Lead(leader) => leader,
        _ => panic!("nobody else makes the answer"),
    }
}

async fn follow(cache: &Cache) -> Box<Follower> {
    match cache.plan(&key("a")).await {
        Plan::Follow(follower) => follower,
        _ => panic!("another replica makes the answer"),
    }
}

/// Reads to the end.
async fn read(follower: &mut Follower) -> (String, Told) {
    let mut text = String::new();
    loop {
        match follower.next().await {
            Told::Deltas(deltas) => text.extend(deltas.into_iter().map(|delta| delta.text)),
            end => return (text, end),
        }
    }
}

fn with_lease(server: &RedisServer, lease: Duration) -> Cache {
    replica(RedisConfig {
        lease: Some(lease),
        ..patient(vec![server.url()])
    })
}

#[tokio::test]
async fn the_others_stream_an_answer_as_it_is_made() {
    let server = RedisServer::start();
    let (one, two, three) = (
        replica_of(&server),
        replica_of(&server),
        replica_of(&server),
    );
    let leader = lead(&one).await;
    let mut early = follow(&two).await;
    let told = deltas(TEXT);
    for delta in &told {
        leader.tell(delta);
        // Each piece arrives before the next is told.
        assert_eq!(early.next().await, Told::Deltas(vec![delta.clone()]));
    }
    // Who comes late gets what was told so far.
    let mut late = follow(&three).await;
    assert_eq!(late.next().await, Told::Deltas(told));
    one.finish(leader, key("a"), answer(TEXT));
    let done = Told::Done(Box::new((*answer(TEXT)).clone()));
    assert_eq!(early.next().await, done);
    assert_eq!(late.next().await, done);
    match three.plan(&key("a")).await {
        Plan::Replay(Level::Redis, got) => assert_eq!(got, answer(TEXT)),
        _ => panic!("the answer is stored"),
    }
    assert_eq!(one.stats().leases_led, 1);
    assert_eq!(two.stats().leases_followed, 1);
    assert_eq!(two.stats().leases_taken_over + one.stats().leases_lost, 0);
    // What was needed on the way expires by itself.
    let mut raw = server.connection().await;
    let left: Vec<String> = raw.keys("code-explainer:log:*").await.expect("KEYS");
    assert_eq!(left.len(), 1, "{left:?}");
    let ttl: i64 = raw.pttl(&left[0]).await.expect("PTTL");
    assert!((1..=10_000).contains(&ttl), "{ttl}");
}

#[tokio::test]
async fn work_that_is_given_up_is_taken_over_at_once() {
    let server = RedisServer::start();
    let (one, two) = (with_lease(&server, LONG), with_lease(&server, LONG));
    let leader = lead(&one).await;
    let mut follower = follow(&two).await;
    leader.tell(&deltas(TEXT)[0]);
    assert_eq!(
        follower.next().await,
        Told::Deltas(deltas(TEXT)[..1].to_vec())
    );
    // All who wanted the answer on the first replica have cancelled.
    drop(leader);
    assert_eq!(follower.next().await, Told::Lost);
    let leader = lead(&two).await;
    let mut follower = follow(&one).await;
    for delta in deltas(TEXT) {
        leader.tell(&delta);
    }
    two.finish(leader, key("a"), answer(TEXT));
    let (text, end) = read(&mut follower).await;
    assert_eq!(text, TEXT);
    assert!(matches!(end, Told::Done(_)));
}

#[test]
fn a_replica_that_dies_is_replaced_when_its_lease_has_run_out() {
    let server = RedisServer::start();
    let runtime = || {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime")
    };
    let (first, second) = (runtime(), runtime());
    let lease = Duration::from_millis(400);
    let (one, two) = (with_lease(&server, lease), with_lease(&server, lease));
    let leader = first.block_on(lead(&one));
    second.block_on(async {
        let mut follower = follow(&two).await;
        // It is renewed as long as the first one lives, also when it has nothing to tell.
        let silence = tokio::time::timeout(3 * lease, follower.next()).await;
        assert!(silence.is_err(), "{silence:?}");
        // With its runtime goes its connection and all that it could still say; as in a process that is killed.
        first.shutdown_background();
        let died = Instant::now();
        assert_eq!(follower.next().await, Told::Lost);
        assert!(died.elapsed() < PATIENT);
        drop(lead(&two).await);
    });
    drop(leader);
}

#[tokio::test]
async fn without_redis_each_makes_its_own() {
    let mut server = RedisServer::start();
    let (one, two) = (replica_of(&server), replica_of(&server));
    let leader = lead(&one).await;
    let mut follower = follow(&two).await;
    leader.tell(&deltas(TEXT)[0]);
    assert!(matches!(follower.next().await, Told::Deltas(_)));
    server.kill();
    assert_eq!(follower.next().await, Told::Failed);
    assert!(matches!(two.plan(&key("a")).await, Plan::Make));
    leader.tell(&deltas(TEXT)[1]);
    let lost = async || (one.stats().leases_lost == 1).then_some(());
    eventually("the first one knows that it tells nobody", lost).await;
    one.finish(leader, key("a"), answer(TEXT));
}

#[tokio::test]
async fn what_no_replica_told_is_not_believed() {
    let server = RedisServer::start();
    let (one, two) = (replica_of(&server), replica_of(&server));
    let mut raw = server.connection().await;
    let forged = [
        b"garbage".to_vec(),
        Vec::new(),
        b"0123456789abcdef{\"from\":0,\"deltas\":[],\"end\":null}".to_vec(),
        vec![b'x'; 64 << 20],
    ];
    for bytes in forged {
        let leader = lead(&one).await;
        leader.tell(&deltas(TEXT)[0]);
        let mut follower = follow(&two).await;
        assert!(matches!(follower.next().await, Told::Deltas(_)));
        let logs: Vec<String> = raw.keys("code-explainer:log:*").await.expect("KEYS");
        let log = logs.first().expect("a log");
        let mut add = redis::cmd("XADD");
        let add = add.arg((log, "*", "d", bytes)).query_async(&mut raw);
        let _: String = add.await.expect("XADD");
        assert_eq!(follower.next().await, Told::Failed);
        drop(leader);
        let () = raw.del(log).await.expect("DEL");
        let free = async || {
            let left: Vec<String> = raw.keys("*").await.expect("KEYS");
            left.is_empty().then_some(())
        };
        eventually("the lease is free again", free).await;
    }
    assert_eq!(two.stats().leases_taken_over, 4);
    assert_eq!(two.stats().redis_errors, 0);
}

#[tokio::test]
async fn an_answer_that_is_too_large_is_made_by_each() {
    let server = RedisServer::start();
    let config = |size| CacheConfig {
        max_answer_bytes: 2000,
        size,
        redis: Some(patient(vec![server.url()])),
        ..CacheConfig::default()
    };
    let (one, two) = (Cache::new(config(0)), Cache::new(config(0)));
    let (one, two) = (one.expect("valid"), two.expect("valid"));
    let leader = lead(&one).await;
    let mut follower = follow(&two).await;
    let long = "many words ".repeat(500);
    for delta in deltas(&long) {
        leader.tell(&delta);
    }
    assert_eq!(read(&mut follower).await.1, Told::Lost);
    one.finish(leader, key("a"), answer(&long));
    assert!(found(&two, &key("a")).await.is_none());
    assert_eq!(one.stats().dropped_puts, 1);
}

#[tokio::test]
async fn a_redis_that_runs_no_scripts_shares_answers_all_the_same() {
    let renamed = ["--rename-command", "EVAL", ""];
    let forbidden = "--user default on nopass ~* &* +@all -@scripting";
    let forbidden: Vec<&str> = forbidden.split(' ').collect();
    for options in [&renamed[..], &forbidden] {
        let server = RedisServer::start_with(options);
        let (one, two) = (replica_of(&server), replica_of(&server));
        // More often than a failing Redis is asked.
        for _ in 0..20 {
            let plan = one.plan(&key("a")).await;
            assert!(matches!(plan, Plan::Make), "there is nothing, and no lease");
        }
        assert!(one.stats().redis_available);
        one.put(key("a"), answer(TEXT));
        let stored = async || found(&one, &key("a")).await;
        assert_eq!(eventually("it is stored", stored).await, answer(TEXT));
        match two.plan(&key("a")).await {
            Plan::Replay(Level::Redis, got) => assert_eq!(got, answer(TEXT)),
            _ => panic!("the answer is shared"),
        }
        assert_eq!((one.stats().leases_led, one.stats().redis_errors), (0, 0));
    }
}

/// Two who ask at the same moment do not both make it, however often they do.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_of_many_leads() {
    let server = RedisServer::start();
    let caches: Vec<_> = (0..4).map(|_| Arc::new(replica_of(&server))).collect();
    for round in 0..20 {
        let key = key(&round.to_string());
        let asked = (0..32).map(|n| {
            let cache = Arc::clone(&caches[n % 4]);
            tokio::spawn(async move { cache.plan(&key).await })
        });
        let plans = futures::future::join_all(asked).await;
        let plans: Vec<_> = plans.into_iter().map(|p| p.expect("no panic")).collect();
        let leaders = plans.iter().filter(|p| matches!(p, Plan::Lead(_))).count();
        let followers = plans
            .iter()
            .filter(|p| matches!(p, Plan::Follow(_)))
            .count();
        assert_eq!((leaders, followers), (1, 31));
    }
}
