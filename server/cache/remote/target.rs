//! How a connection to Redis is made: to one server, to the one that Sentinels name, or to the nodes of a cluster.

use std::fmt;
use std::fs;
use std::path::Path;
use std::time::Duration;

use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::cluster::{ClusterClient, ClusterClientBuilder};
use redis::cluster_async::ClusterConnection;
use redis::sentinel::{SentinelClient, SentinelClientBuilder, SentinelServerType};
use redis::{
    AsyncConnectionConfig, Client, ClientTlsConfig, ConnectionAddr, ConnectionInfo, ErrorKind,
    IntoConnectionInfo, Pipeline, RedisError, TlsCertificates, TlsMode, Value,
};
use tokio::time::timeout;

use super::config::{RedisConfig, RedisTls, Topology};
use crate::config::CacheError;

/// How long making a connection to a server may take: name look-up, TCP, TLS, authentication.
const CONNECT_LIMIT: Duration = Duration::from_secs(1);
/// How long it may take to learn which servers there are, and to connect to them.
const DISCOVERY_LIMIT: Duration = Duration::from_secs(3);
/// Redirections and reconnections of one command in a cluster; its caller waits no longer than its own limit anyway.
const CLUSTER_RETRIES: u32 = 4;
/// Pauses between them, in milliseconds.
const CLUSTER_RETRY_MS: (u64, u64) = (1, 20);

/// Where to connect to, as configured.
pub(super) enum Target {
    /// One server.
    Server(Box<Client>),
    /// The server that Sentinels name. They are asked for each connection: it is another one after a fail-over.
    Sentinel(Box<Sentinel>),
    /// The nodes of a cluster, found out from some of them.
    Cluster(Box<ClusterClient>, String),
}

/// What is needed to ask Sentinels.
pub(super) struct Sentinel {
    sentinels: Vec<ConnectionInfo>,
    master: String,
    username: Option<String>,
    password: Option<String>,
    certificates: Option<TlsCertificates>,
}

/// A connection that is made. Clones share it.
#[derive(Clone)]
pub(super) enum Connection {
    Server(MultiplexedConnection),
    Cluster(ClusterConnection),
}

impl Target {
    /// Reads the certificates, and connects to nothing yet.
    ///
    /// # Errors
    /// A setting that cannot be. The error tells no user or password.
    pub(super) fn new(config: &RedisConfig) -> Result<Self, CacheError> {
        let servers = servers(config)?;
        let secure = servers.iter().all(is_tls);
        if !secure && servers.iter().any(is_tls) {
            return Err(bad_url("some are rediss:// and some are not"));
        }
        let certificates = certificates(&config.tls)?;
        if certificates.is_some() && !secure {
            return Err(bad_url("certificates are for rediss:// alone"));
        }
        if secure {
            // What is there already will do, too.
            let _ = rustls::crypto::ring::default_provider().install_default();
        }
        let target = match &config.topology {
            Topology::Single => server(config, servers, certificates),
            Topology::Sentinel { master } => sentinel(config, servers, master, certificates),
            Topology::Cluster => cluster(config, servers, certificates),
        };
        target.map_err(|err| bad_url(&err.to_string()))
    }

    /// Makes a connection, in [`CONNECT_LIMIT`] or [`DISCOVERY_LIMIT`].
    ///
    /// # Errors
    /// Nobody there, nobody who lets us in, or not in time.
    pub(super) async fn connect(&self) -> Result<Connection, RedisError> {
        // Callers limit how long they wait for a reply.
        let limits = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_LIMIT))
            .set_response_timeout(None);
        let connect = async {
            match self {
                Self::Server(client) => {
                    let connection = client.get_multiplexed_async_connection_with_config(&limits);
                    connection.await.map(Connection::Server)
                }
                Self::Sentinel(sentinel) => {
                    let mut client = sentinel.client()?;
                    let connection = client.get_async_connection_with_config(&limits);
                    connection.await.map(Connection::Server)
                }
                Self::Cluster(client, _) => {
                    client.get_async_connection().await.map(Connection::Cluster)
                }
            }
        };
        let made = timeout(DISCOVERY_LIMIT, connect).await;
        made.unwrap_or_else(|_| Err((ErrorKind::Io, "no connection in time").into()))
    }
}

impl Sentinel {
    fn client(&self) -> Result<SentinelClient, RedisError> {
        let addresses = self.sentinels.iter().map(|s| s.addr().clone());
        let mut builder =
            SentinelClientBuilder::new(addresses, &self.master, SentinelServerType::Master)?;
        let secure = self.sentinels.iter().any(is_tls);
        if secure {
            builder = builder.set_client_to_redis_tls_mode(TlsMode::Secure);
        }
        if let Some(certificates) = &self.certificates {
            builder = builder
                .set_client_to_redis_certificates(certificates.clone())
                .set_client_to_sentinel_certificates(certificates.clone());
        }
        if let Some(username) = &self.username {
            builder = builder.set_client_to_redis_username(username);
        }
        if let Some(password) = &self.password {
            builder = builder.set_client_to_redis_password(password);
        }
        // The URLs are of the Sentinels, and so are their users; they agree in them.
        let settings = self.sentinels.first().map(ConnectionInfo::redis_settings);
        if let Some(username) = settings.and_then(|s| s.username()) {
            builder = builder.set_client_to_sentinel_username(username);
        }
        if let Some(password) = settings.and_then(|s| s.password()) {
            builder = builder.set_client_to_sentinel_password(password);
        }
        if let Some(settings) = settings {
            builder = builder.set_client_to_redis_db(settings.db());
        }
        builder.build()
    }
}

impl Connection {
    /// Sends commands in one go and waits for as many replies, each of which may be a `Value::ServerError`.
    ///
    /// # Errors
    /// The connection broke, or in a cluster no node could be found that serves the commands' keys.
    pub(super) async fn send(&mut self, commands: &Pipeline) -> Result<Vec<Value>, RedisError> {
        match self {
            Self::Server(connection) => {
                let replies = connection.req_packed_commands(commands, 0, commands.len());
                replies.await
            }
            // One after the other: a node that is being given their slot wants to be told before each, which the crate does
            // for single commands.
            Self::Cluster(connection) => {
                let mut replies = Vec::with_capacity(commands.len());
                for command in commands.cmd_iter() {
                    replies.push(connection.req_packed_command(command).await?);
                }
                Ok(replies)
            }
        }
    }
}

impl fmt::Display for Target {
    /// Addresses, without user and password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Server(client) => client.get_connection_info().addr().fmt(f),
            Self::Sentinel(sentinel) => {
                let sentinels = addresses(&sentinel.sentinels);
                write!(f, "{} by {sentinels}", sentinel.master)
            }
            Self::Cluster(_, nodes) => write!(f, "cluster of {nodes}"),
        }
    }
}

fn servers(config: &RedisConfig) -> Result<Vec<ConnectionInfo>, CacheError> {
    let parse = |(at, url): (usize, &String)| {
        let server = url.as_str().into_connection_info();
        let server = server.map_err(|_| bad_url(&what_is_wrong(url, at)))?;
        match server.addr() {
            ConnectionAddr::TcpTls { insecure: true, .. } => Err(bad_url(
                "#insecure is not supported; name the authority to trust in redis_tls_ca",
            )),
            _ => Ok(server),
        }
    };
    let servers = config
        .urls
        .iter()
        .enumerate()
        .map(parse)
        .collect::<Result<Vec<_>, _>>()?;
    match (&config.topology, servers.len()) {
        (_, 0) => Err(bad_url("there is none")),
        (Topology::Single, 2..) => Err(bad_url(
            "there are several, which only Sentinels (redis_sentinel_master) and nodes of a \
             cluster (redis_cluster) can be",
        )),
        _ => Ok(servers),
    }
}

/// Which part of an address is wrong; its user and password are not told.
fn what_is_wrong(url: &str, at: usize) -> String {
    let part = match url.split_once("://") {
        None => "its beginning is not redis:// or rediss://",
        Some((scheme, _)) if scheme != "redis" && scheme != "rediss" => {
            "its beginning is not redis:// or rediss://"
        }
        Some((_, rest)) => {
            let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
            let (host, database) = host.split_once('/').unwrap_or((host, ""));
            let port = host.rsplit_once(':').map_or("", |(_, port)| port);
            if host.is_empty() {
                "it has no host"
            } else if !host.ends_with(']') && port.parse::<u16>().is_err() && !port.is_empty() {
                "its port is no number up to 65535"
            } else if !database.is_empty() && database.parse::<u32>().is_err() {
                "its database is no number"
            } else {
                "its host, user or password has a character that cannot stand there"
            }
        }
    };
    format!(
        "address {}: {part}. A comma ends an address; in a user or a password write %2C for it, %40 for @, %2F for /, \
         %3A for :, or use --redis-username and --redis-password",
        at + 1
    )
}

fn server(
    config: &RedisConfig,
    servers: Vec<ConnectionInfo>,
    certificates: Option<TlsCertificates>,
) -> Result<Target, RedisError> {
    let server = servers.into_iter().next();
    let server = server.ok_or((ErrorKind::InvalidClientConfig, "there is none"))?;
    let mut settings = server.redis_settings().clone();
    if let Some(username) = &config.username {
        settings = settings.set_username(username);
    }
    if let Some(password) = &config.password {
        settings = settings.set_password(password);
    }
    let server = server.set_redis_settings(settings);
    let client = match certificates {
        Some(certificates) => Client::build_with_tls(server, certificates)?,
        None => Client::open(server)?,
    };
    Ok(Target::Server(Box::new(client)))
}

fn sentinel(
    config: &RedisConfig,
    sentinels: Vec<ConnectionInfo>,
    master: &str,
    certificates: Option<TlsCertificates>,
) -> Result<Target, RedisError> {
    let login = |s: &ConnectionInfo| {
        let settings = s.redis_settings();
        let text = |t: Option<&str>| t.map(str::to_owned);
        (
            text(settings.username()),
            text(settings.password()),
            settings.db(),
        )
    };
    if sentinels.iter().any(|s| login(s) != login(&sentinels[0])) {
        return Err((
            ErrorKind::InvalidClientConfig,
            "the Sentinels' users, passwords and databases differ",
        )
            .into());
    }
    let sentinel = Sentinel {
        sentinels,
        master: master.to_owned(),
        username: config.username.clone(),
        password: config.password.clone(),
        certificates,
    };
    // A client is made for each connection; here to see that it can be.
    sentinel.client()?;
    Ok(Target::Sentinel(Box::new(sentinel)))
}

fn cluster(
    config: &RedisConfig,
    nodes: Vec<ConnectionInfo>,
    certificates: Option<TlsCertificates>,
) -> Result<Target, RedisError> {
    let names = addresses(&nodes);
    let mut builder = ClusterClientBuilder::new(nodes)
        .connection_timeout(CONNECT_LIMIT)
        // A command whose caller has gone must not stay for ever.
        .response_timeout(CONNECT_LIMIT)
        .overall_response_timeout(Some(DISCOVERY_LIMIT))
        .retries(CLUSTER_RETRIES)
        .min_retry_wait(CLUSTER_RETRY_MS.0)
        .max_retry_wait(CLUSTER_RETRY_MS.1);
    if let Some(username) = &config.username {
        builder = builder.username(username);
    }
    if let Some(password) = &config.password {
        builder = builder.password(password);
    }
    if let Some(certificates) = certificates {
        builder = builder.certs(certificates);
    }
    Ok(Target::Cluster(Box::new(builder.build()?), names))
}

fn certificates(tls: &RedisTls) -> Result<Option<TlsCertificates>, CacheError> {
    let read = |option: &'static str, path: &Path| {
        fs::read(path).map_err(|err| CacheError::Redis {
            option,
            reason: format!("{}: {err}", path.display()),
        })
    };
    let root_cert = tls.ca.as_deref().map(|ca| read("redis_tls_ca", ca));
    let root_cert = root_cert.transpose()?;
    let client_tls = match (&tls.cert, &tls.key) {
        (Some(cert), Some(key)) => Some(ClientTlsConfig {
            client_cert: read("redis_tls_cert", cert)?,
            client_key: read("redis_tls_key", key)?,
        }),
        (None, None) => None,
        (Some(_), None) => return Err(lacks("redis_tls_cert", "redis_tls_key")),
        (None, Some(_)) => return Err(lacks("redis_tls_key", "redis_tls_cert")),
    };
    let any = root_cert.is_some() || client_tls.is_some();
    Ok(any.then_some(TlsCertificates {
        client_tls,
        root_cert,
    }))
}

fn lacks(option: &'static str, other: &str) -> CacheError {
    CacheError::Redis {
        option,
        reason: format!("needs {other} beside it"),
    }
}

fn bad_url(reason: &str) -> CacheError {
    CacheError::RedisUrl {
        reason: reason.to_owned(),
    }
}

fn is_tls(server: &ConnectionInfo) -> bool {
    matches!(server.addr(), ConnectionAddr::TcpTls { .. })
}

fn addresses(servers: &[ConnectionInfo]) -> String {
    let addresses: Vec<_> = servers.iter().map(|s| s.addr().to_string()).collect();
    addresses.join(", ")
}
