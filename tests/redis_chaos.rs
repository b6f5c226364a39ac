//! Whatever Redis does under load, clients get right answers over gRPC and no error, and wait no longer than is configured
//! beyond what they wait without a Redis; when it is well again it is used again. The 99th percentiles are printed.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use redis::AsyncCommands;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::common::redis::{RedisServer, eventually};
use crate::common::redis_cluster::RedisCluster;
use crate::common::redis_load::Load;

/// What is configured: `--redis-timeout`.
const TIMEOUT: Duration = Duration::from_millis(200);
/// What a loaded machine may take beside it to wake those who wait.
const SLACK: Duration = Duration::from_millis(300);

const ERRORS: &str = "code_explainer_redis_errors_total";
const BROKEN: &str = "code_explainer_cache_broken_values_total{reason=\"format\"}";

async fn start(urls: &str, more: &[&str]) -> Load {
    let flags = [
        "--redis-url",
        urls,
        "--redis-timeout",
        "200ms",
        "--redis-lease",
        "500ms",
        "--redis-cooldown",
        "100ms",
    ];
    let flags: Vec<&str> = flags.iter().chain(more).copied().collect();
    Load::start(&flags).await
}

#[track_caller]
fn within_the_bound(load: &Load, what: &str) {
    let (p99, without) = load.p99();
    println!("{what}: p99 {p99:?}, {without:?} without a Redis");
    assert!(p99 <= without + TIMEOUT + SLACK, "{what}: {p99:?}");
}

async fn is_left_alone(load: &Load) {
    let left = async || (!load.redis_is_asked().await).then_some(());
    eventually("Redis is left alone", left).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_paused_filled_up_and_fed_garbage() {
    let mut server = RedisServer::start();
    let load = start(&server.url(), &[]).await;
    load.hits(500).await;
    within_the_bound(&load, "well");

    server.kill();
    is_left_alone(&load).await;
    load.answers(2000).await;
    within_the_bound(&load, "killed");
    server.restart();
    load.hits(500).await;
    within_the_bound(&load, "started again");

    server.pause();
    is_left_alone(&load).await;
    load.answers(2000).await;
    within_the_bound(&load, "paused");
    server.resume();
    load.hits(500).await;
    within_the_bound(&load, "resumed");

    let mut raw = server.connection().await;
    let flush = redis::cmd("FLUSHALL").query_async::<()>(&mut raw).await;
    flush.expect("FLUSHALL");
    load.hits(100).await;
    server.set("maxmemory-policy", "noeviction").await;
    server.set("maxmemory", "1").await;
    let errors = load.metric(ERRORS).await;
    load.answers(2000).await;
    assert!(load.metric(ERRORS).await > errors, "writes are refused");
    assert!(load.redis_is_asked().await, "and reads are not");
    within_the_bound(&load, "full");
    server.set("maxmemory", "0").await;
    load.hits(500).await;

    let broken = load.metric(BROKEN).await;
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
        load.answers(3000).await;
        stop.store(true, Ordering::Relaxed);
    };
    tokio::join!(feed, suffer);
    assert!(load.metric(BROKEN).await > broken + 10.0);
    within_the_bound(&load, "fed garbage");
    load.all_are_shared().await;
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
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
    let listener = listener.expect("a port");
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
    let load = start(&format!("redis://127.0.0.1:{port}"), &[]).await;
    load.answers(3000).await;
    assert!(load.metric(ERRORS).await > 0.0);
    within_the_bound(&load, "lies");
    load.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sentinels_fail_over() {
    let start_all = || {
        let master = RedisServer::start();
        let of = master.port().to_string();
        let copy = RedisServer::start_with(&["--replicaof", "127.0.0.1", &of]);
        let sentinel = RedisServer::sentinel(&master, 1);
        (master, copy, sentinel)
    };
    let started = tokio::task::spawn_blocking(start_all).await;
    let (mut master, copy, sentinel) = started.expect("started");
    let known = async || {
        let info = sentinel.info("sentinel").await;
        info.contains("slaves=1").then_some(())
    };
    eventually("the Sentinel knows the copy", known).await;
    let load = start(&sentinel.url(), &["--redis-sentinel-master", "explainer"]).await;
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
    load.all_are_shared().await;
    assert!(load.redis_is_asked().await);
    load.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_moves_slots() {
    let cluster = RedisCluster::start(false).await;
    let load = on_cluster(&cluster).await;
    let errors = load.metric(ERRORS).await;
    for n in 0..20 {
        // The slot of an answer that this node has, which others are asked for, too.
        let (from, to) = (n % 3, (n + 1) % 3);
        let mut connection = cluster.nodes[from].connection().await;
        let names: Vec<String> = connection.keys("code-explainer:v*").await.expect("KEYS");
        let slot = cluster.slot(&names[n]).await;
        let meanwhile = async || load.answers(20).await;
        cluster.move_slot(slot, from, to, meanwhile).await;
    }
    within_the_bound(&load, "slots moved");
    println!("redis errors: {}", load.metric(ERRORS).await - errors);
    load.hits(500).await;
    within_the_bound(&load, "after the moves");
    load.all_are_shared().await;
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
    load.all_are_shared().await;
    load.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_shard_takes_nothing_from_the_others() {
    let mut cluster = RedisCluster::start(false).await;
    let load = on_cluster(&cluster).await;
    cluster.nodes[0].kill();
    is_left_alone(&load).await;
    // Until all that it had is left alone.
    load.answers(1000).await;
    let before = load.counts();
    load.answers(2000).await;
    let after = load.counts();
    within_the_bound(&load, "a shard is dead");
    let hits = (after.1 - before.1) as f64 / (after.0 - before.0) as f64;
    println!("the others' hits: {hits:.3} of all answers");
    assert!(hits > 0.55, "they have two thirds of the answers: {hits}");
    cluster.nodes[0].restart();
    load.all_are_shared().await;
    load.stop().await;
}

async fn on_cluster(cluster: &RedisCluster) -> Load {
    let urls = cluster.urls().join(",");
    let load = start(&urls, &["--redis-cluster", "on"]).await;
    load.hits(500).await;
    within_the_bound(&load, "cluster well");
    load
}
