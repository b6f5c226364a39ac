//! A tenant that takes what is for all: resumable sessions, room in the cache.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use code_explainer_client::proto::explain_stream_request::Request as Wish;
use code_explainer_client::proto::{CacheMode, ExplainRequest};
use futures::StreamExt;
use tonic::Code;

use crate::kinds::received::{ItemStream, told};
use crate::stage::{Stage, tiny};
use crate::subject::{ATTACKER, NEIGHBOUR};

/// More than there are by default.
const SESSIONS: usize = 300;
/// Fewer than a connection may carry.
const STREAMS: usize = 100;
/// Answers that the server keeps; fewer than by default, so that an attack of seconds can fill it.
pub(crate) const CACHE_SIZE: &str = "500";
const TINY_ITEMS: usize = 2_600;
/// Fewer items will do where the engine is slow.
const LONGEST: Duration = Duration::from_secs(15);
const WINDOW: usize = 200;
const KEPT: &str = "def kept(answer):\n    return answer\n";

/// Takes every resumable session, and then another tenant asks for one.
pub(crate) async fn sessions(stage: Stage) -> Result<()> {
    stage.ready().await;
    let mut held = Vec::new();
    let mut service = stage.service().await?;
    for n in 1..=SESSIONS {
        if n % STREAMS == 0 {
            service = stage.service().await?;
        }
        let mut stream = match ItemStream::open_on(service.clone(), &stage, ATTACKER).await {
            Ok(stream) => stream,
            Err(error) => {
                stage.got(told(&error));
                continue;
            }
        };
        match stream.resumable().await {
            Ok(session) if session.resume_token.is_empty() => stage.got("not resumable"),
            Ok(_) => stage.got("a resumable session"),
            Err(error) => stage.got(told(&error)),
        }
        held.push(stream);
    }
    let mut neighbour = ItemStream::open(&stage, NEIGHBOUR).await?;
    let refused = neighbour.resumable().await?.resume_token.is_empty();
    stage.check(
        "sessions refused to another tenant",
        f64::from(refused),
        0.0,
    );
    std::future::pending().await
}

/// Has so many tiny items explained that another tenant's answer is forgotten.
pub(crate) async fn cached_answers(stage: Stage) -> Result<()> {
    explain(&stage, CacheMode::Unspecified).await?;
    let mut stream = ItemStream::open(&stage, ATTACKER).await?;
    stage.ready().await;
    let (began, mut sent, mut ended) = (Instant::now(), 0, 0);
    while ended < TINY_ITEMS && began.elapsed() < LONGEST {
        while sent < TINY_ITEMS && sent - ended < WINDOW {
            let item = tiny(&format!("item-{sent}"), &format!("x={sent}"));
            stream.send(Wish::Explain(item)).await?;
            sent += 1;
        }
        let answered = stream.until_ended().await?;
        stage.got(if answered { "tiny items" } else { "refusals" });
        ended += 1;
    }
    // Looked at once, and at the end: who asks for an answer keeps it from being the one used longest ago.
    let forgotten = match explain(&stage, CacheMode::Only).await {
        Ok(()) => 0.0,
        Err(error) => match error.downcast_ref::<tonic::Status>() {
            Some(status) if status.code() == Code::NotFound => 1.0,
            _ => return Err(error),
        },
    };
    stage.check("answers of another tenant forgotten", forgotten, 0.0);
    Ok(())
}

/// The neighbour's item, to its end.
async fn explain(stage: &Stage, mode: CacheMode) -> Result<()> {
    let item = ExplainRequest {
        cache_mode: mode.into(),
        ..tiny("", KEPT)
    };
    let call = stage.call_of(NEIGHBOUR, item)?;
    let answer = stage.service().await?.explain(call).await?;
    let mut answer = answer.into_inner();
    let mut last = None;
    while let Some(event) = answer.next().await {
        last = Some(event?);
    }
    last.map(drop).context("an answer without an event")
}
