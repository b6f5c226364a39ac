//! Messages, frames and what goes wrong with them.

use code_explainer::proto;
use code_explainer_client::proto as client;
use prost::bytes::{Buf, BufMut};
use proto::inference::infer_parameter::ParameterChoice;
use proto::inference::model_infer_request::InferInputTensor;
use proto::inference::{InferParameter, ModelInferRequest};
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

use crate::common::frames::frame;
use crate::common::random::Random;

/// Bytes that mean something in a message's encoding.
pub(crate) const MEANT: &[&[u8]] = &[
    b"\xff\xff\xff\xff\x0f",
    b"\x0a\xff\x7f",
    b"\x80",
    b"\x00",
    b"\x0b",
    b"\x0c",
    b"\x7f",
    b"\xc0\xaf",
];

const WORDS: [&str; 10] = [
    "",
    "x = 1",
    "é",
    "rust",
    "\u{0}",
    "password = 'pa55w0rd'",
    "{\n",
    "🌍",
    "<|im_end|>",
    " ",
];

fn text(random: &mut Random) -> String {
    random.text(&WORDS, 3)
}

/// An item with something in every field, good more often than not.
pub(crate) fn explain(random: &mut Random) -> proto::ExplainRequest {
    proto::ExplainRequest {
        id: format!("i{}", random.below(4)),
        code: format!("x = {}\n{}", random.below(10), text(random)),
        strategy: ["", "vanilla", "ast_augmented"][random.below(3)].into(),
        max_new_tokens: random.below(9) as i32,
        top_p: [0.0, 0.5, 1.0, f32::NAN][random.below(4)],
        seed: (random.below(2) == 0).then(|| random.next()),
        stop: (0..random.below(3))
            .map(|_| text(random))
            .filter(|stop| !stop.is_empty())
            .collect(),
        priority: option(random, 4),
        timeout: (random.below(8) == 0).then(|| prost_types::Duration {
            seconds: [5, 0, -1, i64::MAX][random.below(4)],
            nanos: [0, 1, -1, i32::MAX][random.below(4)],
        }),
        on_deadline: option(random, 3),
        replaces: ["", "", "", "i1"][random.below(4)].into(),
        cache_mode: option(random, 4),
        replay: option(random, 2),
        include_prompt: random.below(4) == 0,
        include_full_text: random.below(4) == 0,
        ..proto::ExplainRequest::default()
    }
}

/// A value of an enum with so many, and rarely one that it has not.
fn option(random: &mut Random, values: usize) -> i32 {
    match random.below(32) {
        0 => random.next() as i32,
        1..8 => random.below(values) as i32,
        _ => 0,
    }
}

/// A message of a stream.
pub(crate) fn streamed(random: &mut Random) -> proto::ExplainStreamRequest {
    use proto::explain_stream_request::Request;
    let request = match random.below(12) {
        0 => None,
        1 => Some(Request::Cancel(proto::Cancel { id: text(random) })),
        2 => Some(Request::Received(proto::Received {
            ids: vec![text(random), "i1".into()],
        })),
        3 => Some(Request::Open(open(random))),
        _ => Some(Request::Explain(explain(random))),
    };
    proto::ExplainStreamRequest { request }
}

fn open(random: &mut Random) -> proto::Open {
    proto::Open {
        order: option(random, 2),
        progress_interval: (random.below(2) == 0).then(|| prost_types::Duration {
            seconds: [0, 1, -1, i64::MIN][random.below(4)],
            nanos: [1, 200_000_000, -1, i32::MIN][random.below(4)],
        }),
        expected_items: random.next(),
        resumable: random.below(2) == 0,
        resume_token: text(random),
        have: vec![proto::Have {
            id: text(random),
            accepted: random.below(2) == 0,
            next_sequence: random.next(),
        }],
    }
}

/// The same item as tensors.
pub(crate) fn infer(random: &mut Random) -> ModelInferRequest {
    let item = explain(random);
    let code = item.code.into_bytes();
    let mut raw = (code.len() as u32).to_le_bytes().to_vec();
    raw.extend(code);
    let parameter = |choice| InferParameter {
        parameter_choice: Some(choice),
    };
    let tokens = parameter(ParameterChoice::Int64Param(item.max_new_tokens.into()));
    let top_p = parameter(ParameterChoice::DoubleParam(item.top_p.into()));
    ModelInferRequest {
        model_name: "code-explainer".into(),
        id: item.id,
        parameters: [
            ("max_new_tokens".to_owned(), tokens),
            ("top_p".to_owned(), top_p),
            (
                "priority".to_owned(),
                parameter(ParameterChoice::Int64Param(item.priority.into())),
            ),
            (
                "cache_mode".to_owned(),
                parameter(ParameterChoice::StringParam(
                    ["refresh", "bypass", "only", "BYPASS"][random.below(4)].into(),
                )),
            ),
        ]
        .into(),
        inputs: vec![InferInputTensor {
            name: "code".into(),
            datatype: "BYTES".into(),
            shape: vec![1],
            ..InferInputTensor::default()
        }],
        raw_input_contents: vec![raw],
        ..ModelInferRequest::default()
    }
}

/// What a client of HTTP/2 says from its first byte on, with something wrong in it, mostly.
pub(crate) fn conversation(random: &mut Random) -> Vec<u8> {
    use prost::Message;
    let wish = client::explain_stream_request::Request::Cancel(client::Cancel { id: "x".into() });
    let cancel = client::ExplainStreamRequest {
        request: Some(wish),
    }
    .encode_to_vec();
    let mut frames = vec![frame(4, 0, 0, &settings(random))];
    for call in 0..1 + random.below(3) as u32 {
        let stream = 1 + 2 * call;
        let mut message = match random.below(3) {
            0 => cancel.clone(),
            1 => streamed(random).encode_to_vec(),
            _ => explain(random).encode_to_vec(),
        };
        if random.below(2) == 0 {
            random.mutate(&mut message, MEANT);
        }
        let mut body = vec![0];
        body.extend((message.len() as u32).to_be_bytes());
        body.extend(message);
        frames.push(frame(1, 4, stream, &headers(random)));
        frames.push(frame(0, 1, stream, &body));
    }
    for _ in 0..random.below(4) {
        let stream = random.below(8) as u32;
        let other = match random.below(6) {
            0 => frame(3, 0, stream, &(random.next() as u32).to_be_bytes()),
            1 => frame(6, random.below(2) as u8, 0, &random.next().to_be_bytes()),
            2 => frame(7, 0, 0, &random.next().to_be_bytes()),
            3 => frame(8, 0, stream, &(random.next() as u32).to_be_bytes()),
            4 => frame(9, 4, stream, &headers(random)),
            _ => frame(
                random.next() as u8,
                random.next() as u8,
                stream,
                &random.next().to_be_bytes(),
            ),
        };
        frames.insert(1 + random.below(frames.len()), other);
    }
    for _ in 0..random.below(3) {
        let at = random.below(frames.len());
        match random.below(3) {
            0 => random.mutate(&mut frames[at], MEANT),
            1 => frames.insert(at, frames[at].clone()),
            _ => drop(frames.remove(at)),
        }
        if frames.is_empty() {
            break;
        }
    }
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend(frames.concat());
    if random.below(16) == 0 {
        random.mutate(&mut bytes, MEANT);
    }
    bytes
}

fn settings(random: &mut Random) -> Vec<u8> {
    let setting = |random: &mut Random| {
        let id = (1 + random.below(7) as u16).to_be_bytes();
        let value = ((random.next() >> random.below(64)) as u32).to_be_bytes();
        [&id[..], &value[..]].concat()
    };
    (0..random.below(3)).flat_map(|_| setting(random)).collect()
}

/// Header fields, each as a literal that is not to be remembered.
fn headers(random: &mut Random) -> Vec<u8> {
    const PATHS: [&str; 5] = [
        "/codeexplainer.v1.ExplainService/ExplainStream",
        "/codeexplainer.v1.ExplainService/Explain",
        "/codeexplainer.v1.AdminService/GetPerformanceReport",
        "/inference.GRPCInferenceService/ModelStreamInfer",
        "/grpc.health.v1.Health/Watch",
    ];
    let long = "h".repeat(random.below(120));
    let mut fields = vec![
        (":method", "POST"),
        (":scheme", "http"),
        (":path", PATHS[random.below(PATHS.len())]),
        (":authority", "localhost"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
        ("authorization", &long),
        ("grpc-timeout", "1S"),
    ];
    if random.below(4) == 0 {
        let (a, b) = (random.below(fields.len()), random.below(fields.len()));
        fields.swap(a, b);
    }
    let literal = |(name, value): (&str, &str)| {
        let mut field = vec![0, name.len() as u8];
        field.extend(name.bytes());
        field.push(value.len() as u8);
        field.extend(value.bytes());
        field
    };
    fields.into_iter().flat_map(literal).collect()
}

/// Bytes as they are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RawCodec;

impl Codec for RawCodec {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for RawCodec {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.put_slice(&item);
        Ok(())
    }
}

impl Decoder for RawCodec {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        let mut bytes = vec![0; from.remaining()];
        from.copy_to_slice(&mut bytes);
        Ok(Some(bytes))
    }
}
