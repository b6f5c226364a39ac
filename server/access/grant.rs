//! What lets a caller in, for as long as the line stands that says so.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::identity::Roles;

/// Lets a caller in. Clones are the same grant.
#[derive(Debug, Clone)]
pub struct Grant(Arc<CancellationToken>);

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
        Arc::as_ptr(&self.0) as usize
    }

    /// Whether it lets nobody in any more.
    pub fn is_withdrawn(&self) -> bool {
        self.0.is_cancelled()
    }

    /// Waits until it lets nobody in any more. Safe to drop.
    pub async fn withdrawn(&self) {
        self.0.cancelled().await;
    }
}

/// Who a line lets in.
#[derive(Debug, Clone)]
pub(super) struct Known {
    /// Empty in the line of every certificate.
    pub(super) tenant: Arc<str>,
    pub(super) roles: Roles,
    /// Lasts as long as the line does; `None`: for ever.
    pub(super) grant: Option<Grant>,
}

impl Known {
    pub(super) fn by_line(tenant: Arc<str>, roles: Roles) -> Self {
        Self {
            tenant,
            roles,
            grant: Some(Grant::new()),
        }
    }

    /// Let in by something else than a line.
    pub(super) fn always(tenant: &str, roles: Roles) -> Self {
        Self {
            tenant: tenant.into(),
            roles,
            grant: None,
        }
    }

    /// By the same grant as before, if it is by a line on the same terms or wider ones.
    pub(super) fn go_on_from(&mut self, before: Option<&Self>) {
        if let Some(before) = before
            && before.tenant == self.tenant
            && self.roles.include(before.roles)
        {
            self.grant.clone_from(&before.grant);
        }
    }
}
