//! Programs that the tests run: the server's own, and the clients' languages.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};

/// The server's program, running.
pub(crate) struct ServerProcess {
    child: Child,
    log: BufReader<std::process::ChildStderr>,
    /// What it has logged so far.
    pub(crate) said: Vec<String>,
}

/// A server's command line, without the environment's own settings.
pub(crate) fn server(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_code-explainer-server"));
    let ours = std::env::vars().filter(|(name, _)| name.starts_with("CODE_EXPLAINER_"));
    for (name, _) in ours {
        command.env_remove(name);
    }
    command.current_dir(root()).args(args).stdin(Stdio::null());
    command
}

/// Runs a command that ends by itself.
pub(crate) fn output(command: &mut Command) -> Output {
    command
        .output()
        .unwrap_or_else(|e| panic!("{command:?}: {e}"))
}

/// The project's directory.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The Python that `make setup` has given the clients' packages.
pub(crate) fn python() -> PathBuf {
    existing(root().join(".venv/bin/python"))
}

/// Node: the system's, or the one that `make setup` has brought.
pub(crate) fn node() -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = std::env::split_paths(&path)
        .map(|dir| dir.join("node"))
        .find(|p| p.exists());
    system.unwrap_or_else(|| tool("node"))
}

/// A program that `make setup` has brought.
pub(crate) fn tool(name: &str) -> PathBuf {
    existing(root().join(".tools/bin").join(name))
}

fn existing(path: PathBuf) -> PathBuf {
    assert!(
        path.exists(),
        "{} is missing: `make setup` makes it",
        path.display()
    );
    path
}

impl ServerProcess {
    pub(crate) fn start(mut command: Command) -> Self {
        let mut child = command.stderr(Stdio::piped()).spawn().expect("it starts");
        let log = BufReader::new(child.stderr.take().expect("piped"));
        Self {
            child,
            log,
            said: Vec::new(),
        }
    }

    /// Reads the log until a line has this in it.
    pub(crate) fn wait_for(&mut self, wanted: &str) -> String {
        loop {
            let mut line = String::new();
            let read = self.log.read_line(&mut line).expect("a log");
            assert!(read > 0, "it ended without '{wanted}': {:?}", self.said);
            self.said.push(line.clone());
            if line.contains(wanted) {
                return line;
            }
        }
    }

    /// The address in a line such as `grpc listening address=127.0.0.1:1234`.
    pub(crate) fn address(&mut self, what: &str) -> SocketAddr {
        let line = self.wait_for(&format!("{what} listening"));
        let (_, rest) = line.split_once("address=").expect("an address");
        rest.trim().parse().expect("a socket address")
    }

    /// Sends a signal by its name.
    pub(crate) fn signal(&self, name: &str) {
        self.signal_times(name, 1);
    }

    /// Sends a signal by its name so often, at once.
    pub(crate) fn signal_times(&self, name: &str, times: usize) {
        let process = self.child.id().to_string();
        let sent = Command::new("kill")
            .args(["-s", name])
            .args(vec![process; times])
            .status();
        assert!(sent.expect("kill").success());
    }

    /// Whether it has not ended yet.
    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("a child").is_none()
    }

    /// Waits for its end; reads on meanwhile, so that it never waits for us.
    pub(crate) fn ended(&mut self) -> ExitStatus {
        self.said
            .extend(self.log.by_ref().lines().map_while(Result::ok));
        self.child.wait().expect("it ends")
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        // One that has ended already cannot be killed, which is as well.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
