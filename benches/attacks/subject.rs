//! The server's program, running with keys and limits of its own.

use std::collections::HashMap;
use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::certificates::{Authority, Certified, Files};
use crate::process::Process;

/// Loading the model takes seconds.
const START: Duration = Duration::from_secs(60);
/// Those who have a key.
pub(crate) const NEIGHBOUR: &str = "neighbour";
pub(crate) const ATTACKER: &str = "attacker";
/// Its key is taken out of the file.
pub(crate) const LEAVING: &str = "leaving";

/// How the server knows its callers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Door {
    /// By keys in a file.
    Keys,
    /// By certificates of two authorities.
    Certificates,
    /// Not at all.
    Open,
}

/// How the server is started.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Setup {
    pub(crate) door: Door,
    pub(crate) flags: &'static [&'static str],
    /// Files that it may have open, by `ulimit -n`.
    pub(crate) open_files: Option<u32>,
}

/// Lines of the file of identities, and their tokens.
#[derive(Debug, Clone)]
pub(crate) struct Keys {
    lines: HashMap<&'static str, String>,
    tokens: HashMap<&'static str, String>,
}

/// Two authorities that clients are signed by. The second one is taken out of the file.
pub(crate) struct Authorities {
    pub(crate) kept: Authority,
    pub(crate) leaving: Authority,
    pub(crate) of_neighbour: Certified,
    pub(crate) of_attacker: Certified,
}

/// A running server. It is killed when this is dropped.
pub(crate) struct Subject {
    child: Child,
    pub(crate) process: Process,
    pub(crate) grpc: SocketAddr,
    pub(crate) http: SocketAddr,
    log: PathBuf,
    _directory: tempfile::TempDir,
}

impl Setup {
    pub(crate) const KEYS: Self = Self {
        door: Door::Keys,
        flags: &[],
        open_files: None,
    };
}

impl Keys {
    /// Has the program make one for each tenant.
    pub(crate) fn make(program: &Path) -> Result<Self> {
        let mut keys = Self {
            lines: HashMap::new(),
            tokens: HashMap::new(),
        };
        for tenant in [NEIGHBOUR, ATTACKER, LEAVING] {
            let made = command(program)
                .args(["make-key", "--name", tenant, "--tenant", tenant])
                .output()
                .with_context(|| format!("{} make-key", program.display()))?;
            let said = String::from_utf8(made.stderr)?;
            ensure!(made.status.success(), "make-key: {said}");
            let token = said.trim().rsplit(' ').next().unwrap_or_default();
            keys.tokens.insert(tenant, token.to_owned());
            keys.lines.insert(tenant, String::from_utf8(made.stdout)?);
        }
        Ok(keys)
    }

    /// What a client of this tenant shows.
    pub(crate) fn token(&self, tenant: &str) -> Option<&str> {
        self.tokens.get(tenant).map(String::as_str)
    }

    /// The file of identities without one of them, and with more lines.
    pub(crate) fn book(&self, without: &str, more: &str) -> String {
        let kept = self.lines.iter().filter(|(tenant, _)| **tenant != without);
        let mut lines: Vec<&str> = kept.map(|(_, line)| line.as_str()).collect();
        lines.sort_unstable();
        lines.concat() + more
    }
}

impl Authorities {
    pub(crate) fn new() -> Self {
        let (kept, leaving) = (Authority::new(), Authority::new());
        Self {
            of_neighbour: kept.client(NEIGHBOUR, ""),
            of_attacker: leaving.client(ATTACKER, ""),
            kept,
            leaving,
        }
    }
}

impl Subject {
    /// Starts the program and waits until it is ready. `files` is where its file of identities and its certificates are.
    pub(crate) fn start(
        program: &Path,
        setup: &Setup,
        files: &Files,
        keys: &Keys,
        authorities: &Authorities,
    ) -> Result<Self> {
        let mut flags: Vec<String> = [
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--http-listen",
            "127.0.0.1:0",
            "--shutdown-grace",
            "0s",
        ]
        .iter()
        .chain(setup.flags)
        .map(ToString::to_string)
        .collect();
        match setup.door {
            Door::Keys => {
                flags.extend([
                    "--auth-file".into(),
                    files.write("book", &keys.book("", "")),
                ]);
            }
            Door::Certificates => {
                flags.extend(files.server_flags(&authorities.kept.server()));
                let both = authorities.kept.pem() + &authorities.leaving.pem();
                flags.extend(["--tls-client-ca".into(), files.write("ca", &both)]);
            }
            Door::Open => {}
        }
        let directory = tempfile::tempdir()?;
        let log = directory.path().join("log");
        // The shell becomes the server, so that the limit is the server's alone and the process is this child.
        let limit = setup.open_files.map(|n| format!("ulimit -n {n} && "));
        let script = limit.unwrap_or_default() + "exec \"$0\" \"$@\"";
        let child = command(Path::new("sh"))
            .args(["-c", &script])
            .arg(program)
            .args(&flags)
            .env("CODE_EXPLAINER_LOG_FORMAT", "text")
            .env("NO_COLOR", "1")
            .stderr(File::create(&log)?)
            .spawn()?;
        let mut subject = Self {
            process: Process(child.id()),
            child,
            grpc: ([127, 0, 0, 1], 0).into(),
            http: ([127, 0, 0, 1], 0).into(),
            log,
            _directory: directory,
        };
        subject.until_ready()?;
        Ok(subject)
    }

    fn until_ready(&mut self) -> Result<()> {
        let began = Instant::now();
        while began.elapsed() < START {
            if let Some(status) = self.child.try_wait()? {
                bail!("it ended with {status}: {}", self.last_words());
            }
            let log = std::fs::read_to_string(&self.log)?;
            let ready = log.lines().any(|line| line.contains(" ready"));
            if let (true, Some(grpc), Some(http)) =
                (ready, address(&log, "grpc"), address(&log, "http"))
            {
                (self.grpc, self.http) = (grpc, http);
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        bail!("it was not ready within {START:?}: {}", self.last_words())
    }

    /// Its end, where it has ended by itself, with the last that it logged.
    pub(crate) fn ended(&mut self) -> Option<String> {
        let status = self.child.try_wait().ok().flatten()?;
        Some(format!("{status}: {}", self.last_words()))
    }

    fn last_words(&self) -> String {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(5)..].join("\n")
    }
}

impl Drop for Subject {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A program in the project's directory, without the environment's own settings.
fn command(program: &Path) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("CODE_EXPLAINER_") {
            command.env_remove(name);
        }
    }
    command
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stdin(Stdio::null());
    command
}

/// The address in a line such as `grpc listening address=127.0.0.1:1234`.
fn address(log: &str, what: &str) -> Option<SocketAddr> {
    let said = format!("{what} listening");
    let line = log.lines().find(|line| line.contains(&said))?;
    let (_, rest) = line.split_once("address=")?;
    rest.split_ascii_whitespace().next()?.parse().ok()
}
