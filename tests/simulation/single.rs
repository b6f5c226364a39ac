//! Clients with a call for each item, one after the other.

use std::error::Error;
use std::time::Duration;

use code_explainer_client::proto::explain_response::Event;
use code_explainer_client::proto::explain_service_client::ExplainServiceClient;
use code_explainer_client::proto::explain_stream_response::Event as StreamEvent;
use code_explainer_client::proto::{ExplainRequest, ItemError};
use hyper_util::rt::TokioIo;
use tokio::time::{Instant, sleep, timeout};
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Code, Status};

use crate::account::{Account, Conduct};
use crate::batch::draw_item;
use crate::net::Net;
use crate::node::Settings;
use crate::raw::{draw_deadline, with_key};
use crate::trace::note;
use crate::world::{between, milliseconds, once_in};

/// A client, and what it knows.
struct Single {
    name: String,
    net: Net,
    key: Option<String>,
    /// Its servers may not know it for a while.
    shaky: bool,
    account: Account,
    calls: ExplainServiceClient<Channel>,
}

/// A client of this kind until it has asked for all that it wants.
pub(crate) async fn run(name: String, net: Net, settings: Settings) {
    sleep(milliseconds(0, 6000)).await;
    let (of, to) = (name.clone(), net.clone());
    let connector = tower::service_fn(move |_: Uri| {
        let (of, to) = (of.clone(), to.clone());
        async move { to.connect(&of).await.map(TokioIo::new) }
    });
    let endpoint = Endpoint::from_static("http://server:1")
        .connect_timeout(Duration::from_secs(5))
        .http2_keep_alive_interval(Duration::from_secs(30));
    let mut client = Single {
        account: Account::new(&name, false, u64::MAX),
        calls: ExplainServiceClient::new(endpoint.connect_with_connector_lazy(connector)),
        key: settings.tenants.token(false),
        shaky: settings.tenants.shaky,
        name,
        net,
    };
    for number in 0..between(1, 8) {
        let mut request = ExplainRequest::from(draw_item());
        request.id = format!("{number}");
        draw_deadline(&mut request);
        client.asks(request).await;
    }
    note!("{}: has all", client.name);
}

impl Single {
    async fn asks(&mut self, request: ExplainRequest) {
        let (id, mut slow) = (request.id.clone(), false);
        // Nobody counts its calls.
        self.account.credit += 1;
        self.account.sends(request.clone());
        let leaves_at = once_in(5).then(|| Instant::now() + milliseconds(1, 1500));
        let call = with_key(request, self.key.as_deref());
        let mut events = match self.calls.explain(call).await {
            Ok(response) => response.into_inner(),
            Err(status) => return self.fails(&id, &status, slow),
        };
        loop {
            if leaves_at.is_some_and(|at| Instant::now() >= at) {
                note!("{}: leaves {id}", self.name);
                self.account.forget();
                return;
            }
            if once_in(25) {
                slow = true;
                sleep(milliseconds(1, 5000)).await;
            }
            match timeout(milliseconds(1, 120), events.message()).await {
                Err(_) => {}
                Ok(Ok(Some(response))) => {
                    let event = told(response.event.expect("an event"));
                    self.account.hears(&id, event, self.conduct(slow));
                }
                Ok(Ok(None)) => {
                    let left = self.account.in_flight().next();
                    assert_eq!(left, None, "{}: it ended early", self.name);
                    return;
                }
                Ok(Err(status)) => return self.fails(&id, &status, slow),
            }
        }
    }

    fn fails(&mut self, id: &str, status: &Status, slow: bool) {
        let unknown = self.shaky && status.code() == Code::Unauthenticated;
        if status.source().is_some() || unknown {
            note!("{}: {id} is lost: {}", self.name, status.message());
            self.account.forget();
            return;
        }
        let error = ItemError {
            code: status.code() as i32,
            message: status.message().to_owned(),
            retryable: status.code() == Code::Unavailable,
            ..ItemError::default()
        };
        let conduct = self.conduct(slow);
        self.account.hears(id, StreamEvent::Error(error), conduct);
    }

    fn conduct(&self, slow: bool) -> Conduct {
        Conduct {
            slow,
            calm_since: self.net.calm_since(&self.name),
        }
    }
}

/// As it would be told on a stream.
fn told(event: Event) -> StreamEvent {
    match event {
        Event::Accepted(accepted) => StreamEvent::Accepted(accepted),
        Event::Queued(queued) => StreamEvent::Queued(queued),
        Event::Delta(delta) => StreamEvent::Delta(delta),
        Event::Done(done) => StreamEvent::Done(done),
    }
}
