//! A real Envoy in front of servers, with the chart's own settings.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::programs::{output, root, tool};
use super::server::http_get;

/// Long enough for a machine that does much else; reaching it is a failure.
const PATIENCE: Duration = Duration::from_secs(60);
/// Ports that the chart is given, to be found in what it makes.
const LISTEN: u16 = 10_001;
const STATUS: u16 = 10_002;
const SERVER: u16 = 10_003;

/// A running Envoy; killed when it is dropped.
pub(crate) struct Envoy {
    process: Child,
    admin: SocketAddr,
    /// Where clients find it.
    pub(crate) grpc: SocketAddr,
    _directory: tempfile::TempDir,
}

impl Envoy {
    /// Starts it, and waits until it has found all of these servers in good health.
    pub(crate) async fn before(servers: &[SocketAddr]) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let (config, admin) = (
            directory.path().join("envoy.yaml"),
            directory.path().join("admin"),
        );
        std::fs::write(&config, settings(servers)).expect("a file");
        let process = Command::new(tool("envoy"))
            .arg("-c")
            .arg(&config)
            .arg("--admin-address-path")
            .arg(&admin)
            .args(["--concurrency", "1", "--disable-hot-restart", "-l", "error"])
            .stdin(Stdio::null())
            .spawn()
            .expect("it starts");
        let mut envoy = Self {
            process,
            admin: SocketAddr::from(([127, 0, 0, 1], 0)),
            grpc: SocketAddr::from(([127, 0, 0, 1], 0)),
            _directory: directory,
        };
        envoy.admin = (envoy.until("its own address", async |_| address(&admin))).await;
        let grpc = envoy.until("a listener", async |envoy| {
            let listeners = envoy.ask("/listeners").await;
            let of_grpc = |line: &str| line.strip_prefix("grpc::")?.trim().parse().ok();
            listeners.lines().find_map(of_grpc)
        });
        envoy.grpc = grpc.await;
        let good = envoy.until("servers in good health", async |envoy| {
            let clusters = envoy.ask("/clusters").await;
            let good = |server| {
                let line = format!("server::{server}::health_flags::healthy");
                clusters.lines().any(|l| l.trim() == line)
            };
            servers.iter().all(good).then_some(())
        });
        good.await;
        envoy
    }

    pub(crate) fn uri(&self) -> String {
        format!("http://{}", self.grpc)
    }

    /// One of its counters.
    pub(crate) async fn stat(&self, name: &str) -> u64 {
        let stats = self.ask(&format!("/stats?filter=^{name}$")).await;
        let value = |line: &str| {
            line.strip_prefix(name)?
                .strip_prefix(": ")?
                .trim()
                .parse()
                .ok()
        };
        stats.lines().find_map(value).expect("a counter")
    }

    async fn ask(&self, path: &str) -> String {
        http_get(self.admin, path).await.1
    }

    async fn until<T>(&mut self, what: &str, mut look: impl AsyncFnMut(&Self) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(found) = look(self).await {
                return found;
            }
            let ended = self.process.try_wait().expect("the own child");
            assert!(ended.is_none(), "Envoy has ended before {what}: {ended:?}");
            assert!(Instant::now() < deadline, "Envoy has not come to {what}");
            tokio::task::yield_now().await;
        }
    }
}

impl Drop for Envoy {
    fn drop(&mut self) {
        self.process.kill().expect("may kill the own child");
        self.process.wait().expect("may wait for the own child");
    }
}

/// What it has written into a file, once that is whole.
fn address(file: &Path) -> Option<SocketAddr> {
    std::fs::read_to_string(file).ok()?.trim().parse().ok()
}

/// What the chart sets Envoy to, on free ports of this machine, and with these servers as its pods.
fn settings(servers: &[SocketAddr]) -> String {
    let set = format!("envoy.port={LISTEN},envoy.statusPort={STATUS},server.grpcPort={SERVER}");
    let made = output(
        Command::new(tool("helm"))
            .args(["template", "test"])
            .arg(root().join("charts/code-explainer"))
            .args(["--show-only", "templates/envoy.yaml", "--set", &set]),
    );
    let manifests = String::from_utf8(made.stdout).expect("UTF-8");
    let rest = manifests.lines().skip_while(|l| *l != "  envoy.yaml: |");
    let indented = rest
        .skip(1)
        .take_while(|l| l.is_empty() || l.starts_with("    "));
    let mut settings = String::new();
    for line in indented {
        settings += line.strip_prefix("    ").unwrap_or_default();
        settings.push('\n');
    }
    for port in [LISTEN, STATUS] {
        settings = replaced(
            &settings,
            &format!("0.0.0.0, port_value: {port}"),
            "127.0.0.1, port_value: 0",
        );
    }
    settings = settings.replacen("port_value: 9901", "port_value: 0", 1);
    // The pods' one name becomes an address for each server.
    let start = settings.find("- endpoint:").expect("the pods");
    let port = format!("port_value: {SERVER}\n");
    let end = start + settings[start..].find(&port).expect("their port") + port.len();
    let pod = settings[start..end].to_owned();
    let name = pod
        .split("address: ")
        .last()
        .and_then(|rest| rest.lines().next());
    let name = name.expect("a name").to_owned();
    let indent = start - settings[..start].rfind('\n').expect("not the first line") - 1;
    let pods: Vec<String> = (servers.iter())
        .map(|server| {
            let pod = replaced(&pod, &name, &server.ip().to_string());
            replaced(&pod, &SERVER.to_string(), &server.port().to_string())
        })
        .collect();
    settings.replace_range(start..end, &pods.join(&" ".repeat(indent)));
    settings
}

fn replaced(text: &str, old: &str, new: &str) -> String {
    assert!(text.contains(old), "the chart has no '{old}'");
    text.replace(old, new)
}
