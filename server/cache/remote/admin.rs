//! Looking over Redis and clearing it, for those who run the server. Unlike answers, they are told what failed.

use std::time::Duration;

use redis::aio::ConnectionLike;
use redis::cluster_async::ClusterConnection;
use redis::cluster_routing::{MultipleNodeRoutingInfo, RoutingInfo, SingleNodeRoutingInfo};
use redis::{Cmd, Pipeline, RedisError, Value};
use tokio::time::timeout;

use super::target::Connection;
use super::{Failure, Remote, names};
use crate::selection::Selection;

/// Names that Redis looks at for one step of a scan: some hundred microseconds of its one thread.
const SCAN_COUNT: u32 = 1000;
/// What one step may take.
const STEP_LIMIT: Duration = Duration::from_secs(2);

/// What Redis holds, all its users' data together: it knows no difference. In a cluster, the sum over its shards.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RemoteUsage {
    /// Keys of the database.
    pub keys: u64,
    /// Bytes that the server has allocated.
    pub used_bytes: u64,
    /// Bytes that it may allocate; 0: as many as there are.
    pub max_bytes: u64,
    /// Keys that made room since the server started.
    pub evicted: u64,
    /// Keys whose time was up since then.
    pub expired: u64,
}

/// Why Redis could not be looked over or cleared.
#[derive(Debug, thiserror::Error)]
#[error("redis: {0}")]
pub struct RemoteError(String);

/// A server that holds data, and how to reach it.
enum Server {
    /// The one that there is.
    Only,
    /// One of a cluster.
    Node { host: String, port: u16 },
}

impl From<Failure> for RemoteError {
    fn from(failure: Failure) -> Self {
        Self(failure.to_string())
    }
}

impl Remote {
    /// Removes a selection of the answers and says how many. What is added meanwhile may stay.
    pub(crate) async fn clear(&self, selection: &Selection) -> Result<u64, RemoteError> {
        let pattern = names::answers(selection);
        let mut connection = self.connection().await?;
        let mut removed = 0;
        for server in servers(&mut connection).await? {
            let mut cursor = Vec::from(b"0");
            loop {
                let mut scan = redis::cmd("SCAN");
                scan.arg(&cursor).arg("MATCH").arg(&pattern);
                scan.arg("COUNT").arg(SCAN_COUNT);
                let (next, found) = page(ask(&mut connection, &server, scan).await?)?;
                removed += unlink(&mut connection, &server, found).await?;
                if next == b"0" {
                    break;
                }
                cursor = next;
            }
        }
        Ok(removed)
    }

    /// What Redis holds.
    pub(crate) async fn usage(&self) -> Result<RemoteUsage, RemoteError> {
        let mut connection = self.connection().await?;
        let mut usage = RemoteUsage::default();
        for server in servers(&mut connection).await? {
            let Value::Int(keys) = ask(&mut connection, &server, redis::cmd("DBSIZE")).await?
            else {
                return Err(Failure::Protocol.into());
            };
            usage.keys += keys.unsigned_abs();
            // One section at a time: so does every version know it.
            let memory = info(&mut connection, &server, "memory").await?;
            usage.used_bytes += field(&memory, "used_memory:")?;
            usage.max_bytes += field(&memory, "maxmemory:")?;
            let stats = info(&mut connection, &server, "stats").await?;
            usage.evicted += field(&stats, "evicted_keys:")?;
            usage.expired += field(&stats, "expired_keys:")?;
        }
        Ok(usage)
    }

    async fn connection(&self) -> Result<Connection, Failure> {
        Ok(self.link.connection().await?)
    }
}

/// The servers that hold data; of a cluster those that are no copies of others.
async fn servers(connection: &mut Connection) -> Result<Vec<Server>, Failure> {
    let Connection::Cluster(cluster) = connection else {
        return Ok(vec![Server::Only]);
    };
    // Any command will do: it is the addresses beside the replies that are wanted.
    let all = RoutingInfo::MultiNode((MultipleNodeRoutingInfo::AllMasters, None));
    let replies = within(cluster.route_command(redis::cmd("DBSIZE"), all)).await?;
    let Value::Map(replies) = replies else {
        return Err(Failure::Protocol);
    };
    let address = |(address, _)| {
        let address = text(address)?;
        let (host, port) = address.rsplit_once(':').ok_or(Failure::Protocol)?;
        Ok(Server::Node {
            host: host.to_owned(),
            port: port.parse().map_err(|_| Failure::Protocol)?,
        })
    };
    replies.into_iter().map(address).collect()
}

impl Server {
    fn route(&self) -> Option<SingleNodeRoutingInfo> {
        match self {
            Self::Only => None,
            Self::Node { host, port } => Some(SingleNodeRoutingInfo::ByAddress {
                host: host.clone(),
                port: *port,
            }),
        }
    }
}

async fn ask(connection: &mut Connection, server: &Server, command: Cmd) -> Result<Value, Failure> {
    let reply = match (connection, server.route()) {
        (Connection::Cluster(cluster), Some(route)) => {
            within(cluster.route_command(command, RoutingInfo::SingleNode(route))).await?
        }
        (Connection::Cluster(cluster), None) => {
            within(cluster.req_packed_command(&command)).await?
        }
        (Connection::Server(server), _) => within(server.req_packed_command(&command)).await?,
    };
    refused(reply)
}

/// A section of what a server says of itself.
async fn info(
    connection: &mut Connection,
    server: &Server,
    section: &str,
) -> Result<String, Failure> {
    let mut info = redis::cmd("INFO");
    info.arg(section);
    text(ask(connection, server, info).await?)
}

/// Each name is a command of its own: those of a cluster's node belong to several slots.
async fn unlink(
    connection: &mut Connection,
    server: &Server,
    names: Vec<Value>,
) -> Result<u64, Failure> {
    if names.is_empty() {
        return Ok(0);
    }
    let mut commands = Pipeline::with_capacity(names.len());
    for name in names {
        let Value::BulkString(name) = name else {
            return Err(Failure::Protocol);
        };
        commands.cmd("UNLINK").arg(name);
    }
    let count = commands.len();
    let replies = match (connection, server.route()) {
        (Connection::Cluster(cluster), Some(route)) => {
            within(routed(cluster, commands, route)).await?
        }
        (connection, _) => within(connection.send(&commands)).await?,
    };
    if replies.len() != count {
        return Err(Failure::Protocol);
    }
    let mut removed = 0;
    for reply in replies {
        match refused(reply)? {
            Value::Int(count) => removed += count.unsigned_abs(),
            _ => return Err(Failure::Protocol),
        }
    }
    Ok(removed)
}

async fn routed(
    cluster: &mut ClusterConnection,
    commands: Pipeline,
    route: SingleNodeRoutingInfo,
) -> Result<Vec<Value>, RedisError> {
    let count = commands.len();
    cluster.route_pipeline(commands, 0, count, route).await
}

async fn within<T>(reply: impl Future<Output = Result<T, RedisError>>) -> Result<T, Failure> {
    let reply = timeout(STEP_LIMIT, reply).await;
    Ok(reply.map_err(|_| Failure::Timeout(STEP_LIMIT))??)
}

fn refused(reply: Value) -> Result<Value, Failure> {
    match reply {
        Value::ServerError(err) => Err(err.into()),
        reply => Ok(reply),
    }
}

/// The reply to `SCAN`: the next cursor and the names found.
fn page(reply: Value) -> Result<(Vec<u8>, Vec<Value>), Failure> {
    let Value::Array(parts) = reply else {
        return Err(Failure::Protocol);
    };
    match <[Value; 2]>::try_from(parts) {
        Ok([Value::BulkString(cursor), Value::Array(names)]) => Ok((cursor, names)),
        _ => Err(Failure::Protocol),
    }
}

fn text(reply: Value) -> Result<String, Failure> {
    match reply {
        Value::BulkString(bytes) => String::from_utf8(bytes).map_err(|_| Failure::Protocol),
        Value::SimpleString(text) | Value::VerbatimString { text, .. } => Ok(text),
        _ => Err(Failure::Protocol),
    }
}

/// A number out of `INFO`.
fn field(info: &str, name: &str) -> Result<u64, Failure> {
    let value = info.lines().find_map(|line| line.strip_prefix(name));
    let value = value.and_then(|value| value.trim().parse().ok());
    value.ok_or(Failure::Protocol)
}
