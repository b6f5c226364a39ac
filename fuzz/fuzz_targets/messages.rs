#![no_main]
//! A message of either protocol, to the point where it is an item that the server would take.

use code_explainer::api::inference::Wanted;
use code_explainer::error::Error;
use code_explainer::proto::ExplainStreamRequest;
use code_explainer::proto::explain_stream_request::Request;
use code_explainer::proto::inference::ModelInferRequest;
use code_explainer::request::{RequestLimits, ValidRequest};
use code_explainer_code::redact::redact;
use libfuzzer_sys::fuzz_target;
use prost::Message;

const LIMITS: RequestLimits = RequestLimits {
    code_bytes: 4096,
    max_new_tokens: 64,
    default_max_new_tokens: 16,
};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(message) = ExplainStreamRequest::decode(bytes)
        && let Some(Request::Explain(item)) = message.request
    {
        search(ValidRequest::new(item, &LIMITS));
    }
    if let Ok(message) = ModelInferRequest::decode(bytes)
        && let Ok(wanted) = Wanted::new(message)
    {
        search(ValidRequest::new(wanted.item, &LIMITS));
    }
});

/// What is taken is searched for secrets.
fn search(request: Result<ValidRequest, Error>) {
    if let Ok(request) = request
        && let Some(redacted) = redact(&request.code)
    {
        assert!(redacted.count() > 0 && redacted.text != request.code);
    }
}
