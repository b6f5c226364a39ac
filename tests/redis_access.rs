//! What an ACL user of Redis must be allowed to do is what the help of `--redis-username` says.

use code_explainer_cache::{Plan, RedisConfig, Selection, Told};

use crate::common::cache::{answer, deltas, found, key, patient, put_and_wait, replica};
use crate::common::redis::{RedisServer, eventually};

/// Allows a user the commands on our keys, and nothing else.
async fn allow(server: &RedisServer, commands: &str) {
    let mut connection = server.connection().await;
    let mut acl = redis::cmd("ACL");
    acl.arg(&[
        "SETUSER",
        "explainer",
        "reset",
        "on",
        ">s3cret",
        "~code-explainer:*",
    ]);
    for command in commands.split(' ') {
        acl.arg(format!("+{command}"));
    }
    let () = acl.query_async(&mut connection).await.expect("ACL SETUSER");
}

fn login(server: &RedisServer) -> RedisConfig {
    RedisConfig {
        username: Some("explainer".into()),
        password: Some("s3cret".into()),
        // The URL's user is not the one that is used.
        ..patient(vec![format!(
            "redis://nobody:nothing@127.0.0.1:{}",
            server.port()
        )])
    }
}

#[tokio::test]
async fn the_commands_that_the_help_names_are_enough() {
    let server = RedisServer::start();
    allow(
        &server,
        "getrange pttl set unlink eval xadd xrange pexpire scan dbsize info",
    )
    .await;
    let (one, two) = (replica(login(&server)), replica(login(&server)));
    put_and_wait(&one, key("a"), &answer("a")).await;
    let Plan::Lead(leader) = one.plan(&key("b")).await else {
        panic!("nobody else makes it");
    };
    let Plan::Follow(mut follower) = two.plan(&key("b")).await else {
        panic!("the other one makes it");
    };
    let told = deltas("b c");
    leader.tell(&told[0]);
    assert_eq!(follower.next().await, Told::Deltas(told[..1].to_vec()));
    leader.tell(&told[1]);
    one.finish(leader, key("b"), answer("b c"));
    assert_eq!(follower.next().await, Told::Deltas(told[1..].to_vec()));
    let done = Told::Done(Box::new((*answer("b c")).clone()));
    assert_eq!(follower.next().await, done);
    assert!(found(&two, &key("b")).await.is_some());
    let usage = one.remote_usage().await.expect("a Redis").expect("allowed");
    assert!(usage.keys >= 2);
    let cleared = one.clear_remote(&Selection::default()).await;
    assert_eq!(cleared.expect("a Redis").expect("allowed"), 2);
    for cache in [one, two] {
        assert_eq!(cache.stats().redis_errors, 0, "{:?}", cache.stats());
    }
}

#[tokio::test]
async fn without_scripts_answers_are_shared_and_leases_are_not() {
    let server = RedisServer::start();
    allow(&server, "getrange pttl set unlink").await;
    let config = RedisConfig {
        lease: None,
        ..login(&server)
    };
    let cache = replica(config);
    put_and_wait(&cache, key("a"), &answer("a")).await;
    assert!(matches!(cache.plan(&key("a")).await, Plan::Replay(..)));
    assert!(matches!(cache.plan(&key("b")).await, Plan::Make));
    assert_eq!(cache.stats().redis_errors, 0);
}

#[tokio::test]
async fn a_user_who_may_do_nothing_is_like_no_redis() {
    let server = RedisServer::start();
    allow(&server, "ping").await;
    let cache = replica(login(&server));
    let left_alone = async || {
        assert!(matches!(cache.plan(&key("a")).await, Plan::Make));
        cache.put(key("a"), answer("a"));
        (!cache.stats().redis_available).then_some(())
    };
    eventually("it is left alone", left_alone).await;
}
