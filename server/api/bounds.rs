//! How often a message may repeat its fields. This is counted on the wire's bytes, before anything is made of them: an
//! empty string takes two bytes there and twenty-four in memory, in a list that grows by doubling, so that a message of a
//! few megabytes would take a hundred.
//!
//! What a field may hold beyond that is checked where its meaning is known; these bounds are at least as wide.

use crate::api::unreadable::ItemFields;
use crate::error::Error;
use crate::proto::{self, inference};
use crate::request::MAX_NAMES;

/// The fields that can be repeated. One that is in a message inside of another counts over all of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Repeated {
    Received,
    Have,
    Stop,
    Sources,
    Texts,
    Stores,
    Documents,
    Parameters,
    Inputs,
    InputShape,
    InputParameters,
    InputContents,
    Outputs,
    OutputParameters,
    RawContents,
}

impl Repeated {
    /// The last one.
    const COUNT: usize = Self::RawContents as usize + 1;

    /// Its name in the proto, and how often a message may have it.
    fn bound(self) -> (&'static str, usize) {
        match self {
            Self::Received => ("received.ids", MAX_NAMES),
            Self::Have => ("open.have", MAX_NAMES),
            Self::Stop => ("stop", 256),
            Self::Sources => ("retrieval.sources", 16),
            // As --embedding-texts, which can be less.
            Self::Texts => ("texts", 1 << 16),
            Self::Stores => ("stores", 16),
            Self::Documents => ("ids", MAX_NAMES),
            Self::Parameters => ("parameters", 256),
            Self::Inputs => ("inputs", 16),
            Self::InputShape => ("inputs.shape", 64),
            Self::InputParameters => ("inputs.parameters", 256),
            Self::InputContents => ("inputs.contents", 64),
            Self::Outputs => ("outputs", 16),
            Self::OutputParameters => ("outputs.parameters", 256),
            Self::RawContents => ("raw_input_contents", 16),
        }
    }
}

/// What is known of a field that can be repeated, or has one that can be inside.
#[derive(Debug)]
pub(crate) enum Field {
    /// Strings, bytes, or the entries of a map.
    Each(Repeated),
    /// Messages, each of which has fields of this kind itself.
    EachWith(Repeated, Shape),
    /// Numbers, one by one or packed.
    Numbers(Repeated, Packing),
    /// One message, which has fields of this kind.
    One(Shape),
}

/// How numbers stand one after the other.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Packing {
    /// Of seven bits a byte, the last byte's highest bit being 0.
    Varint,
    /// Each of so many bytes.
    Fixed(usize),
}

/// The fields of a message that count, by their numbers.
pub(crate) type Shape = &'static [(u32, Field)];

/// A message that clients send.
pub(crate) trait Bounded {
    /// What counts in it.
    const SHAPE: Shape = &[];
    /// Where it names an item, which can fail without its stream.
    const ITEM: Option<ItemFields> = None;
}

const EXPLAIN: Shape = &[
    (12, Field::Each(Repeated::Stop)),
    (
        22,
        Field::One(&[(5, Field::Numbers(Repeated::Sources, Packing::Varint))]),
    ),
];

impl Bounded for proto::ExplainRequest {
    const SHAPE: Shape = EXPLAIN;
}

impl Bounded for proto::ExplainStreamRequest {
    const SHAPE: Shape = &[
        (1, Field::One(EXPLAIN)),
        (3, Field::One(&[(6, Field::Each(Repeated::Have))])),
        (4, Field::One(&[(1, Field::Each(Repeated::Received))])),
    ];
    const ITEM: Option<ItemFields> = Some(ItemFields {
        id: &[1, 1],
        code: Some(&[1, 2]),
    });
}

impl Bounded for proto::EmbedRequest {
    const SHAPE: Shape = &[(1, Field::Each(Repeated::Texts))];
}

impl Bounded for proto::WarmCacheRequest {
    const SHAPE: Shape = &[(1, Field::One(EXPLAIN))];
}

impl Bounded for proto::ClearCacheRequest {
    const SHAPE: Shape = &[(1, Field::Numbers(Repeated::Stores, Packing::Varint))];
}

impl Bounded for proto::RemoveDocumentsRequest {
    const SHAPE: Shape = &[(1, Field::Each(Repeated::Documents))];
}

impl Bounded for inference::ModelInferRequest {
    const SHAPE: Shape = &[
        (4, Field::Each(Repeated::Parameters)),
        (5, Field::EachWith(Repeated::Inputs, INPUT)),
        (
            6,
            Field::EachWith(
                Repeated::Outputs,
                &[(2, Field::Each(Repeated::OutputParameters))],
            ),
        ),
        (7, Field::Each(Repeated::RawContents)),
    ];
    const ITEM: Option<ItemFields> = Some(ItemFields {
        id: &[3],
        code: None,
    });
}

const INPUT: Shape = &[
    (3, Field::Numbers(Repeated::InputShape, Packing::Varint)),
    (4, Field::Each(Repeated::InputParameters)),
    (5, Field::One(CONTENTS)),
];

/// Elements of every type: only one of them is of use.
const CONTENTS: Shape = {
    const VARINTS: Field = Field::Numbers(Repeated::InputContents, Packing::Varint);
    &[
        (1, VARINTS),
        (2, VARINTS),
        (3, VARINTS),
        (4, VARINTS),
        (5, VARINTS),
        (
            6,
            Field::Numbers(Repeated::InputContents, Packing::Fixed(4)),
        ),
        (
            7,
            Field::Numbers(Repeated::InputContents, Packing::Fixed(8)),
        ),
        (8, Field::Each(Repeated::InputContents)),
    ]
};

// These repeat nothing.
impl Bounded for proto::GetModelRequest {}
impl Bounded for proto::GetPerformanceReportRequest {}
impl Bounded for proto::GetCacheStatsRequest {}
impl Bounded for proto::AddDocumentsRequest {}
impl Bounded for proto::ListDocumentsRequest {}
impl Bounded for inference::ServerLiveRequest {}
impl Bounded for inference::ServerReadyRequest {}
impl Bounded for inference::ModelReadyRequest {}
impl Bounded for inference::ServerMetadataRequest {}
impl Bounded for inference::ModelMetadataRequest {}

/// Counts what a message repeats. Bytes that are no message pass as far as they can be read: who decodes them gets as far
/// and no further.
///
/// # Errors
/// [`Error::Invalid`] names the field and how often it may be there.
pub(crate) fn check(shape: Shape, message: &[u8]) -> Result<(), Error> {
    if shape.is_empty() {
        return Ok(());
    }
    Counts([0; Repeated::COUNT]).message(shape, message)
}

struct Counts([usize; Repeated::COUNT]);

impl Counts {
    fn message(&mut self, shape: &[(u32, Field)], mut rest: &[u8]) -> Result<(), Error> {
        // Inside of a group, which nothing here has, and which is passed over.
        let mut groups = 0_u32;
        while let Some((number, value)) = next(&mut rest) {
            match value {
                Value::GroupBegins => groups = groups.saturating_add(1),
                Value::GroupEnds => groups = groups.saturating_sub(1),
                _ if groups > 0 => {}
                value => {
                    if let Some((_, field)) = shape.iter().find(|(known, _)| *known == number) {
                        self.field(field, &value)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn field(&mut self, field: &Field, value: &Value<'_>) -> Result<(), Error> {
        match (field, value) {
            (Field::One(shape), Value::Bytes(bytes)) => self.message(shape, bytes),
            (Field::EachWith(repeated, shape), Value::Bytes(bytes)) => {
                self.add(*repeated, 1)?;
                self.message(shape, bytes)
            }
            (Field::Numbers(repeated, packing), Value::Bytes(bytes)) => {
                self.add(*repeated, packing.count(bytes))
            }
            (Field::Each(repeated) | Field::Numbers(repeated, _), _) => self.add(*repeated, 1),
            // Not of the type that it should be: nothing comes of it.
            (Field::One(_) | Field::EachWith(..), _) => Ok(()),
        }
    }

    fn add(&mut self, repeated: Repeated, more: usize) -> Result<(), Error> {
        let count = &mut self.0[repeated as usize];
        *count += more;
        let (name, most) = repeated.bound();
        if *count > most {
            let problem = format!("is there more than {most} times, which is the limit");
            return Err(Error::invalid(name, problem));
        }
        Ok(())
    }
}

impl Packing {
    fn count(self, bytes: &[u8]) -> usize {
        match self {
            Self::Varint => bytes.iter().filter(|byte| **byte < 0x80).count(),
            Self::Fixed(size) => bytes.len().div_ceil(size),
        }
    }
}

/// The bytes of a field in a message: its number, after those of the fields that it is inside of. Of several, the last.
pub(crate) fn bytes_at<'a>(path: &[u32], mut message: &'a [u8]) -> Option<&'a [u8]> {
    let (outermost, inside) = path.split_first()?;
    let (mut found, mut groups) = (None, 0_u32);
    while let Some((number, value)) = next(&mut message) {
        match value {
            Value::GroupBegins => groups = groups.saturating_add(1),
            Value::GroupEnds => groups = groups.saturating_sub(1),
            Value::Bytes(bytes) if number == *outermost && groups == 0 => {
                found = match inside {
                    [] => Some(bytes),
                    inside => bytes_at(inside, bytes).or(found),
                };
            }
            _ => {}
        }
    }
    found
}

/// A field's value, as the wire tells it apart.
enum Value<'a> {
    Number,
    Bytes(&'a [u8]),
    GroupBegins,
    GroupEnds,
}

/// The next field; `None` at the end, and where the bytes are no field.
fn next<'a>(rest: &mut &'a [u8]) -> Option<(u32, Value<'a>)> {
    let key = u32::try_from(varint(rest)?).ok()?;
    let value = match key & 7 {
        0 => {
            varint(rest)?;
            Value::Number
        }
        1 => {
            take(rest, 8)?;
            Value::Number
        }
        2 => {
            let length = usize::try_from(varint(rest)?).ok()?;
            Value::Bytes(take(rest, length)?)
        }
        3 => Value::GroupBegins,
        4 => Value::GroupEnds,
        5 => {
            take(rest, 4)?;
            Value::Number
        }
        _ => return None,
    };
    Some((key >> 3, value))
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, left) = rest.split_at_checked(length)?;
    *rest = left;
    Some(taken)
}

/// At most ten bytes; what is beyond 64 bits is left out.
fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for (place, byte) in rest.iter().take(10).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * place);
        if *byte < 0x80 {
            *rest = &rest[place + 1..];
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests;
