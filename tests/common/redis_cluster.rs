//! A real Redis Cluster for a test: three nodes that share the slots, and where wanted a copy of the first.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{FromRedisValue, Value};

use super::redis::{RedisServer, eventually, free_port};

/// Of slots in a cluster.
const SLOTS: u16 = 16_384;
/// Silence after which a node is taken for dead.
const NODE_TIMEOUT_MS: &str = "1000";

/// A running cluster. Node `n` of three has the `n`th third of the slots.
pub(crate) struct RedisCluster {
    pub(crate) nodes: Vec<RedisServer>,
}

impl RedisCluster {
    /// Three nodes; with `copy` a fourth one that takes over when the first dies.
    pub(crate) async fn start(copy: bool) -> Self {
        let count = if copy { 4 } else { 3 };
        let started = (0..count).map(|_| tokio::task::spawn_blocking(start_node));
        let mut nodes = Vec::new();
        let mut bus_ports = Vec::new();
        for node in futures::future::join_all(started).await {
            let (node, bus_port) = node.expect("a node");
            nodes.push(node);
            bus_ports.push(bus_port);
        }
        let cluster = Self { nodes };
        for n in 0..3 {
            let first = n * SLOTS / 3;
            let last = (n + 1) * SLOTS / 3 - 1;
            let range = ["ADDSLOTSRANGE".into(), first.to_string(), last.to_string()];
            let _: Value = cluster.ask(n.into(), &range).await;
        }
        for (node, bus_port) in cluster.nodes.iter().zip(bus_ports).skip(1) {
            let (port, bus_port) = (node.port().to_string(), bus_port.to_string());
            let meet = ["MEET".into(), "127.0.0.1".into(), port, bus_port];
            let _: Value = cluster.ask(0, &meet).await;
        }
        for node in 0..cluster.nodes.len() {
            cluster
                .until_info(node, &format!("cluster_known_nodes:{count}"))
                .await;
        }
        if copy {
            let first = cluster.id(0).await;
            let replicate = async || {
                let wish = ["REPLICATE".to_owned(), first.clone()];
                cluster.try_ask::<Value>(3, &wish).await.ok()
            };
            eventually("the copy knows whose it is", replicate).await;
            let in_sync = async || {
                let info = cluster.nodes[3].info("replication").await;
                info.contains("master_link_status:up").then_some(())
            };
            eventually("the copy is a copy", in_sync).await;
        }
        for node in 0..cluster.nodes.len() {
            cluster.until_info(node, "cluster_state:ok").await;
        }
        cluster
    }

    /// URLs of all nodes, as `--redis-url` takes them.
    pub(crate) fn urls(&self) -> Vec<String> {
        self.nodes.iter().map(RedisServer::url).collect()
    }

    /// The slot of a name.
    pub(crate) async fn slot(&self, name: &str) -> u16 {
        self.ask(0, &["KEYSLOT".into(), name.into()]).await
    }

    /// The node of three that has a slot at the beginning.
    pub(crate) fn home(slot: u16) -> usize {
        (0..3)
            .find(|n| slot < ((*n as u16) + 1) * SLOTS / 3)
            .expect("a slot")
    }

    /// Moves a slot with its keys from a node to another, as `redis-cli --cluster reshard` does. `between` runs while the
    /// slot is on its way, when half of its keys may have gone.
    pub(crate) async fn move_slot(
        &self,
        slot: u16,
        from: usize,
        to: usize,
        between: impl AsyncFnOnce(),
    ) {
        let (from_id, to_id) = (self.id(from).await, self.id(to).await);
        let set = |what: &str, id: &str| {
            [
                "SETSLOT".into(),
                slot.to_string(),
                what.into(),
                id.to_owned(),
            ]
        };
        let _: Value = self.ask(to, &set("IMPORTING", &from_id)).await;
        let _: Value = self.ask(from, &set("MIGRATING", &to_id)).await;
        let list = ["GETKEYSINSLOT".into(), slot.to_string(), "1000".into()];
        let keys: Vec<String> = self.ask(from, &list).await;
        let mut connection = self.nodes[from].connection().await;
        for key in keys {
            let _: Value = redis::cmd("MIGRATE")
                .arg(("127.0.0.1", self.nodes[to].port(), key, 0, 5000))
                .query_async(&mut connection)
                .await
                .expect("MIGRATE");
        }
        between().await;
        // All are told, the new owner first. One that has to hear of it from the others may hear of a later move before, which
        // gives the old owner a higher configuration epoch: it then tells the new owner that the slot is the old one's, and
        // the slot is nobody's.
        let others = (0..3).filter(|node| ![to, from].contains(node));
        for node in [to, from].into_iter().chain(others) {
            let _: Value = self.ask(node, &set("NODE", &to_id)).await;
        }
    }

    /// The nodes as one of them tells them.
    pub(crate) async fn nodes_known_to(&self, node: usize) -> String {
        self.ask(node, &["NODES".to_owned()]).await
    }

    async fn until_info(&self, node: usize, line: &str) {
        let known = async || {
            let info: String = self.ask(node, &["INFO".to_owned()]).await;
            info.lines().any(|l| l == line).then_some(())
        };
        eventually(line, known).await;
    }

    async fn id(&self, node: usize) -> String {
        self.ask(node, &["MYID".to_owned()]).await
    }

    async fn ask<T: FromRedisValue>(&self, node: usize, command: &[String]) -> T {
        let reply = self.try_ask(node, command).await;
        reply.unwrap_or_else(|err| panic!("CLUSTER {command:?}: {err}"))
    }

    async fn try_ask<T: FromRedisValue>(
        &self,
        node: usize,
        command: &[String],
    ) -> redis::RedisResult<T> {
        let mut connection: MultiplexedConnection = self.nodes[node].connection().await;
        connection.set_response_timeout(Duration::from_secs(10));
        let mut cluster = redis::cmd("CLUSTER");
        cluster.arg(command).query_async(&mut connection).await
    }
}

fn start_node() -> (RedisServer, u16) {
    let bus_port = free_port();
    let bus = bus_port.to_string();
    let options = [
        "--cluster-enabled",
        "yes",
        "--cluster-config-file",
        "nodes.conf",
        // Without a copy, the slots of a dead node are nobody's, and the others are served on.
        "--cluster-require-full-coverage",
        "no",
        "--cluster-node-timeout",
        NODE_TIMEOUT_MS,
        "--cluster-port",
        &bus,
    ];
    (RedisServer::start_with(&options), bus_port)
}
