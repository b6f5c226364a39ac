//! Redis behind Sentinels: the master's death is followed to its successor.

use std::time::Duration;

use code_explainer_cache::{RedisConfig, Topology};
use redis::AsyncCommands;

use crate::common::cache::{LONG, answer, found, key, patient, put_and_wait, replica};
use crate::common::redis::{RedisServer, eventually};

/// A master, its copy, and a Sentinel that knows of both.
struct Watched {
    master: RedisServer,
    copy: RedisServer,
    sentinel: RedisServer,
}

async fn watched() -> Watched {
    let start = || {
        let master = RedisServer::start();
        let of = master.port().to_string();
        let copy = RedisServer::start_with(&["--replicaof", "127.0.0.1", &of]);
        let sentinel = RedisServer::sentinel(&master, 1);
        Watched {
            master,
            copy,
            sentinel,
        }
    };
    let watched = tokio::task::spawn_blocking(start).await.expect("started");
    let mut sentinel = watched.sentinel.connection().await;
    let knows = async || {
        let mut replicas = redis::cmd("SENTINEL");
        replicas.arg(&["REPLICAS", "explainer"]);
        let known: Vec<redis::Value> = replicas.query_async(&mut sentinel).await.ok()?;
        let port = watched.copy.port().to_string();
        format!("{known:?}").contains(&port).then_some(())
    };
    eventually("the Sentinel knows the copy", knows).await;
    let in_sync = async || {
        let info = watched.copy.info("replication").await;
        info.contains("master_link_status:up").then_some(())
    };
    eventually("the copy is a copy", in_sync).await;
    watched
}

fn config(watched: &Watched) -> RedisConfig {
    RedisConfig {
        topology: Topology::Sentinel {
            master: "explainer".into(),
        },
        cooldown: Duration::from_millis(50),
        // One of the two is not there, which must not matter.
        ..patient(vec!["redis://127.0.0.1:1".into(), watched.sentinel.url()])
    }
}

#[tokio::test]
async fn the_master_is_found_and_its_successor_after_it() {
    let mut watched = watched().await;
    let cache = replica(config(&watched));
    put_and_wait(&cache, key("a"), &answer("a")).await;
    // So that the copy has it before its master dies: WAIT is for what this connection wrote, and for all before that.
    let mut master = watched.master.connection().await;
    let () = master.set("mark", 1).await.expect("SET");
    let mut wait = redis::cmd("WAIT");
    let copies: u64 = wait
        .arg(1)
        .arg(20_000)
        .query_async(&mut master)
        .await
        .expect("WAIT");
    assert_eq!(copies, 1);
    watched.master.kill();
    let serves = async || {
        cache.put(key("b"), answer("b"));
        found(&cache, &key("b")).await
    };
    eventually("the successor is written to", serves).await;
    // It has what its master had.
    assert!(found(&cache, &key("a")).await.is_some());
}

#[tokio::test]
async fn a_master_that_became_a_copy_is_left() {
    let watched = watched().await;
    let cache = replica(config(&watched));
    put_and_wait(&cache, key("a"), &answer("a")).await;
    let mut sentinel = watched.sentinel.connection().await;
    let mut failover = redis::cmd("SENTINEL");
    failover.arg(&["FAILOVER", "explainer"]);
    let started = async || failover.query_async::<()>(&mut sentinel).await.ok();
    eventually("the fail-over has begun", started).await;
    let promoted = async || {
        cache.put(key("b"), answer("b"));
        let info = watched.copy.info("replication").await;
        info.contains("role:master").then_some(())
    };
    eventually("the copy is the master", promoted).await;
    let arrives = async || {
        cache.put(key("c"), answer("c"));
        let mut copy = watched.copy.connection().await;
        let names = redis::cmd("KEYS").arg("*").query_async(&mut copy).await;
        let names: Vec<String> = names.ok()?;
        let wanted = key("c").to_string();
        names
            .iter()
            .any(|name| name.contains(&wanted))
            .then_some(())
    };
    eventually("what is written reaches it", arrives).await;
}

#[tokio::test]
async fn a_master_that_nobody_knows_is_done_without() {
    let watched = watched().await;
    let cache = replica(RedisConfig {
        topology: Topology::Sentinel {
            master: "stranger".into(),
        },
        cooldown: LONG,
        ..config(&watched)
    });
    for _ in 0..10 {
        assert!(found(&cache, &key("a")).await.is_none());
    }
    assert!(!cache.stats().redis_available);
}
