//! From tensors and parameters to an item. Believes nothing that a client says of its tensors.

use std::collections::HashMap;

use super::options::{flag, set};
use super::{BYTES, INPUT, MODEL, OUTPUT, VERSION};
use crate::error::Error;
use crate::proto::ExplainRequest;
use crate::proto::inference::model_infer_request::InferInputTensor;
use crate::proto::inference::{InferParameter, ModelInferRequest};

/// Asks for a last response without an output.
const EMPTY_FINAL: &str = "triton_enable_empty_final_response";

/// What a request asks for.
#[derive(Debug, Clone, PartialEq)]
pub struct Wanted {
    /// As `ExplainService` takes it.
    pub item: ExplainRequest,
    /// The last response is to have no output.
    pub empty_final: bool,
}

impl Wanted {
    /// Reads a request.
    ///
    /// # Errors
    /// [`Error::Invalid`] names what is wrong.
    pub fn new(request: ModelInferRequest) -> Result<Self, Error> {
        check_model(&request.model_name, &request.model_version)?;
        if let Some(other) = request.outputs.iter().find(|output| output.name != OUTPUT) {
            let problem = format!("asks for '{}', expected '{OUTPUT}'", short(&other.name));
            return Err(Error::invalid("outputs", problem));
        }
        let code = code(request.inputs, request.raw_input_contents)?;
        let mut wanted = Self {
            item: ExplainRequest {
                id: request.id,
                code,
                ..ExplainRequest::default()
            },
            empty_final: false,
        };
        wanted.parameters(request.parameters)?;
        Ok(wanted)
    }

    fn parameters(&mut self, parameters: HashMap<String, InferParameter>) -> Result<(), Error> {
        for (name, parameter) in parameters {
            let value = parameter.parameter_choice;
            match name.as_str() {
                EMPTY_FINAL => self.empty_final = flag(EMPTY_FINAL, value)?,
                _ => set(&mut self.item, &name, value)?,
            }
        }
        Ok(())
    }
}

/// Whether it is the one model that there is.
pub(super) fn check_model(name: &str, version: &str) -> Result<(), Error> {
    if name != MODEL {
        let problem = format!("is '{}', expected '{MODEL}'", short(name));
        return Err(Error::invalid("model_name", problem));
    }
    if !version.is_empty() && version != VERSION {
        let problem = format!("is '{}', expected '{VERSION}' or nothing", short(version));
        return Err(Error::invalid("model_version", problem));
    }
    Ok(())
}

/// The one element of the one input.
fn code(inputs: Vec<InferInputTensor>, raw: Vec<Vec<u8>>) -> Result<String, Error> {
    let wrong = |problem: String| Error::invalid("inputs", problem);
    let [input] = <[InferInputTensor; 1]>::try_from(inputs).map_err(|inputs| {
        wrong(format!(
            "has {} tensors, expected one: '{INPUT}'",
            inputs.len()
        ))
    })?;
    if input.datatype != BYTES {
        return Err(wrong(format!(
            "is of {}, expected {BYTES}",
            short(&input.datatype)
        )));
    }
    if input.shape.iter().any(|dimension| *dimension != 1) {
        return Err(wrong(
            "has a shape of more or less than one element, expected [1]".into(),
        ));
    }
    let contents = input
        .contents
        .map(|contents| contents.bytes_contents)
        .unwrap_or_default();
    let bytes = match (contents.len(), raw.len()) {
        (0, 1) => raw.into_iter().next().and_then(element),
        (1, 0) => contents.into_iter().next(),
        (elements, raw) => {
            return Err(wrong(format!(
                "has {elements} elements, and {raw} raw contents, expected one of one of them"
            )));
        }
    };
    let bytes = bytes.ok_or_else(|| {
        Error::invalid(
            "raw_input_contents",
            "is no element: its length (4 bytes), and as many bytes",
        )
    })?;
    String::from_utf8(bytes).map_err(|_| Error::invalid("code", "is not UTF-8"))
}

/// An element of BYTES without its length; `None` if the length is not right.
fn element(mut raw: Vec<u8>) -> Option<Vec<u8>> {
    let (length, bytes) = raw.split_first_chunk::<4>()?;
    if u32::from_le_bytes(*length) as usize != bytes.len() {
        return None;
    }
    raw.drain(..4);
    Some(raw)
}

/// As much of a client's word as an error repeats.
pub(super) fn short(word: &str) -> &str {
    &word[..word.floor_char_boundary(64)]
}
