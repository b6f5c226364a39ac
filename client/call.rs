//! The two calls of the contract: one snippet, and many on one stream.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures::{Stream, StreamExt};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Response, Status, Streaming};

use crate::proto::{
    Cancel, Credit, ExplainResponse, ExplainStreamRequest, ExplainStreamResponse, GoAway, Open,
    Received, Session, explain_response, explain_stream_request, explain_stream_response,
};
use crate::{Client, Error, Event, Item};

/// Requests that wait to be written to a stream at most; then [`ItemSender::explain`] waits.
const STREAM_BACKLOG: usize = 64;

impl Client {
    /// Explains one snippet. Dropping the answer cancels the call.
    ///
    /// # Errors
    /// [`Error::Connection`], or [`Error::Server`] when the item is refused; later failures come from
    /// the stream.
    pub async fn explain(&self, item: Item) -> Result<Explanation, Error> {
        let response = self
            .explain
            .clone()
            .explain(tonic::Request::new(item.into()))
            .await;
        let response = response.map_err(|status| Error::from_status(&self.address, &status))?;
        let address = self.address.clone();
        Ok(Explanation {
            address,
            events: response.into_inner(),
            state: Progress::Going,
        })
    }

    /// Opens a stream for many items in flight together. The halves may go to different tasks.
    ///
    /// The call is made in the background: its failure is the receiver's first and last event. The
    /// sender's drop half-closes the stream, and what is in flight is answered to the end; the
    /// receiver's drop cancels everything.
    ///
    /// # Panics
    /// When called outside a Tokio runtime.
    pub fn stream(&self) -> (ItemSender, EventReceiver) {
        self.stream_with_backlog(STREAM_BACKLOG)
    }

    pub(crate) fn stream_with_backlog(&self, backlog: usize) -> (ItemSender, EventReceiver) {
        let (requests, queue) = mpsc::channel(backlog);
        let mut client = self.explain.clone();
        let opening =
            tokio::spawn(async move { client.explain_stream(ReceiverStream::new(queue)).await });
        let address = self.address.clone();
        (
            ItemSender { requests },
            EventReceiver {
                address,
                state: State::Opening(opening),
            },
        )
    }
}

/// The events of one explanation, in order: accepted, delta..., done. Then the stream ends.
#[derive(Debug)]
pub struct Explanation {
    address: Arc<str>,
    events: Streaming<ExplainResponse>,
    state: Progress,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Progress {
    Going,
    /// Done has come; the end of the call has not.
    Done,
    Ended,
}

impl Explanation {
    /// Waits for the end and gives the whole text, put together from its deltas, and how it was made.
    ///
    /// # Errors
    /// The error that ended the call, or [`Error::Incomplete`].
    pub async fn finish(mut self) -> Result<(String, crate::Done), Error> {
        let (mut text, mut end) = (String::new(), None);
        while let Some(event) = self.next().await {
            match event? {
                Event::Accepted(_) | Event::Queued(_) => {}
                Event::Delta(delta) => text.push_str(&delta.text),
                Event::Done(done) => end = Some(done),
            }
        }
        end.map(|done| (text, done)).ok_or(Error::Incomplete)
    }
}

impl Stream for Explanation {
    type Item = Result<Event, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        // The call is read to its very end: to let go of it before that would tell the server that it
        // was cancelled.
        while self.state == Progress::Done {
            if !matches!(ready!(self.events.poll_next_unpin(cx)), Some(Ok(_))) {
                self.state = Progress::Ended;
            }
        }
        if self.state == Progress::Ended {
            return Poll::Ready(None);
        }
        let event = match ready!(self.events.poll_next_unpin(cx)) {
            Some(Ok(ExplainResponse {
                event: Some(event), ..
            })) => Ok(match event {
                explain_response::Event::Accepted(event) => Event::Accepted(event.into()),
                explain_response::Event::Queued(event) => Event::Queued(event.queue_position),
                explain_response::Event::Delta(event) => Event::Delta(event.into()),
                explain_response::Event::Done(event) => Event::Done(event.into()),
            }),
            Some(Ok(_)) => Err(Error::Contract("an event without content")),
            Some(Err(status)) => Err(Error::from_status(&self.address, &status)),
            None => Err(Error::Incomplete),
        };
        self.state = match event {
            Ok(Event::Done(_)) => Progress::Done,
            Ok(_) => Progress::Going,
            Err(_) => Progress::Ended,
        };
        Poll::Ready(Some(event))
    }
}

/// The sending half of a stream.
#[derive(Clone, Debug)]
pub struct ItemSender {
    requests: mpsc::Sender<ExplainStreamRequest>,
}

impl ItemSender {
    /// Sends an item, whose id must differ from those of all items in flight. Waits while many
    /// requests are still to be written.
    ///
    /// # Errors
    /// [`Error::Closed`] when the stream has ended.
    pub async fn explain(&self, item: Item) -> Result<(), Error> {
        self.send(explain_stream_request::Request::Explain(item.into()))
            .await
    }

    /// Asks the server to stop working on an item, which then ends with an error of the code
    /// [`CANCELLED`](crate::Code::Cancelled) if it has not ended already.
    ///
    /// # Errors
    /// [`Error::Closed`] when the stream has ended.
    pub async fn cancel(&self, id: impl Into<String>) -> Result<(), Error> {
        self.send(explain_stream_request::Request::Cancel(Cancel {
            id: id.into(),
        }))
        .await
    }

    /// Says how the stream is to be served; before anything else.
    pub(crate) fn open(&self, open: Open) {
        self.try_send(explain_stream_request::Request::Open(open));
    }

    /// Says that answers are here, where there is room: it is no loss if it is not said.
    pub(crate) fn received(&self, ids: Vec<String>) {
        self.try_send(explain_stream_request::Request::Received(Received { ids }));
    }

    fn try_send(&self, request: explain_stream_request::Request) {
        let request = ExplainStreamRequest {
            request: Some(request),
        };
        // A stream that has ended says so as an event.
        let _ = self.requests.try_send(request);
    }

    async fn send(&self, request: explain_stream_request::Request) -> Result<(), Error> {
        let request = ExplainStreamRequest {
            request: Some(request),
        };
        self.requests.send(request).await.map_err(|_| Error::Closed)
    }
}

/// An event of one item of a stream. An item gets accepted, delta... and then exactly one of done and
/// an error.
#[derive(Clone, Debug, PartialEq)]
pub struct ItemEvent {
    /// The item's id.
    pub id: String,
    /// What happened to it. An error is its last event and leaves the other items alone.
    pub event: Result<Event, Error>,
}

/// The receiving half of a stream. An error of the stream itself is its last event: items that had no
/// last event of their own will not get one.
#[derive(Debug)]
pub struct EventReceiver {
    address: Arc<str>,
    state: State,
}

#[derive(Debug)]
enum State {
    Opening(JoinHandle<Result<Response<Streaming<ExplainStreamResponse>>, Status>>),
    Open(Box<Streaming<ExplainStreamResponse>>),
    Ended,
}

/// What a stream says.
#[derive(Debug)]
pub(crate) enum Message {
    /// Of an item.
    Item(ItemEvent),
    /// Of itself.
    Stream(Notice),
}

/// What a stream says of itself.
#[derive(Debug)]
pub(crate) enum Notice {
    /// The terms on which it is served.
    Session(Session),
    /// It takes no more items.
    GoAway(GoAway),
    /// It may be sent so much more.
    Credit(Credit),
    /// How its items fare, which whoever reads them knows.
    Progress,
}

impl EventReceiver {
    pub(crate) fn poll_message(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Message, Error>>> {
        loop {
            let message = match &mut self.state {
                State::Opening(call) => match ready!(Pin::new(call).poll(cx)) {
                    Ok(Ok(response)) => {
                        self.state = State::Open(Box::new(response.into_inner()));
                        continue;
                    }
                    Ok(Err(status)) => Err(Error::from_status(&self.address, &status)),
                    // The runtime is going down.
                    Err(_) => Err(Error::Closed),
                },
                State::Open(events) => match ready!(events.poll_next_unpin(cx)) {
                    Some(Ok(response)) => message(response),
                    Some(Err(status)) => Err(Error::from_status(&self.address, &status)),
                    None => {
                        self.state = State::Ended;
                        return Poll::Ready(None);
                    }
                },
                State::Ended => return Poll::Ready(None),
            };
            if message.is_err() {
                self.state = State::Ended;
            }
            return Poll::Ready(Some(message));
        }
    }
}

impl Stream for EventReceiver {
    type Item = Result<ItemEvent, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            match ready!(self.poll_message(cx)) {
                Some(Ok(Message::Item(event))) => return Poll::Ready(Some(Ok(event))),
                Some(Ok(Message::Stream(_))) => {}
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => return Poll::Ready(None),
            }
        }
    }
}

impl Drop for EventReceiver {
    fn drop(&mut self) {
        if let State::Opening(call) = &self.state {
            call.abort();
        }
    }
}

fn message(response: ExplainStreamResponse) -> Result<Message, Error> {
    use explain_stream_response::Event as Wire;
    let event = match response
        .event
        .ok_or(Error::Contract("an event without content"))?
    {
        Wire::Accepted(event) => Ok(Event::Accepted(event.into())),
        Wire::Queued(event) => Ok(Event::Queued(event.queue_position)),
        Wire::Delta(event) => Ok(Event::Delta(event.into())),
        Wire::Done(event) => Ok(Event::Done(event.into())),
        Wire::Error(error) => Err(error.into()),
        Wire::Session(session) => return Ok(Message::Stream(Notice::Session(session))),
        Wire::GoAway(go_away) => return Ok(Message::Stream(Notice::GoAway(go_away))),
        Wire::Credit(credit) => return Ok(Message::Stream(Notice::Credit(credit))),
        Wire::Progress(_) => return Ok(Message::Stream(Notice::Progress)),
    };
    Ok(Message::Item(ItemEvent {
        id: response.id,
        event,
    }))
}
