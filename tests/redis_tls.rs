//! Redis behind TLS: an authority of one's own, certificates of clients, and what is refused at start.

use std::path::PathBuf;

use code_explainer_cache::{Cache, CacheConfig, Lookup, RedisConfig, RedisTls, Topology};

use crate::common::cache::{FAILURES, answer, key, patient, put_and_wait, replica};
use crate::common::certificates::Authority;
use crate::common::redis::{RedisServer, eventually};
use crate::common::redis_cluster::RedisCluster;

fn redis(host: &str, port: u16, tls: RedisTls) -> RedisConfig {
    RedisConfig {
        tls,
        ..patient(vec![format!("rediss://{host}:{port}")])
    }
}

fn trusting(ca: PathBuf) -> RedisTls {
    RedisTls {
        ca: Some(ca),
        ..RedisTls::default()
    }
}

/// Each look-up misses, and none fails.
async fn is_done_without(config: RedisConfig) {
    let cache = replica(config);
    for _ in 0..2 * FAILURES {
        assert_eq!(cache.lookup(&key("a")).await, Lookup::Miss);
    }
    assert_eq!(cache.stats().redis_errors, FAILURES);
    assert!(!cache.stats().redis_available);
}

#[tokio::test]
async fn answers_travel_through_tls_where_the_authority_is_trusted() {
    let (server, authority) = (RedisServer::start(), Authority::new());
    let port = authority.proxy(server.port(), false).await;
    for host in ["localhost", "127.0.0.1"] {
        let cache = replica(redis(host, port, trusting(authority.file())));
        put_and_wait(&cache, key(host), &answer("a")).await;
        assert_eq!(cache.stats().redis_errors, 0);
    }
}

#[tokio::test]
async fn who_is_not_whom_we_trust_is_done_without() {
    let (server, authority, other) = (RedisServer::start(), Authority::new(), Authority::new());
    let port = authority.proxy(server.port(), false).await;
    is_done_without(redis("localhost", port, trusting(other.file()))).await;
    // Nor does the system know the test's authority.
    is_done_without(redis("localhost", port, RedisTls::default())).await;
    // The right authority, but no TLS behind that port.
    is_done_without(redis(
        "localhost",
        server.port(),
        trusting(authority.file()),
    ))
    .await;
}

#[tokio::test]
async fn a_server_that_asks_for_a_certificate_gets_one() {
    let (server, authority) = (RedisServer::start(), Authority::new());
    let port = authority.proxy(server.port(), true).await;
    let (cert, key_file) = authority.client_files();
    let tls = RedisTls {
        ca: Some(authority.file()),
        cert: Some(cert),
        key: Some(key_file),
    };
    let cache = replica(redis("localhost", port, tls));
    put_and_wait(&cache, key("a"), &answer("a")).await;
    is_done_without(redis("localhost", port, trusting(authority.file()))).await;
}

#[tokio::test]
async fn sentinels_and_the_master_that_they_name() {
    let (master, authority, other) = (RedisServer::start(), Authority::new(), Authority::new());
    let sentinel = RedisServer::sentinel_of(authority.proxy_or_plain(master.port()).await, 1);
    let port = authority.proxy(sentinel.port(), false).await;
    let behind = |tls| RedisConfig {
        topology: Topology::Sentinel {
            master: "explainer".into(),
        },
        ..redis("localhost", port, tls)
    };
    let cache = replica(behind(trusting(authority.file())));
    put_and_wait(&cache, key("a"), &answer("a")).await;
    assert_eq!(cache.stats().redis_errors, 0);
    is_done_without(behind(trusting(other.file()))).await;
}

#[tokio::test]
async fn the_nodes_of_a_cluster() {
    let (cluster, authority, other) = (
        RedisCluster::start(false).await,
        Authority::new(),
        Authority::new(),
    );
    let mut ports = Vec::new();
    for node in &cluster.nodes {
        let port = authority.proxy(node.port(), false).await;
        node.set("cluster-announce-port", &port.to_string()).await;
        ports.push(port);
    }
    let known = async || {
        for node in 0..cluster.nodes.len() {
            let told = cluster.nodes_known_to(node).await;
            let all = ports.iter().all(|port| told.contains(&format!(":{port}@")));
            all.then_some(())?;
        }
        Some(())
    };
    eventually("the nodes know where clients find the others", known).await;
    let behind = |tls| RedisConfig {
        topology: Topology::Cluster,
        ..redis("127.0.0.1", ports[0], tls)
    };
    let cache = replica(behind(trusting(authority.file())));
    for code in 0..30 {
        put_and_wait(&cache, key(&code.to_string()), &answer("a")).await;
    }
    assert_eq!(cache.stats().redis_errors, 0);
    let cache = replica(behind(trusting(other.file())));
    assert_eq!(cache.lookup(&key("1")).await, Lookup::Miss);
    assert!(cache.stats().redis_errors > 0);
}

#[test]
fn what_cannot_be_is_refused_at_start() {
    let authority = Authority::new();
    let (ca, (cert, key)) = (authority.file(), authority.client_files());
    let garbage = ca.with_file_name("garbage.pem");
    let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    std::fs::write(&garbage, broken).expect("a file");
    let check = |url: &str, tls: RedisTls, wanted: &str| {
        let config = CacheConfig {
            redis: Some(RedisConfig {
                tls,
                ..patient(url.split(',').map(str::to_owned).collect())
            }),
            ..CacheConfig::default()
        };
        let error = Cache::new(config).expect_err("refused").to_string();
        assert!(error.contains(wanted), "{error}");
    };
    let none = RedisTls::default;
    check("rediss://host/#insecure", none(), "#insecure");
    check("redis://host", trusting(ca), "rediss://");
    check(
        "rediss://host",
        trusting("/nowhere/ca.pem".into()),
        "/nowhere/ca.pem",
    );
    check("rediss://host", trusting(garbage), "redis_url");
    let cert = RedisTls {
        cert: Some(cert),
        ..none()
    };
    check("rediss://host", cert, "redis_tls_cert: needs redis_tls_key");
    let key = RedisTls {
        key: Some(key),
        ..none()
    };
    check("rediss://host", key, "redis_tls_key: needs redis_tls_cert");
    check("redis://one,redis://two", none(), "there are several");
    check("redis://one,rediss://two", none(), "there are several");
}
