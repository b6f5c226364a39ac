//! File descriptors: how many the process may have, how many it has, and how many of them connections may take.
//!
//! A connection is a descriptor, and so is everything that must go on beside it: files that are read again, databases,
//! Redis, probes. So what connections may take follows from the limit, and the rest is kept back.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::api::{CLOSING, ConnectionLimits};

/// Kept back for all that is no connection of a client: standard streams, listeners and pollers, models, databases and
/// files of keys, Redis (two connections to each of a cluster's nodes, by default), collectors.
const OTHERS: usize = 128;
/// What is being closed for a newcomer, of gRPC and of HTTP.
const BEING_CLOSED: usize = 2 * CLOSING;
/// With fewer connections for gRPC than this there is no point in serving.
const LEAST: usize = 16;

/// The limit of open files leaves connections no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the limit of open files is {limit}, and at least {needed} are needed: {http} for --http-connections, {kept} kept back \
     for files, Redis and probes, and {LEAST} for gRPC. Raise it (`ulimit -Hn`, LimitNOFILE= of systemd, `docker run \
     --ulimit nofile=65536`) or lower --http-connections",
    kept = OTHERS + BEING_CLOSED
)]
pub struct TooFew {
    limit: u64,
    needed: u64,
    http: usize,
}

/// Raises the limit to the most that the process may have, and tells it.
pub fn raise_limit() -> u64 {
    let now = getrlimit(Resource::Nofile);
    let wanted = Rlimit {
        current: now.maximum,
        maximum: now.maximum,
    };
    if now.current != now.maximum
        && let Err(error) = setrlimit(Resource::Nofile, wanted)
    {
        tracing::warn!(%error, "the limit of open files cannot be raised");
    }
    limit()
}

/// The limit that counts now.
pub fn limit() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// Descriptors that are open, without the one that it takes to count them; `None` where the system does not tell.
pub fn open() -> Option<u64> {
    let listed = std::fs::read_dir("/proc/self/fd").ok()?;
    Some((listed.count() as u64).saturating_sub(1))
}

/// What connections may take where `limit` files may be open: what was asked for, or less.
///
/// # Errors
/// Not even a few.
pub fn fit(limits: ConnectionLimits, limit: u64) -> Result<ConnectionLimits, TooFew> {
    let others = limits.http_connections + OTHERS + BEING_CLOSED;
    let room = usize::try_from(limit)
        .unwrap_or(usize::MAX)
        .saturating_sub(others);
    if room < limits.connections.min(LEAST) {
        return Err(TooFew {
            limit,
            needed: (others + LEAST) as u64,
            http: limits.http_connections,
        });
    }
    Ok(ConnectionLimits {
        connections: limits.connections.min(room),
        ..limits
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Command, Config};

    fn limits() -> ConnectionLimits {
        let command = Command::from_args(["server", "serve"].map(Into::into));
        match command {
            Ok(Command::Serve(config)) => Config::clone(&config).connections,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn connections_follow_the_limit_and_something_is_kept_back() {
        let wanted = limits();
        assert_eq!(fit(wanted, 1 << 20), Ok(wanted));
        let fitted = fit(wanted, 1024).expect("enough");
        let taken = fitted.connections + fitted.http_connections + BEING_CLOSED;
        assert_eq!(1024 - taken, OTHERS);
        assert!(fitted.of_address() < fitted.connections);
        let told = fit(wanted, 200).expect_err("too few").to_string();
        assert!(told.contains("200") && told.contains("ulimit"), "{told}");
    }

    #[test]
    fn open_descriptors_are_counted() {
        let before = open().expect("this system tells");
        assert!(before > 2 && before < limit());
    }
}
