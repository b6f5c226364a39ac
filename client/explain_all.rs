//! Many items, each answered once, whatever happens to the stream.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::{Stream, StreamExt};
use tokio::sync::{mpsc, watch};

use crate::driver::Driver;
use crate::{Accepted, Client, Delta, Done, Error, Item, Retry};

/// Steps that wait for the caller at most. When it does not take them, the stream is not read, and the
/// server is held up by HTTP/2's flow control.
const BACKLOG: usize = 256;

/// How many items are in flight, and what is done about failures.
#[derive(Clone, Debug, Default)]
pub struct Window {
    /// Items in flight at most, those that wait for another try included. `None`: as many as the
    /// server takes on one stream.
    pub size: Option<usize>,
    /// When failed items and broken streams are tried again.
    pub retry: Retry,
    /// Streams that the items are spread over. `None`: one. More help where a load balancer shares out streams.
    pub streams: Option<u16>,
}

/// Something that happened to an item.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// The item's place among the items given, from 0.
    pub index: usize,
    /// The item's id, as given.
    pub id: String,
    /// What happened.
    pub progress: Progress,
}

/// What happened to an item: `Accepted`, then any of the others, and at last one `Finished`.
#[derive(Clone, Debug, PartialEq)]
pub enum Progress {
    /// The server took the item. Told once, for the first try.
    Accepted(Accepted),
    /// More of the answer. Text that a later try repeats is not delivered again.
    Delta(Delta),
    /// A later try gave another text than the one before: what was delivered so far is void.
    Restarted,
    /// The item failed, or its stream broke, and it will be sent again, or be gone on with where its stream was.
    Retrying {
        /// How many tries there were; the last one is not over if its stream is gone on with.
        tried: u32,
        /// Why the last one failed, or was interrupted.
        error: Error,
    },
    /// The answer, or why there is none. The item's last step.
    Finished(Result<Box<Answer>, Error>),
}

/// A complete answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// The whole text.
    pub text: String,
    /// What the server said when it took the item.
    pub accepted: Option<Accepted>,
    /// Why the answer ended, what it cost and how it was made.
    pub done: Done,
    /// How often the item was sent.
    pub tries: u32,
}

impl Client {
    /// Explains items over one stream, or several, with a bounded number in flight, and sees to it that each gets
    /// one answer:
    ///
    /// - An item that fails in a way that may pass is sent again, after the delay that the server asks
    ///   for, up to [`Retry::tries`] times.
    /// - A stream that breaks is opened again and gone on with where it was, if the server still has it;
    ///   otherwise the items that have no answer are sent again. An item that is sampled and has no seed
    ///   is given one, so that a second try says the same, and no text is delivered twice.
    /// - When a server asks to go away, because the stream is old or the server shuts down (or fails
    ///   items with `UNAVAILABLE`), what runs is let finish and the rest goes to a new stream at once,
    ///   so that a load balancer can send it elsewhere.
    ///
    /// Items are taken as there is room for them. Their ids are for the caller alone: they may be
    /// empty, equal or long, since the stream uses ids of its own.
    ///
    /// The steps of all items come as they happen. An error instead of a step means that the server
    /// is gone after all tries, or refuses to be called at all: it is the last thing to come, and items
    /// without `Finished` have no answer. Dropping the steps cancels everything.
    ///
    /// # Panics
    /// When called outside a Tokio runtime.
    pub fn explain_all(
        &self,
        items: impl Stream<Item = Item> + Send + 'static,
        window: Window,
    ) -> ExplainAll {
        let (steps, received) = mpsc::channel(BACKLOG);
        let (cancel, cancelled) = watch::channel(false);
        let driver = Driver::new(self.clone(), items.boxed(), window, steps, cancelled);
        tokio::spawn(driver.run());
        ExplainAll {
            steps: received,
            cancel: Canceller(Arc::new(cancel)),
        }
    }
}

/// The steps of many items, as they happen.
#[derive(Debug)]
pub struct ExplainAll {
    steps: mpsc::Receiver<Result<Step, Error>>,
    cancel: Canceller,
}

impl ExplainAll {
    /// A handle that cancels what is in flight.
    pub fn canceller(&self) -> Canceller {
        self.cancel.clone()
    }

    /// Waits for all items and gives what they came to, in the order of the items.
    ///
    /// # Errors
    /// The error that ended the steps before all items were finished.
    pub async fn answers(mut self) -> Result<Vec<Result<Answer, Error>>, Error> {
        let mut answers = Vec::new();
        while let Some(step) = self.next().await {
            let step = step?;
            if let Progress::Finished(result) = step.progress {
                answers.push((step.index, result));
            }
        }
        answers.sort_by_key(|(index, _)| *index);
        Ok(answers
            .into_iter()
            .map(|(_, result)| result.map(|answer| *answer))
            .collect())
    }
}

impl Stream for ExplainAll {
    type Item = Result<Step, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.steps.poll_recv(cx)
    }
}

/// Cancels the items of an [`ExplainAll`].
#[derive(Clone, Debug)]
pub struct Canceller(Arc<watch::Sender<bool>>);

impl Canceller {
    /// Takes no more items and cancels those in flight, which finish as cancelled, or with their answer
    /// where it was already under way.
    pub fn cancel(&self) {
        self.0.send_replace(true);
    }
}
