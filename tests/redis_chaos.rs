//! Whatever Redis does under load: no wrong answer, no error, no look-up that takes longer than is configured, and when it
//! is well again it is used again. The 99th percentiles are printed.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use code_explainer::cache::{Cache, RedisConfig, Topology};
use redis::AsyncCommands;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::common::cache::{found, key, replica};
use crate::common::redis::{RedisServer, eventually};
use crate::common::redis_cluster::RedisCluster;
use crate::common::redis_load::Load;

/// What is configured: `--redis-timeout`.
const TIMEOUT: Duration = Duration::from_millis(200);
/// What a loaded machine may take to wake those who waited.
const SLACK: Duration = Duration::from_millis(300);

fn config(urls: Vec<String>) -> RedisConfig {
    RedisConfig {
        urls,
        timeout: TIMEOUT,
        lease: Some(Duration::from_millis(500)),
        cooldown: Duration::from_millis(100),
        ..RedisConfig::new("")
    }
}

#[track_caller]
fn within_the_bound(load: &Load, what: &str) {
    let (p99, count) = load.p99();
    println!("{what}: p99 {p99:?} of {count} look-ups");
    assert!(p99 <= TIMEOUT + SLACK, "{what}: {p99:?}");
}

async fn is_left_alone(cache: &Cache) {
    let left = async || (!cache.stats().redis_available).then_some(());
    eventually("Redis is left alone", left).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_paused_filled_up_and_fed_garbage() {
    let mut server = RedisServer::start();
    let load = Load::start(replica(config(vec![server.url()])));
    load.hits(500).await;
    within_the_bound(&load, "well");

    server.kill();
    is_left_alone(load.cache()).await;
    load.asked(2000).await;
    within_the_bound(&load, "killed");
    server.restart();
    load.hits(500).await;
    within_the_bound(&load, "started again");

    server.pause();
    is_left_alone(load.cache()).await;
    load.asked(2000).await;
    within_the_bound(&load, "paused");
    server.resume();
    load.hits(500).await;
    within_the_bound(&load, "resumed");

    let mut raw = server.connection().await;
    let set = async |raw: &mut redis::aio::MultiplexedConnection, memory: &str| {
        let mut command = redis::cmd("CONFIG");
        command.arg(&["SET", "maxmemory-policy", "noeviction", "maxmemory", memory]);
        let () = command.query_async(raw).await.expect("CONFIG SET");
    };
    let () = redis::cmd("FLUSHALL")
        .query_async(&mut raw)
        .await
        .expect("FLUSHALL");
    load.hits(100).await;
    set(&mut raw, "1").await;
    let errors = load.cache().stats().redis_errors;
    load.asked(2000).await;
    assert!(
        load.cache().stats().redis_errors > errors,
        "writes are refused"
    );
    assert!(load.cache().stats().redis_available, "and reads are not");
    within_the_bound(&load, "full");
    set(&mut raw, "0").await;
    load.hits(500).await;

    let broken = load.cache().stats().broken_values;
    let stop = AtomicBool::new(false);
    let feed = async {
        let mut n = 0_u64;
        while !stop.load(Ordering::Relaxed) {
            let names: Vec<String> = raw.keys("code-explainer:*").await.expect("KEYS");
            for name in names.iter().skip(n as usize % 7).step_by(7) {
                n += 1;
                let garbage = n.to_le_bytes().repeat(1 + n as usize % 90);
                let () = raw.set(name, garbage).await.expect("SET");
            }
        }
    };
    let suffer = async {
        load.asked(3000).await;
        stop.store(true, Ordering::Relaxed);
    };
    tokio::join!(feed, suffer);
    assert!(load.cache().stats().broken_values > broken + 10);
    within_the_bound(&load, "fed garbage");
    load.hits(500).await;
    load.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lies() {
    let replies: [&[u8]; 6] = [
        b"+OK\r\n",
        b"*-1\r\n",
        b"\xff\xfe\r\n\r\n$$$",
        b":-9223372036854775808\r\n",
        b"*1\r\n*1\r\n*1\r\n$3\r\nabc\r\n",
        // Of which nothing comes.
        b"$536870911\r\nx",
    ];
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .await
        .expect("a port");
    let port = listener.local_addr().expect("an address").port();
    tokio::spawn(async move {
        for n in 0_usize.. {
            let Ok((mut client, _)) = listener.accept().await else {
                return;
            };
            tokio::spawn(async move {
                let mut buffer = [0; 4096];
                while client.read(&mut buffer).await.is_ok_and(|read| read > 0) {
                    let reply = replies[n % replies.len()].repeat(3);
                    if client.write_all(&reply).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    let load = Load::start(replica(config(vec![format!("redis://127.0.0.1:{port}")])));
    load.asked(3000).await;
    assert!(load.cache().stats().redis_errors > 0);
    within_the_bound(&load, "lies");
    load.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sentinels_fail_over() {
    let start = || {
        let master = RedisServer::start();
        let of = master.port().to_string();
        let copy = RedisServer::start_with(&["--replicaof", "127.0.0.1", &of]);
        let sentinel = RedisServer::sentinel(&master, 1);
        (master, copy, sentinel)
    };
    let (mut master, copy, sentinel) = tokio::task::spawn_blocking(start).await.expect("started");
    let known = async || {
        let info = sentinel.info("sentinel").await;
        info.contains("slaves=1").then_some(())
    };
    eventually("the Sentinel knows the copy", known).await;
    let topology = Topology::Sentinel {
        master: "explainer".into(),
    };
    let load = Load::start(replica(RedisConfig {
        topology,
        ..config(vec![sentinel.url()])
    }));
    load.hits(500).await;
    within_the_bound(&load, "master well");
    master.kill();
    let promoted = async || {
        let info = copy.info("replication").await;
        info.contains("role:master").then_some(())
    };
    eventually("the copy is the master", promoted).await;
    load.hits(500).await;
    within_the_bound(&load, "failed over");
    assert!(load.cache().stats().redis_available);
    load.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_moves_slots() {
    let cluster = RedisCluster::start(false).await;
    let load = on_cluster(&cluster).await;
    let errors = load.cache().stats().redis_errors;
    for n in 0..20 {
        let slot = cluster.slot(&format!("{{{}}}", key(&n.to_string()))).await;
        let from = RedisCluster::home(slot);
        let meanwhile = async || load.asked(20).await;
        cluster
            .move_slot(slot, from, (from + 1) % 3, meanwhile)
            .await;
    }
    within_the_bound(&load, "slots moved");
    println!(
        "redis errors: {}",
        load.cache().stats().redis_errors - errors
    );
    load.hits(500).await;
    within_the_bound(&load, "after the moves");
    load.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_loses_a_node() {
    let mut cluster = RedisCluster::start(true).await;
    let load = on_cluster(&cluster).await;
    cluster.nodes[0].kill();
    let promoted = async || {
        let info = cluster.nodes[3].info("replication").await;
        info.contains("role:master").then_some(())
    };
    eventually("the copy is the master", promoted).await;
    load.hits(500).await;
    within_the_bound(&load, "node lost");
    // The shards that were never touched, and the one that changed hands.
    shared_again(&load).await;
    load.stop().await;
}

async fn on_cluster(cluster: &RedisCluster) -> Load {
    let load = Load::start(replica(RedisConfig {
        topology: Topology::Cluster,
        ..config(cluster.urls())
    }));
    load.hits(500).await;
    within_the_bound(&load, "cluster well");
    load
}

async fn shared_again(load: &Load) {
    let all = async || {
        for n in 0..30 {
            found(load.cache(), &key(&n.to_string())).await?;
        }
        Some(())
    };
    eventually("every answer is shared again", all).await;
}
