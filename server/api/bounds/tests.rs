use std::collections::HashMap;

use prost::Message;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, FileDescriptorSet};

use super::*;
use crate::proto::explain_stream_request::Request;

#[track_caller]
fn refused<M: Message + Bounded>(message: &M) -> &'static str {
    let error = check(M::SHAPE, &message.encode_to_vec()).expect_err("too many");
    error.field()
}

#[track_caller]
fn passes<M: Message + Bounded>(message: &M) {
    check(M::SHAPE, &message.encode_to_vec()).expect("not too many");
}

fn received(ids: usize) -> proto::ExplainStreamRequest {
    let ids = vec![String::new(); ids];
    proto::ExplainStreamRequest {
        request: Some(Request::Received(proto::Received { ids })),
    }
}

#[test]
fn a_list_may_be_as_long_as_its_bound_and_no_longer() {
    passes(&received(MAX_NAMES));
    assert_eq!(refused(&received(MAX_NAMES + 1)), "received.ids");
    let texts = |count| proto::EmbedRequest {
        texts: vec![String::new(); count],
    };
    passes(&texts(1 << 16));
    assert_eq!(refused(&texts((1 << 16) + 1)), "texts");
}

#[test]
fn parts_of_a_message_that_come_one_after_the_other_count_together() {
    let half = received(MAX_NAMES / 2).encode_to_vec();
    let shape = proto::ExplainStreamRequest::SHAPE;
    check(shape, &half.repeat(2)).expect("as many as there may be");
    let error = check(shape, &half.repeat(3)).expect_err("too many");
    assert!(error.to_string().contains("8192"), "{error}");
}

#[test]
fn numbers_count_packed_or_not() {
    let stores = |count| proto::ClearCacheRequest {
        stores: vec![300; count],
        ..proto::ClearCacheRequest::default()
    };
    passes(&stores(16));
    assert_eq!(refused(&stores(17)), "stores");
    let one_by_one = [0x08, 0x01].repeat(17);
    check(proto::ClearCacheRequest::SHAPE, &one_by_one).expect_err("too many");
    let input = |contents| inference::ModelInferRequest {
        inputs: vec![inference::model_infer_request::InferInputTensor {
            contents: Some(contents),
            ..Default::default()
        }],
        ..Default::default()
    };
    let doubles = |count| inference::InferTensorContents {
        fp64_contents: vec![0.5; count],
        ..Default::default()
    };
    passes(&input(doubles(64)));
    assert_eq!(refused(&input(doubles(65))), "inputs.contents");
}

#[test]
fn what_is_no_message_is_left_to_the_decoder() {
    let shape = proto::ExplainStreamRequest::SHAPE;
    for bytes in [
        &b"\xff"[..],
        b"\x22\x7f",
        b"\x0c",
        b"\x0b\x22\x04\x0a\x00\x0a\x00\x0c",
        b"\x07",
        &[0xff; 64],
    ] {
        check(shape, bytes).expect("nothing to count");
    }
}

/// Every field of what clients send that can be repeated is in the table, so that none is forgotten.
#[test]
fn every_repeated_field_counts() {
    let set = FileDescriptorSet::decode(proto::DESCRIPTORS).expect("descriptors");
    let mut messages = HashMap::new();
    for file in &set.file {
        let package = format!(".{}", file.package());
        for message in &file.message_type {
            collect(&package, message, &mut messages);
        }
    }
    let requests = set.file.iter().flat_map(|file| &file.service);
    let requests = requests.flat_map(|service| &service.method);
    let mut seen = 0;
    for method in requests {
        let name = method.input_type();
        let shape = shape_of(name);
        covered(name, shape, &messages);
        seen += 1;
    }
    assert!(seen > 15, "{seen} methods");
}

fn collect<'a>(
    parent: &str,
    message: &'a DescriptorProto,
    all: &mut HashMap<String, &'a DescriptorProto>,
) {
    let name = format!("{parent}.{}", message.name());
    for nested in &message.nested_type {
        collect(&name, nested, all);
    }
    all.insert(name, message);
}

fn covered(name: &str, shape: Shape, messages: &HashMap<String, &DescriptorProto>) {
    let message = messages[name];
    for field in &message.field {
        let number = field.number() as u32;
        let known = shape.iter().find(|(of, _)| *of == number).map(|(_, f)| f);
        let what = format!("{name}.{}", field.name());
        if field.label() == Label::Repeated {
            let known = known.unwrap_or_else(|| panic!("{what} has no bound"));
            let numbers = !matches!(field.r#type(), Type::String | Type::Bytes | Type::Message);
            assert_eq!(matches!(known, Field::Numbers(..)), numbers, "{what}");
        }
        if field.r#type() == Type::Message {
            let inside = match known {
                Some(Field::One(shape) | Field::EachWith(_, shape)) => shape,
                _ => &[][..],
            };
            // Those of the standard, such as Duration, repeat nothing.
            if messages.contains_key(field.type_name()) {
                covered(field.type_name(), inside, messages);
            }
        }
    }
}

fn shape_of(name: &str) -> Shape {
    match name.rsplit('.').next().expect("a name") {
        "ExplainRequest" => proto::ExplainRequest::SHAPE,
        "ExplainStreamRequest" => proto::ExplainStreamRequest::SHAPE,
        "EmbedRequest" => proto::EmbedRequest::SHAPE,
        "WarmCacheRequest" => proto::WarmCacheRequest::SHAPE,
        "ClearCacheRequest" => proto::ClearCacheRequest::SHAPE,
        "RemoveDocumentsRequest" => proto::RemoveDocumentsRequest::SHAPE,
        "ModelInferRequest" => inference::ModelInferRequest::SHAPE,
        // The compiler asks for the others, too; they have nothing to count.
        _ => &[],
    }
}
