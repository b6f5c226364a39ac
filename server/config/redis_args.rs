//! Flags about the Redis that replicas share.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use code_explainer_cache::{RedisConfig, RedisTls, Topology};

#[derive(Debug, Args)]
pub(super) struct RedisArgs {
    /// A Redis shared by all replicas: redis://[USER:PASSWORD@]HOST[:PORT][/DB], or rediss:// for TLS. Without it, only
    /// memory is used. When it is slow or gone, requests go on without it. With Sentinels or a cluster, several URLs,
    /// separated by commas: of as many of them as are known, any that answers is enough
    #[arg(long, env = "CODE_EXPLAINER_REDIS_URL", value_name = "URL,...")]
    #[arg(value_delimiter = ',', hide_env_values = true)]
    redis_url: Vec<String>,

    /// The URLs are of Sentinels, which watch the server to use under this name. They are asked for it at each connection,
    /// so that a fail-over is followed. Their URLs' user and password are for the Sentinels; those of the servers are
    /// --redis-username and --redis-password
    #[arg(
        long,
        env = "CODE_EXPLAINER_REDIS_SENTINEL_MASTER",
        value_name = "NAME"
    )]
    redis_sentinel_master: Option<String>,

    /// The URLs are of nodes of a Redis Cluster, which shards the keys
    #[arg(long, env = "CODE_EXPLAINER_REDIS_CLUSTER", default_value = "off")]
    redis_cluster: Switch,

    /// ACL user at the servers that hold the data, in place of the one in the URL. It needs the commands that its keys'
    /// pattern ~code-explainer:* is used with: GETRANGE, PTTL, SET, UNLINK, and for one answer by one replica at a time
    /// EVAL, XADD, XRANGE, PEXPIRE; SCAN, DBSIZE and INFO for statistics and clearing; +cluster with a cluster,
    /// +role with Sentinels
    #[arg(long, env = "CODE_EXPLAINER_REDIS_USERNAME", value_name = "NAME")]
    redis_username: Option<String>,

    /// Its password, in place of the one in the URL
    #[arg(long, env = "CODE_EXPLAINER_REDIS_PASSWORD", value_name = "PASSWORD")]
    #[arg(hide_env_values = true)]
    redis_password: Option<String>,

    /// With rediss://, a PEM file with the authorities to trust in place of the system's
    #[arg(long, env = "CODE_EXPLAINER_REDIS_TLS_CA", value_name = "FILE")]
    redis_tls_ca: Option<PathBuf>,

    /// With rediss://, a PEM file with the certificate to show to a server that asks for one
    #[arg(long, env = "CODE_EXPLAINER_REDIS_TLS_CERT", value_name = "FILE")]
    redis_tls_cert: Option<PathBuf>,

    /// The private key of that certificate, in PEM
    #[arg(long, env = "CODE_EXPLAINER_REDIS_TLS_KEY", value_name = "FILE")]
    redis_tls_key: Option<PathBuf>,

    /// Connections to Redis, or to each node of a cluster. Commands of many items share one at the same time: two are
    /// enough for thousands of look-ups a second; more are for TLS on machines of many cores
    #[arg(long, env = "CODE_EXPLAINER_REDIS_CONNECTIONS", value_name = "N")]
    #[arg(default_value_t = 2)]
    redis_connections: usize,

    /// For how long a replica is trusted to be at work on an answer without a sign of life, while the other replicas that
    /// are asked the same stream what it makes; then one of them takes over. 0s: each replica makes its own
    #[arg(
        long,
        env = "CODE_EXPLAINER_REDIS_LEASE",
        value_name = "TIME",
        default_value = "3s"
    )]
    redis_lease: humantime::Duration,

    /// After five failures in a row, the time for which Redis is left alone
    #[arg(long, env = "CODE_EXPLAINER_REDIS_COOLDOWN", value_name = "TIME")]
    #[arg(default_value = "1s")]
    redis_cooldown: humantime::Duration,

    /// Longest wait for Redis in the way of an answer
    #[arg(long, env = "CODE_EXPLAINER_REDIS_TIMEOUT", value_name = "TIME")]
    #[arg(default_value = "50ms")]
    redis_timeout: humantime::Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Switch {
    On,
    Off,
}

impl RedisArgs {
    /// What the flags say together, with the installation's secret; the values themselves are checked by the cache.
    pub(super) fn validate(self, secret: &str) -> Result<Option<RedisConfig>, String> {
        let topology = match (self.redis_sentinel_master, self.redis_cluster) {
            (None, Switch::Off) => Topology::Single,
            (Some(master), Switch::Off) => Topology::Sentinel { master },
            (None, Switch::On) => Topology::Cluster,
            (Some(_), Switch::On) => {
                let problem = "--redis-sentinel-master and --redis-cluster exclude each other: a cluster fails over \
                               by itself";
                return Err(problem.into());
            }
        };
        let tls = RedisTls {
            ca: self.redis_tls_ca,
            cert: self.redis_tls_cert,
            key: self.redis_tls_key,
        };
        if self.redis_url.is_empty() {
            let alone = [
                (
                    "redis-sentinel-master or --redis-cluster",
                    topology != Topology::Single,
                ),
                ("redis-username", self.redis_username.is_some()),
                ("redis-password", self.redis_password.is_some()),
                ("redis-tls-ca, -cert or -key", tls != RedisTls::default()),
            ];
            return match alone.iter().find(|(_, given)| *given) {
                Some((flag, _)) => Err(format!("--{flag} is given, but no --redis-url")),
                None => Ok(None),
            };
        }
        Ok(Some(RedisConfig {
            urls: self.redis_url,
            topology,
            username: self.redis_username,
            password: self.redis_password,
            secret: secret.to_owned(),
            tls,
            connections: self.redis_connections,
            timeout: self.redis_timeout.into(),
            lease: (!self.redis_lease.is_zero()).then(|| self.redis_lease.into()),
            cooldown: self.redis_cooldown.into(),
        }))
    }
}
