//! The safetensors container: an 8-byte length, a JSON table of tensors, their data without gaps.
//!
//! The crate `safetensors` knows the element types. The table is read here, because the crate's errors do not name the
//! tensor, and because its sum of header and data length can overflow on a lying table.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

use ::safetensors::Dtype;
use serde::Deserialize;
use serde::de::{Deserializer, Error, IgnoredAny, MapAccess, Visitor};

use super::error::SafetensorsError;
use crate::model_json;

const LENGTH_BYTES: usize = 8;
/// The format's own bound.
const LARGEST_HEADER: usize = 100_000_000;

/// Where a tensor of a safetensors file lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SafetensorsEntry {
    /// Type of its elements.
    pub dtype: Dtype,
    /// Its shape, outermost dimension first.
    pub shape: Vec<usize>,
    /// Its bytes in the file.
    pub range: Range<usize>,
}

/// The table of a safetensors file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SafetensorsTable {
    /// Tensors by the names that the file gives them. The ranges lie in the parsed slice and cover all data.
    pub tensors: BTreeMap<String, SafetensorsEntry>,
}

impl SafetensorsTable {
    /// Parses a whole file.
    ///
    /// Allocates at most a small multiple of the header's bytes in the file.
    pub fn parse(bytes: &[u8]) -> Result<Self, SafetensorsError> {
        if model_json::is_lfs_pointer(bytes) {
            return Err(SafetensorsError::Pointer);
        }
        let Some((length, rest)) = bytes.split_first_chunk::<LENGTH_BYTES>() else {
            return Err(SafetensorsError::NoLength {
                available: bytes.len(),
            });
        };
        let declared = u64::from_le_bytes(*length);
        let fits = |&n: &usize| n <= rest.len().min(LARGEST_HEADER);
        let Some(length) = usize::try_from(declared).ok().filter(fits) else {
            let (available, most) = (rest.len(), LARGEST_HEADER);
            return Err(SafetensorsError::HeaderLength {
                declared,
                available,
                most,
            });
        };
        let (header, data) = rest.split_at(length);
        let header: Header =
            serde_json::from_slice(header).map_err(|e| SafetensorsError::Header {
                reason: e.to_string(),
            })?;
        let mut tensors = header.tensors;
        check_data(&tensors, data.len())?;
        for entry in tensors.values_mut() {
            entry.range.start += LENGTH_BYTES + length;
            entry.range.end += LENGTH_BYTES + length;
        }
        Ok(Self { tensors })
    }
}

/// Sizes agree with shapes, and the ranges, still relative to the data, cover it without gap or overlap.
fn check_data(
    tensors: &BTreeMap<String, SafetensorsEntry>,
    available: usize,
) -> Result<(), SafetensorsError> {
    let mut ordered: Vec<_> = tensors.iter().collect();
    ordered.sort_by_key(|(_, entry)| (entry.range.start, entry.range.end));
    let mut end = 0;
    for (
        name,
        SafetensorsEntry {
            dtype,
            shape,
            range,
        },
    ) in ordered
    {
        let reason = |reason: String| SafetensorsError::Header {
            reason: format!("tensor '{}' {reason}", shown(name)),
        };
        if range.start != end {
            return Err(reason(format!(
                "begins at byte {} of the data, but the one before ends at {end}",
                range.start
            )));
        }
        let Some(found) = range.end.checked_sub(range.start) else {
            return Err(reason(format!(
                "ends at byte {}, before it begins",
                range.end
            )));
        };
        let elements = shape
            .iter()
            .try_fold(1usize, |n, &size| n.checked_mul(size));
        let bits = elements.and_then(|n| n.checked_mul(dtype.bitsize()));
        if bits != found.checked_mul(8) || bits.is_none() {
            return Err(SafetensorsError::Size {
                tensor: shown(name),
                dtype: format!("{dtype:?}"),
                shape: shape.clone(),
                found,
            });
        }
        end = range.end;
    }
    if end != available {
        return Err(SafetensorsError::DataLength {
            described: end,
            available,
        });
    }
    Ok(())
}

/// A name for a message: cut, should the file have made it long.
fn shown(name: &str) -> String {
    name.chars().take(100).collect()
}

struct Header {
    tensors: BTreeMap<String, SafetensorsEntry>,
}

#[derive(Deserialize)]
struct Described {
    dtype: Dtype,
    shape: Vec<usize>,
    data_offsets: (usize, usize),
}

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(HeaderVisitor)
    }
}

/// Unlike serde's own map, it refuses a name that comes twice.
struct HeaderVisitor;

impl<'de> Visitor<'de> for HeaderVisitor {
    type Value = Header;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object of tensors")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Header, A::Error> {
        let mut tensors = BTreeMap::new();
        while let Some(name) = map.next_key::<String>()? {
            if name == "__metadata__" {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            let Described {
                dtype,
                shape,
                data_offsets: (start, end),
            } = map
                .next_value()
                .map_err(|e| A::Error::custom(format!("tensor '{}': {e}", shown(&name))))?;
            let entry = SafetensorsEntry {
                dtype,
                shape,
                range: start..end,
            };
            if let Some(_before) = tensors.insert(name.clone(), entry) {
                let name = shown(&name);
                return Err(A::Error::custom(format!(
                    "tensor '{name}' is in the table twice"
                )));
            }
        }
        Ok(Header { tensors })
    }
}
