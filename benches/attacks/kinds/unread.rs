//! Answers from the cache that nobody reads.

use anyhow::{Context, Result, bail};
use code_explainer_client::proto::explain_stream_request::Request as Wish;
use code_explainer_client::proto::{ExplainRequest, ExplainStreamRequest};
use futures::StreamExt;
use prost::bytes::BytesMut;
use tokio::task::JoinSet;

use crate::stage::Stage;
use crate::subject::ATTACKER;
use crate::wire::{self, Connection};

const STREAMS: usize = 250;
const HITS: usize = 250;

pub(crate) async fn run(stage: Stage) -> Result<()> {
    let mut service = stage.service().await?;
    let answer = service.explain(stage.call(long(String::new()))?).await?;
    let mut answer = answer.into_inner();
    while let Some(event) = answer.next().await {
        event.context("the answer to be cached")?;
    }
    stage.ready().await;
    // Only now: a connection without a call is closed after a while.
    let connection = Connection::to(stage.grpc(), wire::ATTACKER, Some(0)).await?;
    let (mut calls, mut held) = (JoinSet::new(), Vec::new());
    for _ in 0..STREAMS {
        let opened = connection.open(wire::STREAM, stage.token(ATTACKER)).await;
        let Ok((response, mut sending)) = opened else {
            bail!("the connection was closed");
        };
        let mut items = BytesMut::new();
        for hit in 0..HITS {
            let request = Some(Wish::Explain(long(hit.to_string())));
            items.extend(wire::framed(&ExplainStreamRequest { request }));
        }
        sending.send_data(items.freeze(), false)?;
        held.push(sending);
        calls.spawn(async move {
            // Its headers come, and nothing of it can.
            match response.await {
                Ok(response) => {
                    let mut body = response.into_body();
                    match body.data().await {
                        Some(Err(error)) if error.is_reset() => "reset".into(),
                        Some(Err(_)) => "connection closed".into(),
                        Some(Ok(_)) => "data without room for it".into(),
                        None => "the end of the stream".into(),
                    }
                }
                Err(_) => "refused".to_owned(),
            }
        });
    }
    super::count(&stage, calls).await;
    Ok(())
}

/// The item whose answer is as long as it can be.
fn long(id: String) -> ExplainRequest {
    ExplainRequest {
        id,
        code: "x = 1".into(),
        max_new_tokens: 1024,
        ignore_eos: true,
        ..ExplainRequest::default()
    }
}
