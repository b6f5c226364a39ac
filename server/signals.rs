//! Signals, heard on a thread of their own: whatever hangs in the server, they are answered.

use std::future::pending;
use std::io;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

/// SIGTERM and SIGINT. The first asks the server to stop; a second one, or the end of the time that it has for that, ends
/// the process at once, with code 1.
pub(crate) struct Signals(oneshot::Receiver<()>);

impl Signals {
    /// Listens from now on. After the first signal the process lives for `limit` at most.
    pub(crate) fn listen(limit: Duration) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let (mut terminate, mut interrupt) = {
            let _here = runtime.enter();
            (
                signal(SignalKind::terminate())?,
                signal(SignalKind::interrupt())?,
            )
        };
        let (tell, first) = oneshot::channel();
        let body = async move {
            let mut next = async || {
                tokio::select! {
                    _ = terminate.recv() => "SIGTERM",
                    _ = interrupt.recv() => "SIGINT",
                }
            };
            let name = next().await;
            tracing::info!(signal = name, "shutting down");
            // A server that is about to end by itself does not listen.
            let _ = tell.send(());
            match tokio::time::timeout(limit, next()).await {
                Ok(_) => tracing::warn!("a second signal: leaving at once"),
                Err(_) => {
                    tracing::error!(?limit, "still here after all the time there was: leaving")
                }
            }
            std::process::exit(1);
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
