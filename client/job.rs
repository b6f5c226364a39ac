//! What the driver keeps: an item on its way, and the call that it is on.

use std::future::pending;
use std::time::Duration;

use futures::StreamExt;
use tokio::time::timeout;

use crate::retry::random_seed;
use crate::transcript::Transcript;
use crate::{
    Accepted, Answer, Done, Error, EventReceiver, Item, ItemEvent, ItemSender, Progress, Step,
};

/// How long a finished stream is given to end properly.
const FAREWELL: Duration = Duration::from_secs(1);

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
            transcript: Transcript::default(),
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
    pub(crate) sender: ItemSender,
    receiver: EventReceiver,
    /// Whether the server has said anything.
    pub(crate) heard: bool,
    /// The server is shutting down: send nothing more.
    pub(crate) leaving: bool,
}

impl Call {
    pub(crate) fn new(sender: ItemSender, receiver: EventReceiver) -> Self {
        Self {
            sender,
            receiver,
            heard: false,
            leaving: false,
        }
    }

    /// The next event of a call, if there is a call.
    pub(crate) async fn event(call: &mut Option<Self>) -> Option<Result<ItemEvent, Error>> {
        match call {
            Some(call) => call.receiver.next().await,
            None => pending().await,
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
