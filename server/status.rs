//! Where the server is in its life, and the way to the model once there is one.

use std::sync::{Arc, OnceLock};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::error::Error;
use crate::explain::Explainer;

/// A server's life: `Loading => WarmingUp => Serving => Leaving => Draining`. A signal leads from any of the first three on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// The model's files are being read.
    Loading,
    /// The engine is being loaded, and tries a forward pass.
    WarmingUp,
    /// Items are welcome.
    Serving,
    /// It says that it goes, and still serves those who have not heard of it.
    Leaving,
    /// The running items are finished; new ones are refused.
    Draining,
}

impl Phase {
    /// All of them, in their order.
    pub const ALL: [Self; 5] = [
        Self::Loading,
        Self::WarmingUp,
        Self::Serving,
        Self::Leaving,
        Self::Draining,
    ];

    /// For logs and probes.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Loading => "loading",
            Self::WarmingUp => "warming up",
            Self::Serving => "serving",
            Self::Leaving => "leaving",
            Self::Draining => "draining",
        }
    }
}

/// What decides whether a server is ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct State {
    /// Where it is in its life.
    pub phase: Phase,
    /// An engine has run a step lately.
    pub working: bool,
    /// It can be told who may call.
    pub callers_known: bool,
}

impl State {
    /// Whether to send items here.
    pub fn is_ready(self) -> bool {
        self.phase == Phase::Serving && self.working && self.callers_known
    }

    /// For probes.
    pub fn as_str(self) -> &'static str {
        if self.phase == Phase::Serving && !self.working {
            "no engine has run a step lately"
        } else if self.phase == Phase::Serving && !self.callers_known {
            "a file that says who may call cannot be read"
        } else {
            self.phase.as_str()
        }
    }
}

/// What the network side shares. Cheap to clone.
#[derive(Clone)]
pub struct ServerStatus {
    state: watch::Sender<State>,
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
            state: watch::channel(State {
                phase: Phase::Loading,
                working: true,
                callers_known: true,
            })
            .0,
            explainer: Arc::default(),
            items: TaskTracker::new(),
            closing: CancellationToken::new(),
        }
    }

    /// Where the server is now.
    pub fn phase(&self) -> Phase {
        self.state().phase
    }

    /// Where it is, and whether it works.
    pub fn state(&self) -> State {
        *self.state.borrow()
    }

    /// To be told of what comes.
    pub fn watch(&self) -> watch::Receiver<State> {
        self.state.subscribe()
    }

    /// Whether an engine has run a step lately.
    pub fn set_working(&self, working: bool) {
        self.state
            .send_if_modified(|now| std::mem::replace(&mut now.working, working) != working);
    }

    /// Whether it can be told who may call.
    pub fn set_callers_known(&self, known: bool) {
        self.state
            .send_if_modified(|now| std::mem::replace(&mut now.callers_known, known) != known);
    }

    /// Goes on to a phase; never back.
    pub fn enter(&self, phase: Phase) {
        self.state.send_if_modified(|now| {
            let forward = (phase as u8) > (now.phase as u8);
            if forward {
                tracing::info!(phase = phase.as_str(), "phase");
                now.phase = phase;
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
            Phase::Serving | Phase::Leaving => self.loaded().ok_or(Error::Loading),
            Phase::Draining => Err(Error::ShuttingDown),
        }
    }
}

impl Default for ServerStatus {
    fn default() -> Self {
        Self::new()
    }
}
