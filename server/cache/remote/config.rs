//! How Redis is set up.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// How to use Redis.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisConfig {
    /// `redis_url`: `redis://[user:password@]host[:port][/database]`, the same with `rediss://` for TLS, or
    /// `unix:///path`. One for a single server; for the others as many as are known, of which one that answers is
    /// enough.
    pub urls: Vec<String>,
    /// What the URLs are of.
    pub topology: Topology,
    /// `redis_username`: the ACL user of the servers that hold the data, in place of the URLs'.
    pub username: Option<String>,
    /// `redis_password`: its password, in place of the URLs'.
    pub password: Option<String>,
    /// `cache_secret`: keys the message authentication codes of what is stored, the same on all replicas. Where it is empty,
    /// who can write to Redis can forge answers.
    pub secret: String,
    /// What TLS trusts and shows.
    pub tls: RedisTls,
    /// `redis_connections`: connections, or with a cluster connections to each node. Commands are pipelined, so that
    /// a few serve many. 1 to 64.
    pub connections: usize,
    /// `redis_timeout`: the longest that a look-up waits for Redis, connecting included. At most a minute.
    pub timeout: Duration,
    /// `redis_lease`: for how long a replica is trusted to be at work on an answer without a sign of life; meanwhile the
    /// others stream what it makes. `None`: each replica makes its own. 100 ms to an hour.
    pub lease: Option<Duration>,
    /// `redis_cooldown`: how long Redis is left alone after five failures in a row, before a probe in the background
    /// sees whether it is back. At most a day.
    pub cooldown: Duration,
}

/// What the URLs are of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Topology {
    /// The one server.
    Single,
    /// Sentinels, which name the server to use.
    Sentinel {
        /// `redis_sentinel_master`: the name under which they watch it.
        master: String,
    },
    /// Nodes of a cluster that shards the keys.
    Cluster,
}

/// TLS with `rediss://`: what is trusted and shown. PEM files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RedisTls {
    /// `redis_tls_ca`: the authorities to trust in place of the system's.
    pub ca: Option<PathBuf>,
    /// `redis_tls_cert`: this client's certificate chain, for servers that ask for one.
    pub cert: Option<PathBuf>,
    /// `redis_tls_key`: its private key.
    pub key: Option<PathBuf>,
}

impl RedisConfig {
    /// A single Redis that may take 50 ms, and is left alone for a second when it keeps failing.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            urls: vec![url.into()],
            topology: Topology::Single,
            username: None,
            password: None,
            secret: String::new(),
            tls: RedisTls::default(),
            connections: 2,
            timeout: Duration::from_millis(50),
            lease: Some(Duration::from_secs(3)),
            cooldown: Duration::from_secs(1),
        }
    }
}

impl fmt::Debug for RedisConfig {
    /// Without URLs, password and secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisConfig")
            .field("topology", &self.topology)
            .field("tls", &self.tls)
            .field("connections", &self.connections)
            .field("timeout", &self.timeout)
            .field("lease", &self.lease)
            .field("cooldown", &self.cooldown)
            .finish_non_exhaustive()
    }
}
