//! The task behind [`explain_all`](crate::Client::explain_all): a few streams, a bounded window, retries.
//!
//! A job is in one of four places until it is finished: in flight on a call, held until a call has credit for it, waiting for
//! its next try, or lost with a call that may be gone on with. Their sum is bounded by the window.
//!
//! - `calls`: which takes the next job, what they say of themselves, and how a lost one is gone on with.
//! - `failures`: what is done when an item, a call or the whole batch cannot go on.

mod calls;
mod failures;

use std::collections::{HashMap, VecDeque};
use std::future::pending;

use futures::StreamExt;
use futures::stream::BoxStream;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until};

use crate::call::Message;
use crate::credit::Amount;
use crate::job::{Call, Job};
use crate::transcript::Delivery;
use crate::{Client, Code, Error, Event, Failure, Item, ItemEvent, Progress, Step, Window};

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
    /// What a stream may be sent before its server has said.
    assumed: Amount,
    /// Code of an item at most.
    max_code_bytes: usize,
    steps: mpsc::Sender<Result<Step, Error>>,
    cancelled: watch::Receiver<bool>,
    /// Index of the next item.
    next: usize,
    calls: Vec<Call>,
    /// Key of the next call.
    next_call: u64,
    /// Jobs on a call, by the id used there.
    flight: HashMap<String, Job>,
    /// Jobs for which no call has credit; while there are any, no more are taken up.
    held: VecDeque<Job>,
    waiting: Vec<(Instant, Job)>,
    /// Streams that broke and may be gone on with, and their jobs.
    lost: Vec<(String, Vec<Job>)>,
    /// Calls in a row that broke without an event.
    failed_calls: u32,
    /// Nothing is sent before this, after a call broke.
    pause: Option<Instant>,
    /// Since when no call has come about.
    gone_since: Option<Instant>,
    /// Since when the server has refused what it is sent, because it stops or begins.
    unavailable_since: Option<Instant>,
    /// The server has been there.
    met: bool,
}

/// Why the driver stops before all is done.
enum Stop {
    /// The caller has dropped the steps.
    Unheard,
    Failed(Error),
}

enum Turn {
    Item(Option<Item>),
    Message(u64, Option<Result<Message, Error>>),
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
            assumed: Amount::default(),
            steps,
            cancelled,
            next: 0,
            calls: Vec::new(),
            next_call: 0,
            flight: HashMap::new(),
            held: VecDeque::new(),
            waiting: Vec::new(),
            lost: Vec::new(),
            failed_calls: 0,
            pause: None,
            gone_since: None,
            unavailable_since: None,
            met: false,
        }
    }

    pub(crate) async fn run(mut self) {
        match self.drive().await {
            Ok(()) => self.calls.into_iter().for_each(Call::retire),
            // The drop of the calls cancels what is in flight.
            Err(Stop::Unheard) => {}
            Err(Stop::Failed(error)) => {
                let _ = self.steps.send(Err(error)).await;
            }
        }
    }

    async fn drive(&mut self) -> Result<(), Stop> {
        self.learn_limits().await?;
        while self.more || self.jobs() > 0 {
            self.send_held().await;
            match self.turn().await? {
                Turn::Item(None) => self.more = false,
                Turn::Item(Some(item)) => self.take(item).await?,
                Turn::Due => {
                    self.pause = None;
                    self.go_on();
                    for job in self.due_jobs() {
                        self.send(job).await;
                    }
                }
                Turn::Message(call, Some(Ok(Message::Item(event)))) => {
                    self.hear(call, event).await?;
                }
                Turn::Message(call, Some(Ok(Message::Stream(notice)))) => {
                    self.note(call, notice).await;
                }
                Turn::Message(call, Some(Err(error))) => self.broken(call, error).await?,
                Turn::Message(call, None) => self.ended(call).await?,
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
        self.met = true;
        // A stream holds at least the largest item.
        let told = |limit: u32| if limit == 0 { i64::MAX } else { limit.into() };
        self.assumed = Amount {
            items: told(limits.stream_items),
            code_bytes: told(limits.max_code_bytes),
        };
        self.max_code_bytes = match usize::try_from(limits.max_code_bytes) {
            Ok(bytes) if bytes > 0 => bytes.min(self.max_code_bytes),
            _ => self.max_code_bytes,
        };
        Ok(())
    }

    /// Waits for the next thing to do.
    async fn turn(&mut self) -> Result<Turn, Stop> {
        let draining = self.is_draining();
        let may_send = !draining && self.pause.is_none() && self.held.is_empty();
        let room = self.jobs() < self.size;
        // A pause ends by itself; a draining call ends when nothing is in flight on it.
        let first = self.waiting.iter().map(|(at, _)| *at).min();
        let due = self.pause.or(first).filter(|_| !draining);
        let cancelling = *self.cancelled.borrow();
        tokio::select! {
            () = self.steps.closed() => Err(Stop::Unheard),
            () = cancellation(&mut self.cancelled), if self.more || !cancelling => Ok(Turn::Cancelled),
            (call, message) = Call::any(&mut self.calls) => Ok(Turn::Message(call, message)),
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

    /// Jobs that are not finished.
    fn jobs(&self) -> usize {
        let lost: usize = self.lost.iter().map(|(_, jobs)| jobs.len()).sum();
        self.flight.len() + self.held.len() + self.waiting.len() + lost
    }

    fn is_draining(&self) -> bool {
        self.calls.iter().any(|call| call.draining)
    }

    /// Sends a job, when those before it are sent and a call has credit for it.
    async fn send(&mut self, job: Job) {
        self.held.push_back(job);
        self.send_held().await;
    }

    async fn send_held(&mut self) {
        while !self.is_draining()
            && self.pause.is_none()
            && let Some(mut job) = self.held.pop_front()
        {
            let bytes = job.item.code.len();
            let Some(call) = self.call_for_more(bytes) else {
                self.held.push_front(job);
                return;
            };
            job.begin(call.key);
            call.jobs += 1;
            call.credit.spend(bytes);
            // A stream that has ended says so as an event, which takes the job up again.
            let _ = call.sender.explain(job.item.clone()).await;
            self.flight.insert(job.item.id.clone(), job);
        }
    }

    async fn hear(&mut self, key: u64, ItemEvent { id, event }: ItemEvent) -> Result<(), Stop> {
        self.failed_calls = 0;
        self.gone_since = None;
        let Some(call) = self.calls.iter_mut().find(|call| call.key == key) else {
            return Ok(());
        };
        call.heard = true;
        call.credit.is_unknown_there();
        // Of no item of ours: from a server that does not know `open`.
        if id.is_empty() {
            return Ok(());
        }
        // It goes to another stream, whatever this one still says of it.
        if call.handed_back.contains(&id) {
            if matches!(event, Err(_) | Ok(Event::Done(_))) {
                call.handed_back.remove(&id);
            }
            return Ok(());
        }
        let Some(mut job) = self.flight.remove(&id).filter(|job| job.call == key) else {
            return Err(Stop::Failed(Error::Contract(
                "an event of an item that is not in flight",
            )));
        };
        match &event {
            Ok(Event::Done(_)) => {
                call.jobs -= 1;
                call.answered(id.clone());
            }
            Err(_) => call.jobs -= 1,
            Ok(Event::Accepted(_)) => {
                job.is_accepted = true;
                self.unavailable_since = None;
            }
            Ok(Event::Delta(_) | Event::Queued(_)) => {}
        }
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
        self.leave_if_empty(key);
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
