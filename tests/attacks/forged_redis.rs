//! Who can write to Redis, and does not know the installation's secret, can take answers away and make them late. They can
//! have no other text told for an answer, no bytes of theirs unpacked, and nobody wait for long.

use std::time::Duration;

use code_explainer_cache::{
    Cache, CachedAnswer, Follower, Leader, MacKey, Plan, RedisConfig, Told,
};
use code_explainer_client::proto::explain_response::Event;
use code_explainer_client::proto::{CacheLevel, ExplainRequest};
use redis::AsyncCommands;
use redis::aio::MultiplexedConnection;

use crate::common::cache::{
    PATIENT, answer, deltas, found, key, key_of, mac, patient, redis_key, replica, replica_of,
};
use crate::common::redis::{RedisServer, eventually};
use crate::common::server::{TestServer, config};
use crate::common::stream::item;

const TEXT: &str = "This adds two numbers.";
const LIMIT: usize = 1 << 20;
/// The index of "mac" among the kinds of broken values.
const MAC: usize = 0;

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

/// The entries of the one stream that there is.
async fn entries(raw: &mut MultiplexedConnection) -> (String, Vec<Vec<u8>>) {
    let names: Vec<String> = raw.keys("code-explainer:log:*").await.expect("KEYS");
    let name = names.into_iter().next().expect("a stream");
    let mut range = redis::cmd("XRANGE");
    range.arg((&name, "-", "+"));
    let found: Vec<(String, (String, Vec<u8>))> = range.query_async(raw).await.expect("XRANGE");
    (
        name,
        found.into_iter().map(|(_, (_, piece))| piece).collect(),
    )
}

async fn append(raw: &mut MultiplexedConnection, log: &str, piece: &[u8]) {
    let mut add = redis::cmd("XADD");
    let _: String = (add.arg((log, "*", "d", piece)).query_async(raw).await).expect("XADD");
}

/// Waits until nothing has this name.
async fn gone(raw: &mut MultiplexedConnection, name: &str) {
    let gone = async || {
        let exists: bool = raw.exists(name).await.expect("EXISTS");
        (!exists).then_some(())
    };
    eventually("it is removed", gone).await;
}

#[tokio::test]
async fn a_forged_or_moved_value_is_a_miss_and_nothing_of_it_is_unpacked() {
    let server = RedisServer::start();
    let cache = replica_of(&server);
    let mut raw = server.connection().await;
    let own = key("a");
    let valid = answer(TEXT).encode(&mac(), &own, LIMIT).expect("small");
    // As long as it says what it is, it could be anything: here a gigabyte in some tens of kilobytes.
    let mut bomb = valid[..38].to_vec();
    let zeros = std::io::Read::take(std::io::repeat(0), 1 << 30);
    zstd::stream::copy_encode(zeros, &mut bomb, 1).expect("memory");
    let elsewhere = |place| answer(TEXT).encode(&mac(), &place, LIMIT).expect("small");
    let attacks = [
        // Made by the same program, which everybody has, with a secret of their own or with none.
        answer("Trust me.")
            .encode(&MacKey::new(b""), &own, LIMIT)
            .expect("small"),
        answer("Trust me.")
            .encode(&MacKey::new(b"guess"), &own, LIMIT)
            .expect("small"),
        // What the installation wrote, for other code, or for the same code of another tenant.
        elsewhere(key("b")),
        elsewhere(key_of("other tenant", "python", "vanilla", "a")),
        valid[..valid.len() - 1].to_vec(),
        [valid.as_slice(), b"\0"].concat(),
        bomb,
    ];
    for (n, value) in (1..).zip(&attacks) {
        let () = raw.set(redis_key(&own), value).await.expect("SET");
        assert!(found(&cache, &own).await.is_none(), "attack {n}");
        assert_eq!(cache.stats().broken_values, [n, 0, 0, 0], "attack {n}");
        // Before the next one comes, lest that be removed.
        gone(&mut raw, &redis_key(&own)).await;
    }
    let () = raw.set(redis_key(&own), &valid).await.expect("SET");
    assert_eq!(found(&cache, &own).await, Some(answer(TEXT)));
    CachedAnswer::decode(&MacKey::new(b"guess"), &own, &valid, LIMIT).expect_err("another secret");
}

#[tokio::test]
async fn nothing_is_told_that_its_maker_has_not_told_in_that_order() {
    let told = deltas(TEXT);
    // What is appended, of the pieces that were told so far, which end at the second.
    type Attack = fn(&[Vec<u8>]) -> Vec<u8>;
    let attacks: [Attack; 5] = [
        |_| b"{\"deltas\":[{\"text\":\"Trust me.\",\"at_us\":0}],\"end\":null}".to_vec(),
        // Keyed by nothing.
        |pieces| [[0; 32].as_slice(), &pieces[0][32..]].concat(),
        // Again.
        |pieces| pieces[0].clone(),
        |pieces| pieces[1].clone(),
        // The code of one with the text of another.
        |pieces| [&pieces[1][..32], &pieces[0][32..]].concat(),
    ];
    for attack in attacks {
        let server = RedisServer::start();
        let (one, two) = (replica_of(&server), replica_of(&server));
        let mut raw = server.connection().await;
        let leader = lead(&one).await;
        let mut follower = follow(&two).await;
        for delta in &told[..2] {
            leader.tell(delta);
            assert_eq!(follower.next().await, Told::Deltas(vec![delta.clone()]));
        }
        let (log, pieces) = entries(&mut raw).await;
        append(&mut raw, &log, &attack(&pieces)).await;
        assert_eq!(follower.next().await, Told::Failed);
        assert_eq!(two.stats().broken_values[MAC], 1);
        // Nor is it told to who comes late, beyond what was told by then.
        let mut late = follow(&two).await;
        assert_eq!(late.next().await, Told::Failed);
        drop(leader);
    }
}

#[tokio::test]
async fn pieces_in_another_order_or_of_another_answer_are_not_told() {
    let server = RedisServer::start();
    let (one, two) = (replica_of(&server), replica_of(&server));
    let mut raw = server.connection().await;
    let leader = lead(&one).await;
    let mut early = follow(&two).await;
    for delta in &deltas(TEXT)[..2] {
        leader.tell(delta);
        assert!(matches!(early.next().await, Told::Deltas(_)));
    }
    let (log, pieces) = entries(&mut raw).await;
    let () = raw.del(&log).await.expect("DEL");
    for piece in pieces.iter().rev() {
        append(&mut raw, &log, piece).await;
    }
    assert_eq!(follow(&two).await.next().await, Told::Failed);

    // The same beginning of the same answer, of an earlier holder of its lease.
    drop(leader);
    gone(&mut raw, &redis_key(&key("a"))).await;
    let () = raw.del(&log).await.expect("DEL");
    let leader = lead(&one).await;
    let mut early = follow(&two).await;
    leader.tell(&deltas(TEXT)[0]);
    assert!(matches!(early.next().await, Told::Deltas(_)));
    let (log, own) = entries(&mut raw).await;
    assert_ne!(own[0], pieces[0]);
    let () = raw.del(&log).await.expect("DEL");
    append(&mut raw, &log, &pieces[0]).await;
    assert_eq!(follow(&two).await.next().await, Told::Failed);
}

#[tokio::test]
async fn nobody_waits_for_a_lease_that_nobody_holds() {
    let server = RedisServer::start();
    let with_lease = |ms| {
        replica(RedisConfig {
            lease: Some(Duration::from_millis(ms)),
            ..patient(vec![server.url()])
        })
    };
    let (one, two) = (with_lease(300), with_lease(3_600_000));
    let mut raw = server.connection().await;
    let name = redis_key(&key("a"));
    // Made up: the answer is generated at once.
    let forged = [b"CXLE".as_slice(), &[b'0'; 32], &[0; 48]].concat();
    let () = raw.set(&name, &forged).await.expect("SET");
    assert!(matches!(two.plan(&key("a")).await, Plan::Make));
    assert_eq!(two.stats().broken_values[MAC], 1);
    gone(&mut raw, &name).await;

    // One that was real, put back for ever after its holder has given it up: it is trusted for as long as its own time
    // allows, not for ever, and then it goes.
    let leader = lead(&one).await;
    let old: Vec<u8> = raw.get(&name).await.expect("GET");
    drop(leader);
    gone(&mut raw, &name).await;
    let () = raw.set(&name, &old).await.expect("SET");
    let mut follower = follow(&two).await;
    let end = tokio::time::timeout(PATIENT, follower.next()).await;
    assert_eq!(end.expect("it does not wait for ever"), Told::Failed);
    gone(&mut raw, &name).await;
    drop(lead(&two).await);
    // Moved to another answer, it is none.
    let () = raw.set(redis_key(&key("b")), &old).await.expect("SET");
    assert!(matches!(two.plan(&key("b")).await, Plan::Make));
}

#[tokio::test]
async fn a_client_gets_its_own_answer_when_values_were_exchanged() {
    let redis = RedisServer::start();
    let (url, no_memory) = (redis.url(), ["--cache-size", "0"]);
    let flags = [
        "--redis-url",
        &url,
        "--redis-timeout",
        "20s",
        "--cache-secret",
        "secret",
    ];
    let (server, _) = TestServer::fake(&[&flags[..], &no_memory].concat()).await;
    let ask = async |code: &str| -> (String, CacheLevel) {
        let request: ExplainRequest = item("", code);
        let mut events = (server.client().await.explain(request).await)
            .expect("a stream")
            .into_inner();
        let mut text = String::new();
        while let Some(response) = events.message().await.expect("no error") {
            match response.event {
                Some(Event::Delta(delta)) => text.push_str(&delta.text),
                Some(Event::Done(done)) => return (text, done.receipt.expect("one").cache()),
                _ => {}
            }
        }
        panic!("no last event");
    };
    let first = ask("x = 1").await.0;
    let second = ask("y = 2").await.0;
    assert_ne!(first, second);
    let mut raw = redis.connection().await;
    let names = async || {
        let names: Vec<String> = raw.clone().keys("code-explainer:v3:*").await.ok()?;
        let answers: Vec<Vec<u8>> = raw.clone().mget(&names).await.ok()?;
        let stored = answers.iter().all(|value| value.starts_with(b"CXAN"));
        (names.len() == 2 && stored).then_some((names, answers))
    };
    let (names, answers) = eventually("both answers are stored", names).await;
    assert_eq!(ask("x = 1").await, (first.clone(), CacheLevel::Redis));
    let () = raw.set(&names[0], &answers[1]).await.expect("SET");
    let () = raw.set(&names[1], &answers[0]).await.expect("SET");
    for (code, wanted) in [("x = 1", &first), ("y = 2", &second)] {
        let (text, level) = ask(code).await;
        assert_eq!((&text, level), (wanted, CacheLevel::Unspecified), "{code}");
    }
    let forged = "code_explainer_cache_broken_values_total{reason=\"mac\"}";
    assert_eq!(server.metric(forged).await, Some(2.0));
}

#[test]
fn a_redis_without_a_secret_is_warned_of() {
    let with = |flags: &[&str]| config(flags).cache_warning();
    let url = ["--redis-url", "redis://127.0.0.1:1"];
    assert!(with(&url).is_some_and(|text| text.contains("CODE_EXPLAINER_CACHE_SECRET")));
    assert_eq!(with(&[&url[..], &["--cache-secret", "s"]].concat()), None);
    assert_eq!(with(&[]), None);
}
