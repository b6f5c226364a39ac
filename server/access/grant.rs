//! What lets a caller in, for as long as that stands which says so: a line of the file, a certificate.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio_util::sync::CancellationToken;

use super::client_certificate::ClientCertificate;
use crate::error::Error;
use crate::identity::Roles;

/// What a caller is let in by. Clones are the same.
#[derive(Debug, Clone)]
pub(super) struct Basis(Arc<BasisState>);

#[derive(Debug)]
struct BasisState {
    ended: CancellationToken,
    /// It ended because nobody can tell whether it stands.
    unknown: AtomicBool,
}

impl Basis {
    pub(super) fn new() -> Self {
        Self(Arc::new(BasisState {
            ended: CancellationToken::new(),
            unknown: AtomicBool::new(false),
        }))
    }

    /// It lets nobody in any more.
    pub(super) fn withdraw(&self) {
        self.0.ended.cancel();
    }

    /// Nobody can tell any more whether it lets somebody in.
    pub(super) fn lapse(&self) {
        if !self.has_ended() {
            self.0.unknown.store(true, Ordering::Release);
            self.0.ended.cancel();
        }
    }

    pub(super) fn has_ended(&self) -> bool {
        self.0.ended.is_cancelled()
    }

    /// Tells it from others that are there at the same time.
    pub(super) fn id(&self) -> usize {
        Arc::as_ptr(&self.0) as usize
    }
}

/// Lets a caller in. Clones are the same grant.
#[derive(Debug, Clone)]
pub struct Grant {
    basis: Basis,
    /// Of the connection that the caller came on, if it has one: what its authority takes back, nobody on it keeps. Held
    /// so that it is checked again for as long as the grant may count, also when the connection is gone.
    certificate: Option<Arc<ClientCertificate>>,
}

impl Grant {
    pub(super) fn new(basis: Basis, certificate: Option<Arc<ClientCertificate>>) -> Self {
        Self { basis, certificate }
    }

    /// Whether it lets nobody in any more.
    pub fn is_withdrawn(&self) -> bool {
        let certificate = self.certificate.as_ref();
        self.basis.has_ended() || certificate.is_some_and(|of| of.is_revoked())
    }

    /// Waits until it lets nobody in any more. Safe to drop.
    pub async fn withdrawn(&self) {
        match &self.certificate {
            // In a place of its own: every item waits for this, and most have no certificate.
            Some(certificate) => {
                Box::pin(async {
                    tokio::select! {
                        () = self.basis.0.ended.cancelled() => {}
                        () = certificate.revoked() => {}
                    }
                })
                .await;
            }
            None => self.basis.0.ended.cancelled().await,
        }
    }

    /// What to tell those whom it lets in no more.
    pub fn error(&self) -> Error {
        if self.basis.0.unknown.load(Ordering::Acquire) {
            Error::CallersUnknown
        } else {
            Error::Unauthenticated
        }
    }
}

/// Whom a line lets in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Known {
    /// Empty in the line of every certificate.
    pub(super) tenant: Arc<str>,
    pub(super) roles: Roles,
}

impl Known {
    /// What one was let in as before is still covered.
    pub(super) fn covers(&self, before: &Self) -> bool {
        self.tenant == before.tenant && self.roles.include(before.roles)
    }
}
