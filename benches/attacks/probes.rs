//! What watches the server: `/healthz`, `/readyz` and gRPC health, each on a connection of its own, as a kubelet asks.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Result, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use crate::wire::{self, Connection};

/// Each is asked this often, whether the one before has been answered or not.
const EVERY: Duration = Duration::from_millis(100);
/// Longer is not waited for.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Probe {
    Healthz,
    Readyz,
    Health,
}

/// How one of them was answered.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Probed {
    pub(crate) asked: usize,
    /// Those without an answer, or with one that says no.
    pub(crate) failed: usize,
    /// The longest that an answer took, or was waited for.
    pub(crate) slowest_ms: f64,
}

/// How all of them were, by their place in [`Probe::ALL`].
pub(crate) type All = [Probed; 3];

impl Probe {
    pub(crate) const ALL: [Self; 3] = [Self::Healthz, Self::Readyz, Self::Health];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Healthz => "/healthz",
            Self::Readyz => "/readyz",
            Self::Health => "gRPC health",
        }
    }

    async fn ask(self, grpc: SocketAddr, http: SocketAddr) -> Result<()> {
        match self {
            Self::Healthz | Self::Readyz => get(http, self.name()).await.map(drop),
            Self::Health => {
                let connection = Connection::to(grpc, wire::NEIGHBOUR, None).await?;
                let (response, mut body) = connection.open(wire::HEALTH, "").await?;
                // A message without a byte.
                body.send_data(vec![0; 5].into(), true)?;
                let told = wire::status(response).await;
                if told != "OK" {
                    bail!("{told}");
                }
                Ok(())
            }
        }
    }
}

/// Asks all of `probes` for as long, and waits for the last answers.
pub(crate) async fn during(
    probes: &[Probe],
    (grpc, http): (SocketAddr, SocketAddr),
    phase: Duration,
) -> All {
    let (mut asked, mut ticks) = (JoinSet::new(), interval(EVERY));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let end = Instant::now() + phase;
    while ticks.tick().await < end {
        for probe in probes.iter().copied() {
            asked.spawn(async move {
                let began = Instant::now();
                let good = matches!(timeout(PATIENCE, probe.ask(grpc, http)).await, Ok(Ok(())));
                (probe, began.elapsed(), good)
            });
        }
    }
    let mut all = All::default();
    while let Some(answered) = asked.join_next().await {
        // None of them panics, and none is aborted.
        let Ok((probe, time, good)) = answered else {
            continue;
        };
        let at = Probe::ALL.iter().position(|p| *p == probe);
        let probed = &mut all[at.unwrap_or_default()];
        probed.asked += 1;
        probed.failed += usize::from(!good);
        probed.slowest_ms = probed.slowest_ms.max(time.as_secs_f64() * 1e3);
    }
    all
}

/// A page of the HTTP listener.
///
/// # Errors
/// It cannot be had, or its status is not 200.
pub(crate) async fn get(http: SocketAddr, path: &str) -> Result<String> {
    let mut connection = TcpStream::connect(http).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: server\r\nConnection: close\r\n\r\n");
    connection.write_all(request.as_bytes()).await?;
    let mut page = String::new();
    connection.read_to_string(&mut page).await?;
    if !page.starts_with("HTTP/1.1 200") {
        bail!("{path}: {}", page.lines().next().unwrap_or("nothing"));
    }
    Ok(page)
}
