//! What lets a caller in, for as long as the line stands that says so.

use tokio_util::sync::CancellationToken;

/// Lets a caller in. Clones are the same grant.
#[derive(Debug, Clone)]
pub struct Grant(std::sync::Arc<CancellationToken>);

impl Grant {
    pub(super) fn new() -> Self {
        Self(Default::default())
    }

    /// The calls that it let in end.
    pub(super) fn withdraw(&self) {
        self.0.cancel();
    }

    /// Tells it from others that are there at the same time.
    pub(super) fn id(&self) -> usize {
        std::sync::Arc::as_ptr(&self.0) as usize
    }

    /// Whether it lets nobody in any more.
    #[cfg(test)]
    pub(super) fn is_withdrawn(&self) -> bool {
        self.0.is_cancelled()
    }

    /// Waits until it lets nobody in any more. Safe to drop.
    pub async fn withdrawn(&self) {
        self.0.cancelled().await;
    }
}
