//! Two million ids that a resumable stream is told to have been received, against all the answers that it keeps.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use code_explainer_client::proto::explain_service_client::ExplainServiceClient;
use code_explainer_client::proto::explain_stream_request::Request as Wish;
use code_explainer_client::proto::explain_stream_response::Event;
use code_explainer_client::proto::{
    ExplainStreamRequest, ExplainStreamResponse, Open, Received, Session,
};
use futures::StreamExt;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::Channel;

use crate::stage::{Stage, tiny};

const STREAMS: usize = 4;
/// What a stream keeps by default: a mebibyte of answers of a token.
const KEPT: usize = 1_900;
const IDS: usize = 2_000_000;
/// Items in flight on a stream while it is filled.
const WINDOW: usize = 200;

/// A stream of items.
pub(super) struct ItemStream {
    wishes: mpsc::Sender<ExplainStreamRequest>,
    pub(super) events: Streaming<ExplainStreamResponse>,
}

impl ItemStream {
    /// Opens one as a tenant that has a key, on a connection of its own.
    pub(super) async fn open(stage: &Stage, tenant: &str) -> Result<Self> {
        Self::open_on(stage.service().await?, stage, tenant).await
    }

    /// The same on a connection that is there.
    pub(super) async fn open_on(
        mut service: ExplainServiceClient<Channel>,
        stage: &Stage,
        tenant: &str,
    ) -> Result<Self> {
        let (wishes, queue) = mpsc::channel(WINDOW);
        let call = stage.call_of(tenant, ReceiverStream::new(queue))?;
        let events = service.explain_stream(call).await?;
        Ok(Self {
            wishes,
            events: events.into_inner(),
        })
    }

    pub(super) async fn send(&self, wish: Wish) -> Result<()> {
        let request = Some(wish);
        let sent = self.wishes.send(ExplainStreamRequest { request });
        sent.await.ok().context("the stream is over")
    }

    /// Asks that it be kept when its connection is lost, and reads the terms.
    pub(super) async fn resumable(&mut self) -> Result<Session> {
        let open = Open {
            resumable: true,
            ..Open::default()
        };
        self.send(Wish::Open(open)).await?;
        match self.next().await? {
            Event::Session(session) => Ok(session),
            other => bail!("the terms come first, not {other:?}"),
        }
    }

    pub(super) async fn next(&mut self) -> Result<Event> {
        let event = self.events.next().await.context("the stream is over")??;
        event.event.context("an event without a kind")
    }

    /// Reads until an item has ended: whether it was answered.
    pub(super) async fn until_ended(&mut self) -> Result<bool> {
        loop {
            match self.next().await? {
                Event::Done(_) => return Ok(true),
                Event::Error(_) => return Ok(false),
                _ => {}
            }
        }
    }
}

pub(crate) async fn run(stage: Stage) -> Result<()> {
    let mut streams = Vec::new();
    for _ in 0..STREAMS {
        let mut stream = ItemStream::open(&stage, crate::subject::ATTACKER).await?;
        stream.resumable().await?;
        fill(&mut stream).await?;
        streams.push(stream);
    }
    stage.ready().await;
    let attacks = streams.into_iter().map(|mut stream| {
        let stage = &stage;
        async move {
            let received = Received {
                ids: vec![String::new(); IDS],
            };
            stream.send(Wish::Received(received)).await?;
            stream.send(Wish::Explain(tiny("after", "x = 1"))).await?;
            match stream.until_ended().await {
                Ok(answered) => stage.got(format!("an item answered afterwards: {answered}")),
                Err(error) => stage.got(told(&error)),
            }
            // It is held to the end of the attack.
            tokio::time::sleep(Duration::from_secs(3600)).await;
            anyhow::Ok(())
        }
    });
    futures::future::try_join_all(attacks).await.map(drop)
}

/// Has one answer sent over and over, under other ids: all but the first come from the cache.
async fn fill(stream: &mut ItemStream) -> Result<()> {
    let (mut sent, mut ended) = (0, 0);
    while ended < KEPT {
        while sent < KEPT && sent - ended < WINDOW {
            let item = tiny(&format!("item-{sent}"), "x = 1");
            stream.send(Wish::Explain(item)).await?;
            sent += 1;
        }
        if !stream.until_ended().await? {
            bail!("an item of the preparation was refused");
        }
        ended += 1;
    }
    Ok(())
}

/// A status, by its name alone.
pub(super) fn told(error: &anyhow::Error) -> String {
    match error.downcast_ref::<tonic::Status>() {
        Some(status) => code_explainer_client::code_name(status.code()).to_owned(),
        None => error.to_string(),
    }
}
