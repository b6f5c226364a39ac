//! How many items may be in flight, on all streams and as calls of their own: those that are worked on, and those whose answers wait until
//! their clients read them, which no queue counts.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::error::Error;
use crate::request::ValidRequest;

/// What a place is for: what an item keeps until its answer is read.
const PLACE_BYTES: usize = 4 << 10;
/// When to try again: answers are read all the time.
const RETRY: Duration = Duration::from_secs(1);

/// The items in flight. A tenant may take a place as long as more are free than it has: alone it can have half of all, and
/// there is always room for one who comes later. (A. Choudhury, E. Hahne, "Dynamic Queue Length Thresholds for
/// Shared-Memory Packet Switches", IEEE/ACM ToN 1998, with a factor of 1.)
#[derive(Debug)]
pub struct Admission {
    limit: usize,
    counts: Arc<Mutex<Counts>>,
}

#[derive(Debug, Default)]
struct Counts {
    all: usize,
    /// Of those that have any.
    tenants: HashMap<Arc<str>, usize>,
}

/// The places of an item; given back when it is dropped.
#[derive(Debug)]
pub struct Admitted {
    counts: Arc<Mutex<Counts>>,
    tenant: Arc<str>,
    places: usize,
}

impl Admission {
    /// For so many items.
    pub fn new(limit: usize) -> Self {
        Self {
            limit,
            counts: Arc::default(),
        }
    }

    /// A place for an item of the tenant, and as many more as the prompt takes that it wants to be told.
    ///
    /// # Errors
    /// [`Error::QueueFull`]: the tenant has as many as are free.
    pub fn admit(&self, tenant: &Arc<str>, request: &ValidRequest) -> Result<Admitted, Error> {
        let prompt = if request.include_prompt {
            request.code.len()
        } else {
            0
        };
        self.take(tenant, 1 + prompt.div_ceil(PLACE_BYTES))
    }

    fn take(&self, tenant: &Arc<str>, places: usize) -> Result<Admitted, Error> {
        let mut counts = lock(&self.counts);
        let own = counts.tenants.get(tenant).copied().unwrap_or(0);
        if own >= self.limit.saturating_sub(counts.all) {
            return Err(Error::QueueFull {
                limit: self.limit,
                unit: "items in flight",
                retry: RETRY,
            });
        }
        // A large one may go over the limit by what it has more than one place.
        counts.all += places;
        counts.tenants.insert(tenant.clone(), own + places);
        Ok(Admitted {
            counts: self.counts.clone(),
            tenant: tenant.clone(),
            places,
        })
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let mut counts = lock(&self.counts);
        counts.all -= self.places;
        if let Some(own) = counts.tenants.get_mut(&self.tenant) {
            *own -= self.places;
            if *own == 0 {
                counts.tenants.remove(&self.tenant);
            }
        }
    }
}

fn lock(counts: &Mutex<Counts>) -> MutexGuard<'_, Counts> {
    // Each operation leaves them whole.
    counts.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn as_many_as_may(admission: &Admission, tenant: &str) -> Vec<Admitted> {
        let tenant: Arc<str> = tenant.into();
        std::iter::from_fn(|| admission.take(&tenant, 1).ok()).collect()
    }

    #[test]
    fn there_is_always_room_for_one_who_comes_later() {
        let admission = Admission::new(100);
        let mut held = Vec::new();
        for (tenant, wanted) in [("a", 50), ("b", 25), ("c", 13), ("d", 6), ("e", 3)] {
            let got = as_many_as_may(&admission, tenant);
            assert_eq!(got.len(), wanted, "{tenant}");
            held.push(got);
        }
        // Who had most has to give back before it may have more.
        assert!(as_many_as_may(&admission, "a").is_empty());
        held.remove(0);
        assert_eq!(as_many_as_may(&admission, "a").len(), 27);
        held.clear();
        let large = admission
            .take(&"a".into(), 17)
            .expect("nobody else is there");
        assert_eq!(as_many_as_may(&admission, "b").len(), 42);
        drop(large);
        let counts = lock(&admission.counts);
        assert_eq!((counts.all, counts.tenants.len()), (0, 0));
    }
}
