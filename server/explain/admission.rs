//! How many items may be in flight, on all streams and as calls of their own: those that are worked on, and those whose
//! answers wait until their clients read them, which no queue counts.

use std::sync::Arc;
use std::time::Duration;

use code_explainer_host::share::{Shares, Taken};

use crate::error::Error;
use crate::request::ValidRequest;

/// What a place is for: what an item keeps until its answer is read.
const PLACE_BYTES: usize = 4 << 10;
/// When to try again: answers are read all the time.
const RETRY: Duration = Duration::from_secs(1);

/// The items in flight, whose places tenants share.
#[derive(Debug)]
pub struct Admission {
    limit: usize,
    places: Shares,
}

/// The places of an item; given back when it is dropped.
#[derive(Debug)]
pub struct Admitted(#[expect(dead_code, reason = "held")] Taken);

impl Admission {
    /// For so many items.
    pub fn new(limit: usize) -> Self {
        Self {
            limit,
            places: Shares::new(limit),
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
        let places = 1 + prompt.div_ceil(PLACE_BYTES);
        let taken = self.places.take(tenant, places);
        taken.map(Admitted).ok_or(Error::QueueFull {
            limit: self.limit,
            unit: "items in flight",
            retry: RETRY,
        })
    }
}
