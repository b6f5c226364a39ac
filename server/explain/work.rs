//! Work over a client's text: on threads that may take their time, not more at once than there are cores, in turns between
//! tenants, within the CPU time that the item has, and no longer than anybody waits for it.

use std::ops::ControlFlow;
use std::sync::Arc;

use code_explainer_host::cpu::{Budget, Limit};
use code_explainer_host::fair_semaphore::Permit;
use code_explainer_host::machine::Passes;

use crate::error::Error;
use crate::explain::Explainer;
use crate::metrics::Metrics;

impl Explainer {
    /// Does work that is one pass over the text. `salt` tells its tenant from others.
    pub(super) async fn work<T: Send + 'static>(
        &self,
        salt: &[u8],
        budget: &Budget,
        work: impl FnOnce(&Limit) -> T + Send + 'static,
    ) -> Result<T, Error> {
        let place = self.preparing.place(salt).await;
        self.at(place, budget, |seat| seat.pass(work)).await
    }

    /// Does work that is several passes, until one has the result. Where another tenant waits that has used less, it gives its
    /// place back after a pass: so nobody waits for more than a pass of somebody who has had more.
    pub(super) async fn work_in_passes<T: Send + 'static>(
        &self,
        salt: &[u8],
        budget: &Budget,
        mut pass: impl FnMut(&Limit) -> ControlFlow<T> + Send + 'static,
    ) -> Result<T, Error> {
        let mut place = self.preparing.place(salt).await;
        loop {
            let passes = move |seat: &mut Seat| loop {
                match seat.pass(&mut pass) {
                    ControlFlow::Break(result) => return (pass, Some(result)),
                    ControlFlow::Continue(()) if seat.place.is_wanted() => return (pass, None),
                    ControlFlow::Continue(()) => {}
                }
            };
            let (next, result) = self.at(place, budget, passes).await?;
            if let Some(result) = result {
                return Ok(result);
            }
            pass = next;
            place = self.preparing.place_again(salt).await;
        }
    }

    async fn at<T: Send + 'static>(
        &self,
        place: Permit,
        budget: &Budget,
        work: impl FnOnce(&mut Seat) -> T + Send + 'static,
    ) -> Result<T, Error> {
        let (budget, metrics) = (budget.clone(), self.metrics.clone());
        let done = self.machine.compute_within(move |passes| {
            metrics.prompts.runs(1.0);
            // Held to the end of the work, also when the item has been cancelled meanwhile.
            let mut seat = Seat {
                place,
                passes,
                budget,
                metrics,
            };
            work(&mut seat)
        });
        done.await.map_err(|panic| {
            tracing::error!(%panic, "code could not be read, or a prompt not be made");
            Error::Internal
        })
    }
}

/// A place on the thread where the work is done.
struct Seat<'a> {
    place: Permit,
    passes: &'a Passes,
    budget: Budget,
    metrics: Arc<Metrics>,
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        self.metrics.prompts.runs(-1.0);
    }
}

impl Seat<'_> {
    /// One pass, paid for by the item and by its tenant.
    fn pass<T>(&mut self, work: impl FnOnce(&Limit) -> T) -> T {
        let limit = self.passes.limit(self.budget.share());
        let result = work(&limit);
        let spent = limit.spent();
        self.budget.spend(spent);
        self.place.spend(spent);
        self.metrics.prompts.pass(spent, limit.was_reached());
        result
    }
}
