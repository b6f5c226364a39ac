//! Redis as a cluster: answers on all shards, while slots move and when a node dies.

use std::time::Duration;

use code_explainer_cache::{Plan, RedisConfig, Selection, Told, Topology};

use crate::common::cache::{answer, deltas, found, key, key_of, patient, put_and_wait, replica};
use crate::common::redis::eventually;
use crate::common::redis_cluster::RedisCluster;

fn config(cluster: &RedisCluster) -> RedisConfig {
    RedisConfig {
        topology: Topology::Cluster,
        cooldown: Duration::from_millis(50),
        ..patient(cluster.urls())
    }
}

/// The slot of an answer, as Redis computes it.
async fn slot_of(cluster: &RedisCluster, code: &str) -> u16 {
    cluster.slot(&format!("{{{}}}", key(code))).await
}

#[tokio::test]
async fn answers_and_leases_are_on_all_shards_and_cleared_from_all() {
    let cluster = RedisCluster::start(false).await;
    // One node is enough to find the others.
    let one = replica(RedisConfig {
        urls: cluster.urls()[..1].to_vec(),
        ..config(&cluster)
    });
    let two = replica(config(&cluster));
    for code in 0..60 {
        put_and_wait(&one, key(&code.to_string()), &answer("a")).await;
    }
    put_and_wait(&one, key_of("test", "rust", "vanilla", "x"), &answer("a")).await;
    let usage = one.remote_usage().await.expect("a Redis").expect("works");
    assert_eq!(usage.keys, 61);
    for node in &cluster.nodes {
        let mut connection = node.connection().await;
        let keys: u64 = redis::cmd("DBSIZE")
            .query_async(&mut connection)
            .await
            .expect("DBSIZE");
        assert!(keys > 0, "no shard is empty");
    }
    for code in 100..110 {
        let key = key(&code.to_string());
        let Plan::Lead(leader) = one.plan(&key).await else {
            panic!("nobody else makes it");
        };
        let Plan::Follow(mut follower) = two.plan(&key).await else {
            panic!("the other one makes it");
        };
        leader.tell(&deltas("x")[0]);
        assert_eq!(follower.next().await, Told::Deltas(deltas("x")));
        one.finish(leader, key, answer("x"));
        assert!(matches!(follower.next().await, Told::Done(_)));
    }
    let python = Selection::new(b"secret", None, Some("python"), None);
    assert_eq!(
        two.clear_remote(&python)
            .await
            .expect("a Redis")
            .expect("works"),
        70
    );
    assert!(found(&two, &key("7")).await.is_none());
    assert!(
        found(&two, &key_of("test", "rust", "vanilla", "x"))
            .await
            .is_some()
    );
    assert_eq!(one.stats().redis_errors + two.stats().redis_errors, 0);
}

#[tokio::test]
async fn a_slot_that_moves_loses_no_answer() {
    let cluster = RedisCluster::start(false).await;
    let cache = replica(config(&cluster));
    put_and_wait(&cache, key("a"), &answer("a")).await;
    let slot = slot_of(&cluster, "a").await;
    let from = RedisCluster::home(slot);
    for (from, to) in [(from, (from + 1) % 3), ((from + 1) % 3, from)] {
        let on_its_way = async || {
            // The old node has the slot still, and the new one the answer.
            assert!(found(&cache, &key("a")).await.is_some());
            cache.put(key("a"), answer("again"));
            assert!(found(&cache, &key("a")).await.is_some());
        };
        cluster.move_slot(slot, from, to, on_its_way).await;
        assert!(found(&cache, &key("a")).await.is_some());
    }
    assert_eq!(cache.stats().redis_errors, 0, "{:?}", cache.stats());
}

#[tokio::test]
async fn a_node_that_dies_is_replaced_by_its_copy() {
    let mut cluster = RedisCluster::start(true).await;
    let cache = replica(RedisConfig {
        timeout: Duration::from_secs(1),
        ..config(&cluster)
    });
    // Found by trying: a snippet of the first node.
    let mut code = 0;
    while RedisCluster::home(slot_of(&cluster, &code.to_string()).await) != 0 {
        code += 1;
    }
    let key = key(&code.to_string());
    put_and_wait(&cache, key, &answer("a")).await;
    cluster.nodes[0].kill();
    let serves = async || {
        cache.put(key, answer("b"));
        found(&cache, &key)
            .await
            .filter(|found| *found == answer("b"))
    };
    eventually("the copy serves", serves).await;
}
