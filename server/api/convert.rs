//! Events to wire types.

use std::time::Duration;

use tonic::Status;

use crate::api::Shared;
use crate::cache::{FinishReason, Level};
use crate::error::Error;
use crate::explain::{Accepted, Done, Ending, EventKind, ItemEvent};
use crate::proto::{self, explain_response, explain_stream_response};

/// An event of a single call; a failure is the call's status.
pub(super) fn response(
    event: ItemEvent,
    shared: &Shared,
) -> Result<proto::ExplainResponse, Status> {
    use explain_response::Event;
    let kind = match event.kind {
        EventKind::Accepted(a) => Event::Accepted(accepted(a)),
        EventKind::Queued(position) => Event::Queued(queued(position)),
        EventKind::Delta { text, sequence } => Event::Delta(proto::Delta { text, sequence }),
        EventKind::Done(d) => Event::Done(done(*d, shared)),
        EventKind::Failed(error) => return Err(error.into()),
    };
    Ok(proto::ExplainResponse {
        id: event.id.to_string(),
        event: Some(kind),
    })
}

/// An event of a stream.
pub(super) fn stream_response(event: ItemEvent, shared: &Shared) -> proto::ExplainStreamResponse {
    use explain_stream_response::Event;
    let kind = match event.kind {
        EventKind::Accepted(a) => Event::Accepted(accepted(a)),
        EventKind::Queued(position) => Event::Queued(queued(position)),
        EventKind::Delta { text, sequence } => Event::Delta(proto::Delta { text, sequence }),
        EventKind::Done(d) => Event::Done(done(*d, shared)),
        EventKind::Failed(e) => Event::Error(item_error(&e)),
    };
    proto::ExplainStreamResponse {
        id: event.id.to_string(),
        event: Some(kind),
    }
}

fn accepted(accepted: Accepted) -> proto::Accepted {
    proto::Accepted {
        queue_position: accepted.queue_position as u32,
        language: accepted.language.unwrap_or_default(),
        prompt_tokens: accepted.prompt_tokens as u32,
        prompt: accepted.prompt.unwrap_or_default(),
    }
}

fn queued(position: usize) -> proto::Queued {
    proto::Queued {
        queue_position: position as u32,
    }
}

fn done(done: Done, shared: &Shared) -> proto::Done {
    // There is a model, or nothing would be done.
    let model = shared.status.loaded().map(|e| &e.model);
    let cache = match done.level {
        None => proto::CacheLevel::Unspecified,
        Some(Level::Memory) => proto::CacheLevel::Memory,
        Some(Level::Redis) => proto::CacheLevel::Redis,
    };
    proto::Done {
        finish_reason: finish_reason(done.reason).into(),
        usage: Some(proto::Usage {
            prompt_tokens: done.prompt_tokens as u32,
            cached_tokens: done.cached_tokens as u32,
            generated_tokens: done.generated_tokens as u32,
        }),
        receipt: Some(proto::Receipt {
            queue_ms: milliseconds(done.timings.queue),
            prefill_ms: milliseconds(done.timings.prefill),
            decode_ms: milliseconds(done.timings.decode),
            time_to_first_token_ms: milliseconds(done.first_token),
            largest_batch: done.largest_batch as u32,
            model: model.map(|m| m.model.clone()).unwrap_or_default(),
            precision: model
                .map(|m| m.precision.as_str().into())
                .unwrap_or_default(),
            replica: shared.replica.to_string(),
            seed: done.seed,
            strategy: done.strategy.into(),
            cache: cache.into(),
            notes: done.notes,
            joined: done.joined,
        }),
        full_text: done.full_text.unwrap_or_default(),
    }
}

pub(super) fn finish_reason(reason: Ending) -> proto::FinishReason {
    match reason {
        Ending::Complete(FinishReason::Eos) => proto::FinishReason::Eos,
        Ending::Complete(FinishReason::Stop) => proto::FinishReason::Stop,
        Ending::Complete(FinishReason::Length) => proto::FinishReason::Length,
        Ending::Complete(FinishReason::Context) => proto::FinishReason::Context,
        Ending::Deadline => proto::FinishReason::Deadline,
    }
}

fn item_error(error: &Error) -> proto::ItemError {
    let delay = error.retry_after();
    proto::ItemError {
        code: error.code().into(),
        message: error.to_string(),
        retryable: delay.is_some(),
        retry_delay: delay.and_then(|d| prost_types::Duration::try_from(d).ok()),
        field: error.field().into(),
    }
}

/// For a person's eyes, in receipts and reports.
pub(super) fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
