//! Events to wire types.

use std::time::Duration;

use code_explainer_cache::{FinishReason, Level};
use tonic::Status;

use crate::api::Shared;
use crate::error::Error;
use crate::explain::{
    Accepted, Credit, Done, Ending, EventKind, GoAway, GoAwayReason, ItemEvent, Opened, Progress,
    Source,
};
use crate::proto::{self, explain_response, explain_stream_response};
use crate::retrieval::Kind;

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
        // Of a stream, which this is not.
        EventKind::Opened(_)
        | EventKind::Credit(_)
        | EventKind::Progress(_)
        | EventKind::GoAway(_) => return Err(Error::Internal.into()),
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
        EventKind::Opened(opened) => Event::Session(session(*opened)),
        EventKind::Credit(more) => Event::Credit(credit(more)),
        EventKind::Progress(p) => Event::Progress(progress(&p)),
        EventKind::GoAway(leave) => Event::GoAway(go_away(*leave)),
    };
    proto::ExplainStreamResponse {
        id: event.id.to_string(),
        event: Some(kind),
    }
}

fn session(opened: Opened) -> proto::Session {
    proto::Session {
        resume_token: opened.token,
        resume_ttl: duration(opened.ttl),
        resumed: opened.resumed,
        unknown: opened.unknown,
        credit: Some(credit(opened.credit)),
    }
}

fn credit(credit: Credit) -> proto::Credit {
    proto::Credit {
        items: credit.items as u64,
        code_bytes: credit.code_bytes as u64,
    }
}

fn progress(progress: &Progress) -> proto::Progress {
    proto::Progress {
        done: progress.done,
        failed: progress.failed,
        cancelled: progress.cancelled,
        queued: progress.queued,
        running: progress.running,
        items_per_second: progress.items_per_second,
        tokens_per_second: progress.tokens_per_second,
        eta: progress.eta.and_then(duration),
    }
}

fn go_away(leave: GoAway) -> proto::GoAway {
    let reason = match leave.reason {
        GoAwayReason::Age => proto::GoAwayReason::Age,
        GoAwayReason::Drain => proto::GoAwayReason::Drain,
    };
    proto::GoAway {
        reason: reason.into(),
        not_started: leave.not_started,
        reconnect_after: duration(leave.reconnect_after),
    }
}

fn duration(time: Duration) -> Option<prost_types::Duration> {
    prost_types::Duration::try_from(time).ok()
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
            sources: done.sources.into_iter().map(source).collect(),
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

fn source(source: Source) -> proto::Source {
    let kind = match source.kind {
        Kind::Documentation => proto::SourceKind::Documentation,
        Kind::Explanation => proto::SourceKind::Explanation,
    };
    proto::Source {
        id: source.id,
        title: source.title,
        score: source.score,
        kind: kind.into(),
    }
}

fn item_error(error: &Error) -> proto::ItemError {
    let delay = error.retry_after();
    proto::ItemError {
        code: error.code().into(),
        message: error.to_string(),
        retryable: delay.is_some(),
        retry_delay: delay.and_then(duration),
        field: error.field().into(),
    }
}

/// For a person's eyes, in receipts and reports.
pub(super) fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
