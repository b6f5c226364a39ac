//! `ExplainService.Embed`: texts to vectors.

use tonic::{Request, Response, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::api::Shared;
use crate::embed::{Embedding, Lane};
use crate::error::Error;
use crate::identity::Identity;
use crate::proto::{self, EmbedRequest, EmbedResponse};
use crate::status::Phase;

/// Texts at fault that are told one by one; more are as good as these.
const TOLD: usize = 16;

/// Answers the call. Vectors are shared within a tenant; a text counts as an item of its rate, and a text that is computed
/// takes its tokens too.
pub(super) async fn embed(
    shared: &Shared,
    identity: &Identity,
    request: Request<EmbedRequest>,
) -> Result<Response<EmbedResponse>, Status> {
    if shared.status.phase() == Phase::Draining {
        return Err(Error::ShuttingDown.into());
    }
    let embedder = &shared.embedder;
    let texts = request.into_inner().texts;
    check(
        &texts,
        embedder.config().request_texts,
        embedder.config().text_bytes,
    )?;
    (identity.rates.take_items(texts.len()))
        .inspect_err(|_| shared.metrics.access.rate_limited("items"))?;
    let salt = identity.salt(shared.cache_secret.as_bytes());
    // Awaited when the server drains.
    let work = shared.status.items.track_future(embedder.embed(
        Lane::Request,
        &salt,
        &identity.rates,
        texts,
    ));
    let embeddings = tokio::select! {
        biased;
        () = shared.status.closing.cancelled() => return Err(Error::ShuttingDown.into()),
        embeddings = work => embeddings.inspect_err(|error| {
            if let Error::RateLimited { what, .. } = error {
                shared.metrics.access.rate_limited(what);
            }
        })?,
    };
    let info = embedder.info().ok_or(Error::Internal)?;
    Ok(Response::new(EmbedResponse {
        embeddings: embeddings.into_iter().map(wire).collect(),
        model: info.model.clone(),
        dimensions: info.dimensions as u32,
    }))
}

fn wire(embedding: Embedding) -> proto::Embedding {
    proto::Embedding {
        values: embedding.values,
        tokens: embedding.tokens,
        truncated: embedding.truncated,
        cached: embedding.cached,
    }
}

/// Every text that is at fault is told by its place.
fn check(texts: &[String], most: usize, bytes: usize) -> Result<(), Status> {
    if texts.is_empty() {
        return Err(Error::invalid("texts", "is empty, expected at least one text").into());
    }
    if texts.len() > most {
        let problem = format!("has {} texts, expected at most {most}", texts.len());
        return Err(Error::invalid("texts", problem).into());
    }
    let mut details = ErrorDetails::new();
    let (mut first, mut bad) = (None, 0);
    for (place, text) in texts.iter().enumerate() {
        let problem = if text.trim().is_empty() {
            "is empty, expected text".to_owned()
        } else if text.len() > bytes {
            format!("is {} bytes long, expected at most {bytes}", text.len())
        } else {
            continue;
        };
        bad += 1;
        if bad <= TOLD {
            details.add_bad_request_violation(format!("texts[{place}]"), &problem);
        }
        first.get_or_insert_with(|| format!("texts[{place}]: {problem}"));
    }
    let Some(first) = first else {
        return Ok(());
    };
    let message = match bad {
        1 => first,
        n => format!("{first}; and {} more texts are at fault", n - 1),
    };
    Err(Status::with_error_details(
        Error::invalid("texts", "").code(),
        message,
        details,
    ))
}
