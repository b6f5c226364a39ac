//! How the scripts are played.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use code_explainer_client::proto::*;
use explain_stream_request::Request as Asked;
use explain_stream_response::Event;
use tokio::sync::mpsc;
use tonic::{Code, Status, Streaming};

use super::Seen;

type Events = mpsc::Sender<Result<ExplainStreamResponse, Status>>;

/// The words of the answer: twelve, or `limit` if it is not 0.
pub(crate) fn words(code: &str, limit: i32) -> Vec<String> {
    let name = code.lines().next().unwrap_or_default();
    let count = if limit > 0 { limit as usize } else { 12 };
    format!("`{name}` does what it says, and → again:")
        .split_inclusive(' ')
        .map(str::to_owned)
        .cycle()
        .take(count)
        .collect()
}

fn accepted(item: &ExplainRequest) -> Accepted {
    Accepted {
        queue_position: 0,
        language: if item.language.is_empty() {
            "guessed".into()
        } else {
            item.language.clone()
        },
        prompt_tokens: 7,
        prompt: if item.include_prompt {
            format!("Explain: {}", item.code)
        } else {
            String::new()
        },
    }
}

/// What an answer of the strategy that quotes has quoted.
fn sources(item: &ExplainRequest) -> Vec<Source> {
    let named = ["docs/queue.md#0", "docs/stack.md#2"].map(|id| Source {
        id: id.into(),
        ..Source::default()
    });
    match item.strategy.as_str() {
        "retrieval_augmented" => named.into(),
        _ => Vec::new(),
    }
}

fn done(item: &ExplainRequest, tokens: usize) -> Done {
    let usage = Usage {
        prompt_tokens: 7,
        cached_tokens: 0,
        generated_tokens: tokens as u32,
    };
    let receipt = Receipt {
        queue_ms: 1.0,
        prefill_ms: 200.0,
        decode_ms: 2899.0,
        time_to_first_token_ms: 201.0,
        largest_batch: 3,
        model: "scripted".into(),
        precision: "fp32".into(),
        replica: "host-1".into(),
        seed: item.seed.unwrap_or(0),
        sources: sources(item),
        strategy: "vanilla".into(),
        ..Default::default()
    };
    let (usage, receipt) = (Some(usage), Some(receipt));
    let reason = if item.max_new_tokens > 0 {
        FinishReason::Length
    } else {
        FinishReason::Eos
    };
    let full_text = match item.include_full_text {
        true => words(&item.code, item.max_new_tokens).concat(),
        false => String::new(),
    };
    Done {
        finish_reason: reason.into(),
        usage,
        receipt,
        full_text,
    }
}

pub(crate) async fn single(
    item: ExplainRequest,
    events: mpsc::Sender<Result<ExplainResponse, Status>>,
) {
    use explain_response::Event;
    let words = words(&item.code, item.max_new_tokens);
    let mut script = vec![Event::Accepted(accepted(&item))];
    let deltas = (0..).zip(&words).map(|(n, w)| Delta {
        text: w.clone(),
        sequence: n,
    });
    script.extend(deltas.map(Event::Delta));
    script.push(Event::Done(done(&item, words.len())));
    for event in script {
        let event = ExplainResponse {
            id: item.id.clone(),
            event: Some(event),
        };
        if events.send(Ok(event)).await.is_err() {
            return;
        }
    }
}

/// An item in flight.
struct Part {
    item: ExplainRequest,
    try_number: u32,
    words: Vec<String>,
    /// Events sent.
    at: usize,
}

/// What a part does next.
enum Cue {
    Say(Event),
    Last(Event),
    Wait,
    Break(Option<Status>),
}

impl Part {
    fn new(item: ExplainRequest, try_number: u32) -> Self {
        let mut words = words(&item.code, item.max_new_tokens);
        if item.code.starts_with("waver") && try_number > 1 {
            words[1] = "wavers ".into();
        }
        Self {
            item,
            try_number,
            words,
            at: 0,
        }
    }

    fn next(&mut self) -> Cue {
        let script = self.item.code.split_whitespace().next().unwrap_or_default();
        let first_try = self.try_number == 1;
        let second_word = self.at == 3;
        match script {
            "refuse" => {
                return Cue::Last(error(
                    Code::InvalidArgument,
                    "the code is refused",
                    None,
                    "code",
                ));
            }
            "busy" if first_try => {
                let wait = self
                    .item
                    .code
                    .split_whitespace()
                    .nth(1)
                    .map(|ms| ms.parse().unwrap());
                return Cue::Last(error(
                    Code::ResourceExhausted,
                    "the queue is full",
                    wait,
                    "",
                ));
            }
            "busy-always" => {
                return Cue::Last(error(
                    Code::ResourceExhausted,
                    "the queue is full",
                    Some(0),
                    "",
                ));
            }
            "drain" if first_try => {
                return Cue::Last(error(Code::Unavailable, "shutting down", Some(0), ""));
            }
            "break" | "waver" if first_try && second_word => {
                return Cue::Break(Some(Status::unavailable("the replica is gone")));
            }
            "vanish" if first_try && second_word => return Cue::Break(None),
            "die" => return Cue::Break(Some(Status::internal("it crashed"))),
            "hold" if self.at == 2 => return Cue::Wait,
            _ => {}
        }
        self.at += 1;
        match self.at - 1 {
            0 => Cue::Say(Event::Accepted(accepted(&self.item))),
            n if n <= self.words.len() => Cue::Say(Event::Delta(Delta {
                text: self.words[n - 1].clone(),
                sequence: n as u64 - 1,
            })),
            _ => Cue::Last(Event::Done(done(&self.item, self.words.len()))),
        }
    }
}

fn error(code: Code, message: &str, retry_ms: Option<u32>, field: &str) -> Event {
    Event::Error(ItemError {
        code: code as i32,
        message: message.into(),
        retryable: retry_ms.is_some(),
        retry_delay: retry_ms.map(|ms| prost_types::Duration {
            seconds: 0,
            nanos: ms as i32 * 1_000_000,
        }),
        field: field.into(),
    })
}

/// Plays all items of a stream together, an event of each in turn.
pub(crate) async fn stream(
    seen: Arc<Seen>,
    requests: Streaming<ExplainStreamRequest>,
    events: Events,
) {
    let ended_well = play(&seen, requests, &events).await;
    seen.ended_well.fetch_add(usize::from(ended_well), Relaxed);
    seen.closed.send_modify(|closed| *closed += 1);
}

async fn play(seen: &Seen, mut requests: Streaming<ExplainStreamRequest>, events: &Events) -> bool {
    let mut parts: Vec<Part> = Vec::new();
    let (mut received, mut open) = (0, true);
    let pace = *seen.pace.lock().unwrap();
    while open || !parts.is_empty() {
        let idle = parts
            .iter_mut()
            .all(|part| part.at == 2 && part.item.code.starts_with("hold"));
        if open && (idle || received < seen.gather.load(Relaxed)) {
            tokio::select! {
                request = requests.message() => match request {
                    Ok(Some(request)) => received += request_comes(seen, &mut parts, request, events).await,
                    Ok(None) => open = false,
                    Err(_) => return false,
                },
                () = events.closed() => return false,
            }
            continue;
        }
        // A later stream waits for nobody.
        seen.gather.store(0, Relaxed);
        if idle && !parts.is_empty() {
            events.closed().await;
            return false;
        }
        // What has come already joins; nothing is waited for.
        while open {
            match futures::FutureExt::now_or_never(requests.message()) {
                Some(Ok(Some(request))) => {
                    received += request_comes(seen, &mut parts, request, events).await;
                }
                Some(Ok(None)) => open = false,
                Some(Err(_)) => return false,
                None => break,
            }
        }
        let mut going = Vec::new();
        for mut part in parts {
            let (event, last) = match part.next() {
                Cue::Say(event) => (event, false),
                Cue::Last(event) => (event, true),
                Cue::Wait => {
                    going.push(part);
                    continue;
                }
                Cue::Break(status) => {
                    if let Some(status) = status {
                        let _ = events.send(Err(status)).await;
                    }
                    return false;
                }
            };
            let id = part.item.id.clone();
            if events
                .send(Ok(ExplainStreamResponse {
                    id,
                    event: Some(event),
                }))
                .await
                .is_err()
            {
                return false;
            }
            if !last {
                going.push(part);
            }
        }
        parts = going;
        match pace.is_zero() {
            true => tokio::task::yield_now().await,
            false => tokio::time::sleep(pace).await,
        }
    }
    true
}

/// Says how many items came: one or none.
async fn request_comes(
    seen: &Seen,
    parts: &mut Vec<Part>,
    request: ExplainStreamRequest,
    events: &Events,
) -> usize {
    match request.request {
        Some(Asked::Explain(item)) => {
            assert!(
                parts.iter().all(|part| part.item.id != item.id),
                "an id twice in flight"
            );
            let try_number = seen.count(&item);
            parts.push(Part::new(item, try_number));
            seen.most_in_flight.fetch_max(parts.len(), Relaxed);
            1
        }
        Some(Asked::Cancel(Cancel { id })) => {
            seen.cancelled.lock().unwrap().push(id.clone());
            if let Some(place) = parts.iter().position(|part| part.item.id == id) {
                parts.remove(place);
                let event = Some(error(Code::Cancelled, "cancelled", None, ""));
                let _ = events.send(Ok(ExplainStreamResponse { id, event })).await;
            }
            0
        }
        // A server that knows no terms serves as ever.
        Some(Asked::Open(_) | Asked::Received(_)) | None => 0,
    }
}
