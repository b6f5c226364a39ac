//! What the driver keeps: an item on its way, and the call that it is on.

use std::collections::HashSet;
use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use futures::StreamExt;
use tokio::time::timeout;

use crate::call::Message;
use crate::credit::Credit;
use crate::proto::Have;
use crate::retry::random_seed;
use crate::transcript::Transcript;
use crate::{Accepted, Answer, Done, Error, EventReceiver, Item, ItemSender, Progress, Step};

/// How long a finished stream is given to end properly.
const FAREWELL: Duration = Duration::from_secs(1);
/// Answers that the server keeps until it is told that they are here.
const RECEIVED: usize = 32;

/// An item on its way.
pub(crate) struct Job {
    pub(crate) index: usize,
    /// The caller's id.
    id: String,
    /// With the id used on the stream.
    pub(crate) item: Item,
    /// How often it was sent.
    pub(crate) tried: u32,
    pub(crate) accepted: Option<Accepted>,
    /// The call that it is on, or was.
    pub(crate) call: u64,
    /// The current try has been accepted.
    pub(crate) is_accepted: bool,
    pub(crate) transcript: Transcript,
}

impl Job {
    /// The job of the item at `index`, which is also its id on the stream.
    pub(crate) fn new(index: usize, mut item: Item) -> Self {
        let id = std::mem::replace(&mut item.id, index.to_string());
        // A second try must say what the first one said.
        if item.options.seed.is_none() && item.options.temperature.is_some_and(|t| t > 0.0) {
            item.options.seed = Some(random_seed());
        }
        Self {
            index,
            id,
            item,
            tried: 0,
            accepted: None,
            call: 0,
            is_accepted: false,
            transcript: Transcript::default(),
        }
    }

    /// Another try begins, on this call.
    pub(crate) fn begin(&mut self, call: u64) {
        self.tried += 1;
        self.call = call;
        self.is_accepted = false;
        self.transcript.begin();
    }

    /// What there is of the current try.
    pub(crate) fn have(&self) -> Have {
        Have {
            id: self.item.id.clone(),
            accepted: self.is_accepted,
            next_sequence: self.transcript.expected(),
        }
    }

    pub(crate) fn step(&self, progress: Progress) -> Step {
        Step {
            index: self.index,
            id: self.id.clone(),
            progress,
        }
    }

    /// The job's last step.
    pub(crate) fn finish(self, done: Done) -> Step {
        let Self {
            index,
            id,
            tried,
            accepted,
            transcript,
            ..
        } = self;
        let answer = Answer {
            text: transcript.into_text(),
            accepted,
            done,
            tries: tried,
        };
        Step {
            index,
            id,
            progress: Progress::Finished(Ok(Box::new(answer))),
        }
    }
}

/// One stream to the server.
pub(crate) struct Call {
    pub(crate) key: u64,
    pub(crate) sender: ItemSender,
    receiver: EventReceiver,
    /// Whether the server has said anything of an item.
    pub(crate) heard: bool,
    /// The server is shutting down, or the stream is old: send nothing more.
    pub(crate) leaving: bool,
    /// The server is shutting down: another stream would come to the same one until it has let go of this one.
    pub(crate) draining: bool,
    /// Jobs on it.
    pub(crate) jobs: usize,
    pub(crate) credit: Credit,
    /// By which it can be gone on with.
    pub(crate) token: Option<String>,
    /// Items that the server handed back, and whose errors say nothing new.
    pub(crate) handed_back: HashSet<String>,
    /// Items whose answers are here, and of which the server need keep nothing.
    received: Vec<String>,
}

impl Call {
    pub(crate) fn new(
        key: u64,
        sender: ItemSender,
        receiver: EventReceiver,
        credit: Credit,
    ) -> Self {
        Self {
            key,
            sender,
            receiver,
            heard: false,
            leaving: false,
            draining: false,
            jobs: 0,
            credit,
            token: None,
            handed_back: HashSet::new(),
            received: Vec::new(),
        }
    }

    /// The next message of any call, if there is a call. `None`: the call has ended.
    pub(crate) async fn any(calls: &mut [Self]) -> (u64, Option<Result<Message, Error>>) {
        if !calls.is_empty() {
            // So that none is heard before the others again and again.
            calls.rotate_left(1);
        }
        poll_fn(|context| {
            for call in calls.iter_mut() {
                if let Poll::Ready(message) = call.receiver.poll_message(context) {
                    return Poll::Ready((call.key, message));
                }
            }
            Poll::Pending
        })
        .await
    }

    /// An item is answered. The server is told now and then.
    pub(crate) fn answered(&mut self, id: String) {
        if self.token.is_none() {
            return;
        }
        self.received.push(id);
        if self.received.len() >= RECEIVED {
            self.sender.received(std::mem::take(&mut self.received));
        }
    }

    /// Half-closes the call and reads it to its end in the background, so that the server sees it end
    /// well.
    pub(crate) fn retire(self) {
        let Self {
            sender,
            mut receiver,
            ..
        } = self;
        drop(sender);
        tokio::spawn(timeout(FAREWELL, async move {
            while receiver.next().await.is_some() {}
        }));
    }
}
