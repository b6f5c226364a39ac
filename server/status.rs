//! Where the server is in its life, and the way to the model once there is one.

use std::sync::{Arc, OnceLock};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::error::Error;
use crate::explain::Explainer;

/// A server's life: `Loading => WarmingUp => Serving => Draining`. A signal leads from any of them to `Draining`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// The model's files are being read.
    Loading,
    /// The engine is being loaded, and tries a forward pass.
    WarmingUp,
    /// Items are welcome.
    Serving,
    /// The running items are finished; new ones are refused.
    Draining,
}

impl Phase {
    /// For logs and probes.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Loading => "loading",
            Self::WarmingUp => "warming up",
            Self::Serving => "serving",
            Self::Draining => "draining",
        }
    }
}

/// What the network side shares. Cheap to clone.
#[derive(Clone)]
pub struct ServerStatus {
    phase: watch::Sender<Phase>,
    explainer: Arc<OnceLock<Arc<Explainer>>>,
    /// Items being worked on; awaited when the server drains.
    pub items: TaskTracker,
    /// Set when streams are to end: all items have been answered, or the time is up.
    pub closing: CancellationToken,
}

impl ServerStatus {
    /// Of a server that has just begun to load.
    pub fn new() -> Self {
        Self {
            phase: watch::channel(Phase::Loading).0,
            explainer: Arc::default(),
            items: TaskTracker::new(),
            closing: CancellationToken::new(),
        }
    }

    /// Where the server is now.
    pub fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// To be told of the next phases.
    pub fn watch(&self) -> watch::Receiver<Phase> {
        self.phase.subscribe()
    }

    /// Goes on to a phase; never back.
    pub fn enter(&self, phase: Phase) {
        self.phase.send_if_modified(|now| {
            let forward = (phase as u8) > (*now as u8);
            if forward {
                tracing::info!(phase = phase.as_str(), "phase");
                *now = phase;
            }
            forward
        });
    }

    /// The model is ready.
    pub fn serve(&self, explainer: Arc<Explainer>) {
        // Set once: a server loads one model.
        let _ = self.explainer.set(explainer);
        self.enter(Phase::Serving);
    }

    /// The explainer, once there is one; for looking at, not for new items.
    pub fn loaded(&self) -> Option<&Arc<Explainer>> {
        self.explainer.get()
    }

    /// The explainer, if items are welcome.
    ///
    /// # Errors
    /// [`Error::Loading`] before, [`Error::ShuttingDown`] after.
    pub fn explainer(&self) -> Result<&Arc<Explainer>, Error> {
        match self.phase() {
            Phase::Loading | Phase::WarmingUp => Err(Error::Loading),
            Phase::Serving => self.loaded().ok_or(Error::Loading),
            Phase::Draining => Err(Error::ShuttingDown),
        }
    }
}

impl Default for ServerStatus {
    fn default() -> Self {
        Self::new()
    }
}
