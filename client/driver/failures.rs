//! What the driver does when an item, a call or the whole batch cannot go on.

use tokio::time::Instant;

use super::{Driver, Stop};
use crate::job::Job;
use crate::{Code, Error, Progress};

impl Driver {
    pub(super) async fn item_failed(&mut self, job: Job, error: Error) -> Result<(), Stop> {
        if !error.is_retryable() || *self.cancelled.borrow() {
            return self.tell(job.step(Progress::Finished(Err(error)))).await;
        }
        if error.code() == Code::Unavailable
            && let Some(call) = self.call(job.call)
        {
            (call.leaving, call.draining) = (true, true);
        }
        let (retry, mut job, now) = (&self.window.retry, job, Instant::now());
        let mut delay = retry.delay(job.tried, error.retry_delay());
        if error.code() == Code::Unavailable
            && now - *self.unavailable_since.get_or_insert(now) < retry.patience
        {
            // A server that stops or begins did not try it. "At once" is for another server, if there is one.
            delay = retry.delay(job.tried.max(2), error.retry_delay());
            job.tried -= 1;
        }
        self.again(job, error, now + delay).await
    }

    /// Puts the job by for another try, if it has one.
    async fn again(&mut self, job: Job, error: Error, at: Instant) -> Result<(), Stop> {
        if job.tried >= self.window.retry.tries {
            return self.tell(job.step(Progress::Finished(Err(error)))).await;
        }
        let step = job.step(Progress::Retrying {
            tried: job.tried,
            error,
        });
        self.waiting.push((at, job));
        self.tell(step).await
    }

    /// The call ended without an error: what is in flight has been forgotten.
    pub(super) async fn ended(&mut self, key: u64) -> Result<(), Stop> {
        if self.flight.values().any(|job| job.call == key) {
            return self.broken(key, Error::Incomplete).await;
        }
        self.calls.retain(|call| call.key != key);
        Ok(())
    }

    pub(super) async fn broken(&mut self, key: u64, error: Error) -> Result<(), Stop> {
        let Some(at) = self.calls.iter().position(|call| call.key == key) else {
            return Ok(());
        };
        let call = self.calls.remove(at);
        let mut jobs: Vec<Job> = (self.flight.extract_if(|_, job| job.call == key))
            .map(|(_, job)| job)
            .collect();
        jobs.sort_by_key(|job| job.index);
        if *self.cancelled.borrow() {
            for job in jobs {
                self.tell(job.step(Progress::Finished(Err(Error::Cancelled))))
                    .await?;
            }
            return Ok(());
        }

        self.failed_calls += 1;
        let retry = &self.window.retry;
        let now = Instant::now();
        let gone = now - *self.gone_since.get_or_insert(now);
        // A server that is there and breaks every stream is not waited for.
        let waited_for = self.met && error.is_connection() && gone < retry.patience;
        let given_up = self.failed_calls >= retry.tries && !waited_for;
        if !error.is_worth_reopening() || given_up {
            return Err(Stop::Failed(error));
        }
        let at = now + retry.delay(self.failed_calls, error.retry_delay());
        self.pause = self.pause.max(Some(at));
        if let Some(token) = call.token {
            let mut steps = Vec::new();
            for job in &jobs {
                steps.push(job.step(Progress::Retrying {
                    tried: job.tried,
                    error: error.clone(),
                }));
            }
            if !jobs.is_empty() {
                self.lost.push((token, jobs));
            }
            for step in steps {
                self.tell(step).await?;
            }
            return Ok(());
        }
        for mut job in jobs {
            // A server that said nothing did not try the job.
            if !call.heard {
                job.tried -= 1;
            }
            self.again(job, error.clone(), at).await?;
        }
        Ok(())
    }

    pub(super) async fn cancel(&mut self) -> Result<(), Stop> {
        self.more = false;
        let waiting = std::mem::take(&mut self.waiting)
            .into_iter()
            .map(|(_, job)| job);
        let lost = std::mem::take(&mut self.lost).into_iter();
        let lost = lost.flat_map(|(_, jobs)| jobs);
        let held = std::mem::take(&mut self.held);
        for job in held.into_iter().chain(waiting).chain(lost) {
            self.tell(job.step(Progress::Finished(Err(Error::Cancelled))))
                .await?;
        }
        for (id, job) in &self.flight {
            if let Some(call) = self.calls.iter().find(|call| call.key == job.call) {
                // As in `send`: a stream that has ended says so as an event.
                let _ = call.sender.cancel(id).await;
            }
        }
        Ok(())
    }
}
