//! Clients that speak the protocol by themselves, with all that it has: order, credit, deadlines, cancellation, items that
//! replace others, resumption, reading slowly, and going without a word.

use std::time::Duration;

use code_explainer_client::proto::explain_service_client::ExplainServiceClient;
use code_explainer_client::proto::explain_stream_request::Request as Wish;
use code_explainer_client::proto::explain_stream_response::Event;
use code_explainer_client::proto::{
    Cancel, ExplainRequest, ExplainStreamRequest, ExplainStreamResponse, OnDeadline, Open, Order,
    Received,
};
use hyper_util::rt::TokioIo;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::{Channel, Endpoint};

use crate::account::{Account, Conduct};
use crate::batch::draw_item;
use crate::net::Net;
use crate::node::Settings;
use crate::trace::note;
use crate::world::{below, between, milliseconds, once_in};

/// A client, and what it is like.
pub(crate) struct Raw {
    name: String,
    net: Net,
    settings: Settings,
    account: Account,
    resumable: bool,
    in_order: bool,
    /// Bytes that it has the server send ahead.
    window: u32,
    token: String,
    /// By which its servers know it.
    key: Option<String>,
    /// Items that it still wants to send.
    left: u64,
    /// Those that a server forgot.
    again: Vec<ExplainRequest>,
    ids: u64,
    slow: bool,
}

/// How a connection ends for a client.
enum End {
    /// All is answered.
    Satisfied,
    /// It is lost, or let go of.
    Lost,
    /// The client has had enough.
    Gone,
}

struct Stream {
    requests: mpsc::Sender<ExplainStreamRequest>,
    responses: Streaming<ExplainStreamResponse>,
}

impl Stream {
    fn send(&self, request: Wish) {
        // A stream that has ended says so as a message.
        let _ = self.requests.try_send(ExplainStreamRequest {
            request: Some(request),
        });
    }
}

/// A client of this kind until it has had all, or enough.
pub(crate) async fn run(name: String, net: Net, settings: Settings) {
    sleep(milliseconds(0, 6000)).await;
    let in_order = once_in(3);
    let limit = settings.config.stream_items as u64;
    let mut client = Raw {
        account: Account::new(&name, in_order, limit),
        resumable: !once_in(4),
        in_order,
        window: if once_in(3) { 256 } else { 65_535 },
        token: String::new(),
        key: settings.tenants.token(false),
        left: between(1, 10),
        again: Vec::new(),
        ids: 0,
        slow: false,
        name,
        net,
        settings,
    };
    loop {
        match client.connection().await {
            End::Satisfied | End::Gone => return,
            End::Lost => {
                client.slow = true;
                if client.token.is_empty() {
                    let lost = client.account.forget();
                    client.again.extend(lost);
                }
                sleep(milliseconds(1, 1500)).await;
            }
        }
    }
}

impl Raw {
    async fn connection(&mut self) -> End {
        let Some(mut stream) = self.open().await else {
            return End::Lost;
        };
        let lets_go_at = once_in(3).then(|| Instant::now() + milliseconds(10, 4000));
        let goes = once_in(8);
        loop {
            if self.is_satisfied() {
                note!("{}: has all", self.name);
                return End::Satisfied;
            }
            if self.account.retired && self.account.in_flight().next().is_none() {
                // It has asked to be left.
                self.token = String::new();
                return End::Lost;
            }
            if lets_go_at.is_some_and(|at| Instant::now() >= at) {
                note!("{}: lets go", self.name);
                return if goes { End::Gone } else { End::Lost };
            }
            self.act(&stream);
            if once_in(25) {
                self.slow = true;
                sleep(milliseconds(1, 5000)).await;
            }
            let patience = milliseconds(1, 120);
            match timeout(patience, stream.responses.message()).await {
                Err(_) => {}
                Ok(Ok(Some(response))) => self.hears(response),
                Ok(Ok(None)) => {
                    note!("{}: the stream ended", self.name);
                    let left = self.account.in_flight().next().is_some();
                    assert!(
                        !left || self.storm() || self.account.retired,
                        "{}: it ended early",
                        self.name
                    );
                    return End::Lost;
                }
                Ok(Err(status)) => {
                    note!("{}: the stream broke: {}", self.name, status.message());
                    return End::Lost;
                }
            }
        }
    }

    fn is_satisfied(&self) -> bool {
        self.left == 0 && self.again.is_empty() && self.account.in_flight().next().is_none()
    }

    fn storm(&self) -> bool {
        self.settings
            .storm
            .load(std::sync::atomic::Ordering::Relaxed)
    }

    /// A stream, once its terms are there.
    async fn open(&mut self) -> Option<Stream> {
        let (name, net) = (self.name.clone(), self.net.clone());
        let connector = tower::service_fn(move |_: tonic::transport::Uri| {
            let (name, net) = (name.clone(), net.clone());
            async move { net.connect(&name).await.map(TokioIo::new) }
        });
        let endpoint = Endpoint::from_static("http://server:1")
            .connect_timeout(Duration::from_secs(5))
            .http2_keep_alive_interval(Duration::from_secs(30))
            .initial_stream_window_size(self.window);
        let channel: Channel = endpoint.connect_with_connector(connector).await.ok()?;
        let (requests, receiver) = mpsc::channel(1024);
        let interval = once_in(2)
            .then(|| prost_types::Duration::try_from(milliseconds(100, 900)).expect("short"));
        let opening = Open {
            order: if self.in_order {
                Order::InOrder
            } else {
                Order::Unspecified
            }
            .into(),
            resumable: self.resumable,
            resume_token: self.token.clone(),
            have: if self.token.is_empty() {
                Vec::new()
            } else {
                self.account.have()
            },
            expected_items: below(20),
            progress_interval: interval,
        };
        let _ = requests.try_send(ExplainStreamRequest {
            request: Some(Wish::Open(opening)),
        });
        let mut client = ExplainServiceClient::new(channel);
        let call = with_key(ReceiverStream::new(receiver), self.key.as_deref());
        let responses = client.explain_stream(call).await.ok()?.into_inner();
        let mut stream = Stream {
            requests,
            responses,
        };
        let first = stream.responses.message().await.ok()??;
        match first.event {
            Some(Event::Session(session)) => {
                let again = self.account.opened(&session);
                self.again.extend(again);
                self.token = session.resume_token;
                Some(stream)
            }
            other => panic!("{}: {other:?} comes first", self.name),
        }
    }

    fn hears(&mut self, response: ExplainStreamResponse) {
        let ExplainStreamResponse { id, event } = response;
        let conduct = Conduct {
            slow: self.slow || self.in_order,
            calm_since: self.net.calm_since(&self.name),
        };
        self.account.hears(&id, event.expect("an event"), conduct);
    }

    /// Does one thing of those that it may.
    fn act(&mut self, stream: &Stream) {
        let may_send = self.account.credit > 0 && !self.account.retired;
        let sends = !self.again.is_empty() || self.left > 0;
        if may_send && sends && !once_in(4) {
            let request = match self.again.pop() {
                // What it replaced is gone.
                Some(again) => ExplainRequest {
                    replaces: String::new(),
                    ..again
                },
                None => self.draw(),
            };
            if let Some(old) = self.account.items.get_mut(&request.replaces) {
                old.given_up = true;
            }
            self.account.sends(request.clone());
            stream.send(Wish::Explain(request));
            return;
        }
        let in_flight: Vec<&String> = self.account.in_flight().collect();
        let one = in_flight.get(below(in_flight.len() as u64) as usize);
        if let (Some(id), true) = (one, once_in(30)) {
            let id = (*id).clone();
            note!("{}: cancels {id}", self.name);
            if let Some(item) = self.account.items.get_mut(&id) {
                item.given_up = true;
            }
            stream.send(Wish::Cancel(Cancel { id }));
        } else if once_in(40) {
            let ended = self.account.items.iter().filter(|(_, item)| item.ended);
            let ids = ended.map(|(id, _)| id.clone()).collect();
            stream.send(Wish::Received(Received { ids }));
        }
    }

    fn draw(&mut self) -> ExplainRequest {
        self.left -= 1;
        self.ids += 1;
        let mut request = ExplainRequest::from(draw_item());
        request.id = format!("{}", self.ids);
        draw_deadline(&mut request);
        if once_in(6)
            && let Some(id) = self.account.in_flight().last()
        {
            request.replaces = id.clone();
        }
        request
    }
}

/// Gives one item in four a time in which it has to end.
pub(crate) fn draw_deadline(request: &mut ExplainRequest) {
    if once_in(4) {
        request.timeout = prost_types::Duration::try_from(milliseconds(5, 3000)).ok();
        if once_in(2) {
            request.on_deadline = OnDeadline::Keep.into();
        }
    }
}

/// A call that says whose it is.
pub(crate) fn with_key<T>(message: T, key: Option<&str>) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    if let Some(key) = key {
        let value = format!("Bearer {key}").parse().expect("a header");
        request.metadata_mut().insert("authorization", value);
    }
    request
}
