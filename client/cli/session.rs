//! Items on their way, until they are done or the user has had enough.

use std::future::pending;
use std::time::Duration;

use futures::StreamExt;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use code_explainer_client::{Error, ExplainAll, Step};

/// How long the server is given to cancel what is in flight.
const PATIENCE: Duration = Duration::from_secs(2);

/// The steps of all items. Ctrl-C cancels the items; a second one, or a server that does not answer,
/// ends the steps at once.
pub(crate) struct Session {
    steps: ExplainAll,
    interrupts: mpsc::Receiver<()>,
    /// When the wait for the cancelled items ends.
    deadline: Option<Instant>,
}

impl Session {
    pub(crate) fn new(steps: ExplainAll) -> Self {
        let (told, interrupts) = mpsc::channel(2);
        tokio::spawn(async move {
            while tokio::signal::ctrl_c().await.is_ok() && told.send(()).await.is_ok() {}
        });
        Self {
            steps,
            interrupts,
            deadline: None,
        }
    }

    /// The next step; `None` at the end.
    pub(crate) async fn next(&mut self) -> Option<Result<Step, Error>> {
        loop {
            let late = async {
                match self.deadline {
                    Some(deadline) => sleep_until(deadline).await,
                    None => pending().await,
                }
            };
            tokio::select! {
                step = self.steps.next() => return step,
                () = late => return None,
                Some(()) = self.interrupts.recv() => {
                    if self.is_interrupted() {
                        return None;
                    }
                    self.steps.canceller().cancel();
                    self.deadline = Some(Instant::now() + PATIENCE);
                }
            }
        }
    }

    /// Whether the user pressed Ctrl-C.
    pub(crate) fn is_interrupted(&self) -> bool {
        self.deadline.is_some()
    }
}
