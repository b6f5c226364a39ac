//! The task behind [`explain_all`](crate::Client::explain_all): one stream at a time, a bounded window,
//! retries.
//!
//! A job is in one of two places until it is finished: in flight on the current call, or waiting for
//! its next try. Their sum is bounded by the window.

use std::collections::HashMap;
use std::future::pending;

use futures::StreamExt;
use futures::stream::BoxStream;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until};

use crate::job::{Call, Job};
use crate::transcript::Delivery;
use crate::{Client, Code, Error, Event, Failure, Item, ItemEvent, Progress, Retry, Step, Window};

/// The largest window, whatever the server or the caller says.
const MAX_WINDOW: usize = 4096;
/// What a message holds beside the code at most, in bytes: id, options and stop strings.
const ENVELOPE: usize = 64 << 10;

pub(crate) struct Driver {
    client: Client,
    items: BoxStream<'static, Item>,
    /// Whether `items` may have more.
    more: bool,
    window: Window,
    /// Jobs at most.
    size: usize,
    /// Code of an item at most.
    max_code_bytes: usize,
    steps: mpsc::Sender<Result<Step, Error>>,
    cancelled: watch::Receiver<bool>,
    /// Index of the next item.
    next: usize,
    call: Option<Call>,
    /// Jobs on `call`, by the id used there.
    flight: HashMap<String, Job>,
    waiting: Vec<(Instant, Job)>,
    /// Calls in a row that broke without an event.
    failed_calls: u32,
    /// Nothing is sent before this, after a call broke.
    pause: Option<Instant>,
}

/// Why the driver stops before all is done.
enum Stop {
    /// The caller has dropped the steps.
    Unheard,
    Failed(Error),
}

enum Turn {
    Item(Option<Item>),
    Event(Option<Result<ItemEvent, Error>>),
    Due,
    Cancelled,
}

impl Driver {
    pub(crate) fn new(
        client: Client,
        items: BoxStream<'static, Item>,
        window: Window,
        steps: mpsc::Sender<Result<Step, Error>>,
        cancelled: watch::Receiver<bool>,
    ) -> Self {
        Self {
            max_code_bytes: client.max_message_bytes.saturating_sub(ENVELOPE),
            client,
            items,
            more: true,
            window,
            size: 1,
            steps,
            cancelled,
            next: 0,
            call: None,
            flight: HashMap::new(),
            waiting: Vec::new(),
            failed_calls: 0,
            pause: None,
        }
    }

    pub(crate) async fn run(mut self) {
        match self.drive().await {
            Ok(()) => {
                if let Some(call) = self.call.take() {
                    call.retire();
                }
            }
            // The drop of the call cancels what is in flight.
            Err(Stop::Unheard) => {}
            Err(Stop::Failed(error)) => {
                let _ = self.steps.send(Err(error)).await;
            }
        }
    }

    async fn drive(&mut self) -> Result<(), Stop> {
        self.learn_limits().await?;
        while self.more || !self.flight.is_empty() || !self.waiting.is_empty() {
            match self.turn().await? {
                Turn::Item(None) => self.more = false,
                Turn::Item(Some(item)) => self.take(item).await?,
                Turn::Due => {
                    self.pause = None;
                    for job in self.due_jobs() {
                        self.send(job).await;
                    }
                }
                Turn::Event(Some(Ok(event))) => self.hear(event).await?,
                Turn::Event(Some(Err(error))) => self.broken(error).await?,
                Turn::Event(None) => self.ended().await?,
                Turn::Cancelled => self.cancel().await?,
            }
        }
        Ok(())
    }

    /// Asks for the server's limits.
    async fn learn_limits(&mut self) -> Result<(), Stop> {
        let ask = async {
            let mut tried = 0;
            loop {
                tried += 1;
                match self.client.model().await {
                    Ok(model) => return Ok(model.limits.unwrap_or_default()),
                    Err(error) if error.is_retryable() && tried < self.window.retry.tries => {
                        sleep(self.window.retry.delay(tried, error.retry_delay())).await;
                    }
                    Err(error) => return Err(Stop::Failed(error)),
                }
            }
        };
        let limits = tokio::select! {
            limits = ask => limits?,
            () = self.steps.closed() => return Err(Stop::Unheard),
        };
        // More than the server takes would only be refused; a limit of 0 is one that it does not tell.
        let most = [limits.stream_items, limits.queue_items]
            .into_iter()
            .filter_map(|limit| usize::try_from(limit).ok().filter(|limit| *limit > 0))
            .fold(MAX_WINDOW, usize::min);
        self.size = self.window.size.unwrap_or(most).clamp(1, most);
        self.max_code_bytes = match usize::try_from(limits.max_code_bytes) {
            Ok(bytes) if bytes > 0 => bytes.min(self.max_code_bytes),
            _ => self.max_code_bytes,
        };
        Ok(())
    }

    /// Waits for the next thing to do.
    async fn turn(&mut self) -> Result<Turn, Stop> {
        let leaving = self.call.as_ref().is_some_and(|call| call.leaving);
        let may_send = !leaving && self.pause.is_none();
        let room = self.flight.len() + self.waiting.len() < self.size;
        // A pause ends by itself; a leaving call ends when nothing is in flight on it.
        let first = self
            .waiting
            .iter()
            .map(|(at, _)| *at)
            .min()
            .filter(|_| !leaving);
        let due = self.pause.or(first);
        let cancelling = *self.cancelled.borrow();
        tokio::select! {
            () = self.steps.closed() => Err(Stop::Unheard),
            () = cancellation(&mut self.cancelled), if self.more || !cancelling => Ok(Turn::Cancelled),
            event = Call::event(&mut self.call) => Ok(Turn::Event(event)),
            () = at(due), if due.is_some() => Ok(Turn::Due),
            item = self.items.next(), if self.more && room && may_send => Ok(Turn::Item(item)),
        }
    }

    /// Takes an item up: sends it, or refuses it where the server would.
    async fn take(&mut self, item: Item) -> Result<(), Stop> {
        let job = Job::new(self.next, item);
        self.next += 1;
        let bytes = job.item.code.len();
        if bytes <= self.max_code_bytes {
            self.send(job).await;
            return Ok(());
        }
        // Sent all the same, a message over the limit of the transport would end the whole stream.
        let error = Error::Server(Failure {
            code: Code::InvalidArgument,
            message: format!(
                "the code has {bytes} bytes, and the server takes at most {}",
                self.max_code_bytes
            ),
            retryable: false,
            retry_delay: None,
            field: Some("code".to_owned()),
        });
        self.tell(job.step(Progress::Finished(Err(error)))).await
    }

    /// The jobs whose next try is due, in the order of their items.
    fn due_jobs(&mut self) -> Vec<Job> {
        let now = Instant::now();
        let (due, waiting) = self.waiting.drain(..).partition(|(at, _)| *at <= now);
        self.waiting = waiting;
        let mut due: Vec<Job> = due
            .into_iter()
            .map(|(_, job): (Instant, Job)| job)
            .collect();
        due.sort_by_key(|job| job.index);
        due
    }

    async fn send(&mut self, mut job: Job) {
        // Room for every job and a cancellation of each: sending never waits for the server to read,
        // while this task, which must read what the server writes, stands still.
        let call = self.call.get_or_insert_with(|| {
            let (sender, receiver) = self.client.stream_with_backlog(2 * self.size + 1);
            Call::new(sender, receiver)
        });
        job.tried += 1;
        job.transcript.begin();
        // A stream that has ended says so as an event, which takes the job up again.
        let _ = call.sender.explain(job.item.clone()).await;
        self.flight.insert(job.item.id.clone(), job);
    }

    async fn hear(&mut self, ItemEvent { id, event }: ItemEvent) -> Result<(), Stop> {
        self.failed_calls = 0;
        if let Some(call) = &mut self.call {
            call.heard = true;
        }
        let Some(mut job) = self.flight.remove(&id) else {
            return Err(Stop::Failed(Error::Contract(
                "an event of an item that is not in flight",
            )));
        };
        match event {
            Ok(Event::Accepted(accepted)) if job.accepted.is_none() => {
                job.accepted = Some(accepted.clone());
                self.tell(job.step(Progress::Accepted(accepted))).await?;
                self.flight.insert(id, job);
            }
            Ok(Event::Accepted(_) | Event::Queued(_)) => {
                self.flight.insert(id, job);
            }
            Ok(Event::Delta(delta)) => {
                let delivery = job.transcript.hear(delta).map_err(Stop::Failed)?;
                self.deliver(&job, delivery).await?;
                self.flight.insert(id, job);
            }
            Ok(Event::Done(done)) => {
                let delivery = job.transcript.finish();
                self.deliver(&job, delivery).await?;
                self.tell(job.finish(done)).await?;
            }
            Err(error) => self.item_failed(job, error).await?,
        }
        self.leave_if_empty();
        Ok(())
    }

    async fn item_failed(&mut self, job: Job, error: Error) -> Result<(), Stop> {
        if !error.is_retryable() || *self.cancelled.borrow() {
            return self.tell(job.step(Progress::Finished(Err(error)))).await;
        }
        if error.code() == Code::Unavailable
            && let Some(call) = &mut self.call
        {
            call.leaving = true;
        }
        let delay = self.window.retry.delay(job.tried, error.retry_delay());
        self.again(job, error, Instant::now() + delay).await
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
    async fn ended(&mut self) -> Result<(), Stop> {
        if self.flight.is_empty() {
            self.call = None;
            return Ok(());
        }
        self.broken(Error::Incomplete).await
    }

    async fn broken(&mut self, error: Error) -> Result<(), Stop> {
        let heard = self.call.take().is_some_and(|call| call.heard);
        let mut jobs: Vec<Job> = self.flight.drain().map(|(_, job)| job).collect();
        jobs.sort_by_key(|job| job.index);
        if *self.cancelled.borrow() {
            for job in jobs {
                self.tell(job.step(Progress::Finished(Err(Error::Cancelled))))
                    .await?;
            }
            return Ok(());
        }

        self.failed_calls += 1;
        let Retry { tries, .. } = self.window.retry;
        if !error.is_worth_reopening() || self.failed_calls >= tries {
            return Err(Stop::Failed(error));
        }
        let at = Instant::now()
            + self
                .window
                .retry
                .delay(self.failed_calls, error.retry_delay());
        self.pause = Some(at);
        for mut job in jobs {
            // A server that said nothing did not try the job.
            if !heard {
                job.tried -= 1;
            }
            self.again(job, error.clone(), at).await?;
        }
        Ok(())
    }

    /// Lets go of a call whose server is shutting down, once it has answered what it took.
    fn leave_if_empty(&mut self) {
        if self.flight.is_empty()
            && let Some(call) = self.call.take_if(|call| call.leaving)
        {
            call.retire();
        }
    }

    async fn cancel(&mut self) -> Result<(), Stop> {
        self.more = false;
        for (_, job) in std::mem::take(&mut self.waiting) {
            self.tell(job.step(Progress::Finished(Err(Error::Cancelled))))
                .await?;
        }
        if let Some(call) = &self.call {
            for id in self.flight.keys() {
                // As in `send`: a stream that has ended says so as an event.
                let _ = call.sender.cancel(id).await;
            }
        }
        Ok(())
    }

    async fn deliver(&mut self, job: &Job, delivery: Delivery) -> Result<(), Stop> {
        if delivery.restart {
            self.tell(job.step(Progress::Restarted)).await?;
        }
        match delivery.delta {
            Some(delta) => self.tell(job.step(Progress::Delta(delta))).await,
            None => Ok(()),
        }
    }

    async fn tell(&mut self, step: Step) -> Result<(), Stop> {
        self.steps.send(Ok(step)).await.map_err(|_| Stop::Unheard)
    }
}

async fn cancellation(cancelled: &mut watch::Receiver<bool>) {
    // When nobody is left who could cancel, the steps are closed too.
    if cancelled.wait_for(|cancelled| *cancelled).await.is_err() {
        pending::<()>().await;
    }
}

async fn at(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => pending().await,
    }
}
