//! A writer of safetensors files that does not mind wrong shapes.

use serde_json::{Map, Value, json};

/// A tensor as it is stored.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Stored {
    pub(crate) name: String,
    pub(crate) dtype: String,
    pub(crate) shape: Vec<usize>,
    pub(crate) data: Vec<u8>,
}

/// The tensors' table and data.
pub(crate) fn to_bytes(tensors: &[Stored]) -> Vec<u8> {
    let mut header = Map::new();
    let mut data: Vec<u8> = Vec::new();
    for Stored {
        name,
        dtype,
        shape,
        data: bytes,
    } in tensors
    {
        let offsets = [data.len(), data.len() + bytes.len()];
        let entry = json!({"dtype": dtype, "shape": shape, "data_offsets": offsets});
        header.insert(name.clone(), entry);
        data.extend(bytes);
    }
    header.insert("__metadata__".into(), json!({"format": "pt"}));
    with_header(&Value::Object(header).to_string(), &data)
}

/// A header, whatever it says, and the data behind it.
pub(crate) fn with_header(header: &str, data: &[u8]) -> Vec<u8> {
    let padded = header.len().next_multiple_of(8);
    let mut out = (padded as u64).to_le_bytes().to_vec();
    out.extend(header.bytes());
    out.resize(8 + padded, b' ');
    out.extend(data);
    out
}
