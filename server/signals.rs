//! Signals, heard on a thread of their own: whatever hangs in the server, they are answered. When the time is up, the
//! process ends, with code 1; where even that hangs (a destructor that waits for a lock, a log that nobody reads), another
//! thread kills it, and its parent sees SIGKILL, as 137 in a shell.

use std::future::pending;
use std::io;
use std::time::{Duration, Instant};

use rustix::process::{Signal, getpid, kill_process};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;
use tokio::time::timeout;

/// For the log's last line and for what libraries do at the end of a process.
const ENDING: Duration = Duration::from_secs(2);

/// Supervisors may send the first signal to a process and to its group, so that it comes twice (`timeout`, a shell's
/// Ctrl-C): so soon after the first, none is a second one.
const TWICE: Duration = Duration::from_secs(1);

/// SIGTERM and SIGINT. The first asks the server to stop; a second one, or the end of the time that it has for that, ends
/// the process at once, with code 1.
pub(crate) struct Signals(oneshot::Receiver<()>);

/// Where there is no thread to be had, it is left out.
fn beside(work: impl FnOnce() + Send + 'static) {
    let _ = std::thread::Builder::new().spawn(work);
}

impl Signals {
    /// Listens from now on. After the first signal the process lives for `limit` at most.
    pub(crate) fn listen(limit: Duration) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let (mut terminate, mut interrupt, hangup) = {
            let _here = runtime.enter();
            (
                signal(SignalKind::terminate())?,
                signal(SignalKind::interrupt())?,
                signal(SignalKind::hangup())?,
            )
        };
        let (tell, first) = oneshot::channel();
        let body = async move {
            // The server reads files again for it; from here on nothing ends for it.
            let _hangup = hangup;
            let mut next = async || {
                tokio::select! {
                    _ = terminate.recv() => "SIGTERM",
                    _ = interrupt.recv() => "SIGINT",
                }
            };
            let name = next().await;
            // A server that is about to end by itself does not listen.
            let _ = tell.send(());
            // Beside this thread, which may not wait for whoever reads the log.
            beside(move || tracing::info!(signal = name, "shutting down"));
            let first = Instant::now();
            let again = async {
                while first.elapsed() < TWICE {
                    next().await;
                }
            };
            // The last one that was heard came later.
            let second = timeout(limit, again).await.is_ok();
            beside(move || {
                if second {
                    tracing::warn!("a second signal: leaving at once");
                } else {
                    tracing::error!(?limit, "still here after all the time there was: leaving");
                }
                std::process::exit(1);
            });
            tokio::time::sleep(ENDING).await;
            // It cannot fail: the process may signal itself.
            let _ = kill_process(getpid(), Signal::KILL);
        };
        std::thread::Builder::new()
            .name("signals".to_owned())
            .spawn(move || runtime.block_on(body))?;
        Ok(Self(first))
    }

    /// Waits for the first.
    pub(crate) async fn first(self) {
        if self.0.await.is_err() {
            // Their thread is gone, and with it the way to ask.
            pending::<()>().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::sync::mpsc;

    use super::*;

    const CHILD: &str = "CODE_EXPLAINER_TEST_OF_SIGNALS";

    /// In a process of its own: all threads of its runtime are blocked, and it gets SIGTERM.
    #[test]
    fn blocked_child() {
        if std::env::var_os(CHILD).is_none() {
            return;
        }
        let signals = Signals::listen(Duration::from_millis(100)).expect("signals");
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("a runtime");
        let (tell, blocked) = mpsc::channel();
        for _ in 0..2 {
            let tell = tell.clone();
            runtime.spawn(async move {
                tell.send(()).expect("the test waits");
                loop {
                    std::thread::park();
                }
            });
        }
        for _ in 0..2 {
            blocked.recv().expect("both threads");
        }
        kill_process(getpid(), Signal::TERM).expect("sent");
        runtime.block_on(async {
            signals.first().await;
            pending::<()>().await;
        });
    }

    #[test]
    fn a_process_whose_threads_are_all_blocked_ends_in_its_time() {
        let program = std::env::current_exe().expect("this program");
        let child = Command::new(program)
            .args(["--exact", "signals::tests::blocked_child"])
            .env(CHILD, "1")
            .output()
            .expect("it runs");
        assert_eq!(child.status.code(), Some(1), "{child:?}");
    }
}
