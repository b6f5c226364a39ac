//! The bound of the queue in items, and who may have the last of them.
//!
//! A place is taken before any work is done for an item, and given back when an engine takes the item up or nobody wants it
//! any more. Where there are several tenants, one that has many places leaves the last eighth to those who have few:
//! whoever floods the queue finds it full before the others do.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::waiting::Tenant;

/// The part of the queue that is kept for those who have little of it.
const RESERVE: usize = 8;

/// Places that are taken: items whose prompt is being made, and jobs that wait for an engine.
#[derive(Debug, Default)]
pub(super) struct Places {
    state: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    total: usize,
    /// Those with places.
    by_tenant: HashMap<Tenant, usize>,
    /// A tenant has been seen that is not everybody.
    several: bool,
}

/// A place in the queue; dropping it gives it back.
#[derive(Debug)]
pub struct QueuePermit {
    places: Arc<Places>,
    pub(super) tenant: Tenant,
}

/// Whether one who holds `held` of `limit` may have one more when `taken` are taken.
pub(super) fn may_take(
    taken: usize,
    held: usize,
    more: usize,
    limit: usize,
    several: bool,
) -> bool {
    let reserve = if several { limit / RESERVE } else { 0 };
    let most = if held + more > reserve {
        limit - reserve
    } else {
        limit
    };
    taken + more <= most
}

impl Places {
    pub(super) fn taken(&self) -> usize {
        self.lock().total
    }

    /// Whether there is more than one tenant to be just to.
    pub(super) fn several(&self) -> bool {
        self.lock().several
    }

    /// Takes a place, unless `limit` are taken.
    pub(super) fn enter(self: &Arc<Self>, tenant: &Tenant, limit: usize) -> Option<QueuePermit> {
        let mut state = self.lock();
        state.several |= !tenant.is_empty();
        let held = state.by_tenant.get(tenant).copied().unwrap_or(0);
        if !may_take(state.total, held, 1, limit, state.several) {
            return None;
        }
        state.total += 1;
        *state.by_tenant.entry(tenant.clone()).or_insert(0) += 1;
        Some(QueuePermit {
            places: self.clone(),
            tenant: tenant.clone(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        // Each operation leaves the counts whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for QueuePermit {
    fn drop(&mut self) {
        let mut state = self.places.lock();
        state.total -= 1;
        if let Some(held) = state.by_tenant.get_mut(&self.tenant) {
            *held -= 1;
            if *held == 0 {
                state.by_tenant.remove(&self.tenant);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(places: &Arc<Places>, tenant: &str, limit: usize) -> Vec<QueuePermit> {
        let tenant = tenant.into();
        std::iter::from_fn(|| places.enter(&tenant, limit)).collect()
    }

    #[test]
    fn where_nobody_has_a_name_all_places_are_for_all() {
        let places = Arc::default();
        let held = fill(&places, "", 16);
        assert_eq!(held.len(), 16);
        drop(held);
        assert_eq!(places.taken(), 0);
    }

    #[test]
    fn a_flood_leaves_the_last_places_to_others() {
        let places = Arc::default();
        let flood = fill(&places, "flood", 16);
        assert_eq!(flood.len(), 14);
        let other = fill(&places, "other", 16);
        assert_eq!(other.len(), 2, "and they are bounded like all");
        assert_eq!(places.taken(), 16);
        drop(flood);
        assert_eq!(fill(&places, "other", 16).len(), 12);
    }
}
