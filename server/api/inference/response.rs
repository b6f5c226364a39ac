//! From events to tensors.

use std::collections::HashMap;

use code_explainer_cache::Level;

use super::names::Names;
use super::{BYTES, MODEL, OUTPUT, VERSION};
use crate::api::Shared;
use crate::api::convert::{finish_reason, milliseconds};
use crate::error::Error;
use crate::explain::{Done, EventKind, ItemEvent};
use crate::proto::inference::infer_parameter::ParameterChoice as Value;
use crate::proto::inference::model_infer_response::InferOutputTensor;
use crate::proto::inference::{InferParameter, ModelInferResponse, ModelStreamInferResponse};

/// Whether no more comes for a request.
const FINAL: &str = "triton_final_response";

/// An event of a stream; `None`: the protocol has no word for it.
pub(super) fn of(
    event: ItemEvent,
    names: &Names,
    shared: &Shared,
) -> Option<ModelStreamInferResponse> {
    match event.kind {
        EventKind::Delta { text, .. } => Some(piece(&names.called(&event.id)?.id, text)),
        EventKind::Done(done) => {
            let called = names.last(&event.id)?;
            let text = (!called.empty_final).then(String::new);
            Some(sent(last(&called.id, text, called.prompt, *done, shared)))
        }
        EventKind::Failed(error) => Some(failed(&names.last(&event.id)?.id, &error)),
        EventKind::Accepted(accepted) => {
            names.keep_prompt(&event.id, accepted.prompt?);
            None
        }
        EventKind::Queued(_)
        | EventKind::Opened(_)
        | EventKind::Credit(_)
        | EventKind::Progress(_)
        | EventKind::GoAway(_) => None,
    }
}

/// A piece of an answer.
fn piece(id: &str, text: String) -> ModelStreamInferResponse {
    let parameters = HashMap::from([(FINAL.into(), parameter(Value::BoolParam(false)))]);
    sent(response(id, Some(text), parameters))
}

/// The end of an answer, and how it was made. Without a text there is no output.
pub(super) fn last(
    id: &str,
    text: Option<String>,
    prompt: Option<String>,
    done: Done,
    shared: &Shared,
) -> ModelInferResponse {
    let count = |count: usize| Value::Int64Param(count as i64);
    let cache = match done.level {
        None => "computed",
        Some(Level::Memory) => "memory",
        Some(Level::Redis) => "redis",
    };
    let mut parameters = vec![
        (FINAL, Value::BoolParam(true)),
        (
            "finish_reason",
            Value::StringParam(finish_reason(done.reason).as_str_name().into()),
        ),
        ("prompt_tokens", count(done.prompt_tokens)),
        ("cached_tokens", count(done.cached_tokens)),
        ("generated_tokens", count(done.generated_tokens)),
        (
            "queue_ms",
            Value::DoubleParam(milliseconds(done.timings.queue)),
        ),
        (
            "prefill_ms",
            Value::DoubleParam(milliseconds(done.timings.prefill)),
        ),
        (
            "decode_ms",
            Value::DoubleParam(milliseconds(done.timings.decode)),
        ),
        (
            "time_to_first_token_ms",
            Value::DoubleParam(milliseconds(done.first_token)),
        ),
        ("seed", Value::Uint64Param(done.seed)),
        ("strategy", Value::StringParam(done.strategy.into())),
        ("joined", Value::BoolParam(done.joined)),
        ("cache", Value::StringParam(cache.into())),
        ("replica", Value::StringParam(shared.replica.to_string())),
    ];
    if !done.notes.is_empty() {
        parameters.push(("notes", Value::StringParam(done.notes.join("\n"))));
    }
    if !done.sources.is_empty() {
        let ids: Vec<_> = done
            .sources
            .iter()
            .map(|source| source.id.as_str())
            .collect();
        parameters.push(("sources", Value::StringParam(ids.join("\n"))));
    }
    if let Some(prompt) = prompt {
        parameters.push(("prompt", Value::StringParam(prompt)));
    }
    if let Some(full) = done.full_text {
        parameters.push(("full_text", Value::StringParam(full)));
    }
    let named = |(name, value): (&str, Value)| (name.to_owned(), parameter(value));
    response(id, text, parameters.into_iter().map(named).collect())
}

/// A request that failed: why, under its id.
fn failed(id: &str, error: &Error) -> ModelStreamInferResponse {
    let parameters = HashMap::from([(FINAL.into(), parameter(Value::BoolParam(true)))]);
    let named = if id.is_empty() {
        String::new()
    } else {
        format!("[request id: {id}] ")
    };
    ModelStreamInferResponse {
        error_message: format!("{named}{error}"),
        infer_response: Some(response(id, None, parameters)),
    }
}

/// A response of a stream.
fn sent(response: ModelInferResponse) -> ModelStreamInferResponse {
    ModelStreamInferResponse {
        error_message: String::new(),
        infer_response: Some(response),
    }
}

fn response(
    id: &str,
    text: Option<String>,
    parameters: HashMap<String, InferParameter>,
) -> ModelInferResponse {
    let output = |_: &String| InferOutputTensor {
        name: OUTPUT.into(),
        datatype: BYTES.into(),
        shape: vec![1],
        ..InferOutputTensor::default()
    };
    ModelInferResponse {
        model_name: MODEL.into(),
        model_version: VERSION.into(),
        id: id.into(),
        parameters,
        outputs: text.iter().map(output).collect(),
        raw_output_contents: text.into_iter().map(element).collect(),
    }
}

/// An element of BYTES: its length, and itself.
fn element(text: String) -> Vec<u8> {
    let mut raw = Vec::with_capacity(4 + text.len());
    // An answer has far fewer than 2^32 bytes.
    raw.extend_from_slice(&(text.len() as u32).to_le_bytes());
    raw.extend_from_slice(text.as_bytes());
    raw
}

fn parameter(value: Value) -> InferParameter {
    InferParameter {
        parameter_choice: Some(value),
    }
}
