//! The file's header, metadata and table of tensors.

use super::cursor::Cursor;
use super::error::GgufError;
use super::metadata::{Metadata, Value};
use super::values;
use crate::dtype::{DType, ggml_type_name};
use crate::table::{TensorEntry, TensorTable};
use crate::tensor::Layout;

/// The first bytes of every GGUF file.
pub const MAGIC: [u8; 4] = *b"GGUF";

const DEFAULT_ALIGNMENT: usize = 32;
/// Name length and one character, number of dimensions, one dimension, type, offset.
const SMALLEST_TENSOR: usize = 8 + 1 + 4 + 8 + 4 + 8;
/// Key length and one character, type, one byte.
const SMALLEST_KEY_VALUE: usize = 8 + 1 + 4 + 1;

/// A parsed GGUF file: everything but the tensors' data, which stays where it is.
#[derive(Debug, Clone, PartialEq)]
pub struct Gguf {
    /// The format's version, 2 or 3.
    pub version: u32,
    /// All metadata.
    pub metadata: Metadata,
    /// All tensors by the names that the file gives them. The byte ranges are those of the whole slice and lie in it.
    pub tensors: TensorTable,
}

impl Gguf {
    /// Parses a whole file.
    ///
    /// Allocates at most a small multiple of the bytes that header, metadata and table take in the file.
    pub fn parse(bytes: &[u8]) -> Result<Self, GgufError> {
        let mut cursor = Cursor::new(bytes, "the header");
        let version = version(&mut cursor, bytes)?;
        let tensors = cursor.u64()?;
        let pairs = cursor.count("metadata keys", SMALLEST_KEY_VALUE)?;
        let tensors = cursor.fits(tensors, "tensors", SMALLEST_TENSOR)?;
        let metadata = metadata(&mut cursor, pairs)?;
        let alignment = alignment(&metadata)?;
        if let Some(parts) = metadata.get_u32("split.count").filter(|&parts| parts > 1) {
            return Err(GgufError::Split { parts });
        }
        let mut table = Vec::with_capacity(tensors);
        for index in 0..tensors {
            table.push(tensor(&mut cursor, index, alignment)?);
        }
        let data_start = cursor
            .position()
            .next_multiple_of(alignment)
            .min(bytes.len());
        let tensors = place(table, data_start, bytes.len() - data_start)?;
        Ok(Self {
            version,
            metadata,
            tensors,
        })
    }
}

/// A file with the metadata of this one, byte by byte, and no tensors.
pub(crate) fn without_tensors(bytes: &[u8]) -> Result<Vec<u8>, GgufError> {
    let mut cursor = Cursor::new(bytes, "the header");
    let version = version(&mut cursor, bytes)?;
    cursor.u64()?;
    let start = cursor.position();
    let pairs = cursor.count("metadata keys", SMALLEST_KEY_VALUE)?;
    metadata(&mut cursor, pairs)?;
    let header = [&MAGIC, &version.to_le_bytes()[..], &[0; 8]].concat();
    Ok([&header, &bytes[start..cursor.position()]].concat())
}

/// One line of the table; the offset is relative to the data.
struct Described {
    name: String,
    dtype: DType,
    shape: Vec<usize>,
    size: usize,
    offset: u64,
}

fn version(cursor: &mut Cursor<'_>, bytes: &[u8]) -> Result<u32, GgufError> {
    let magic = cursor.take(4.min(cursor.left()) as u64)?;
    if magic != MAGIC {
        let hint = match magic {
            b"PK\x03\x04" => "; it looks like a PyTorch or zip archive",
            b"ggml" | b"lmgg" | b"fmgg" | b"tjgg" => "; it is of GGUF's predecessor, convert it",
            // "version https://git-lfs...".
            b"vers" => {
                "; it looks like a Git LFS pointer: run `git lfs pull` where it was checked out"
            }
            // A safetensors file: the length of its JSON header, then that header.
            _ if bytes.get(8) == Some(&b'{') => {
                "; it looks like a safetensors file, give the directory it lies in"
            }
            _ => "",
        };
        let found = magic.escape_ascii().to_string();
        return Err(GgufError::Magic { found, hint });
    }
    match cursor.u32()? {
        version @ (2 | 3) => Ok(version),
        found if matches!(found.swap_bytes(), 1..=3) => Err(GgufError::BigEndian {
            version: found.swap_bytes(),
        }),
        found => Err(GgufError::Version { found }),
    }
}

fn metadata(cursor: &mut Cursor<'_>, pairs: usize) -> Result<Metadata, GgufError> {
    let mut metadata = Metadata::default();
    for index in 0..pairs {
        cursor.enter(format!("metadata key {index}"));
        let key = cursor.string()?;
        if key.is_empty() {
            return Err(GgufError::EmptyName {
                place: cursor.place(),
            });
        }
        cursor.enter(format!("metadata '{}'", shown(key)));
        let value = values::value(cursor)?;
        if !metadata.insert(key.to_owned(), value) {
            return Err(GgufError::DuplicateKey { key: shown(key) });
        }
    }
    Ok(metadata)
}

/// A name for a message: cut, should the file have made it long.
fn shown(name: &str) -> String {
    name.chars().take(100).collect()
}

fn alignment(metadata: &Metadata) -> Result<usize, GgufError> {
    let Some(value) = metadata.get("general.alignment") else {
        return Ok(DEFAULT_ALIGNMENT);
    };
    match *value {
        Value::U32(a) if a.is_power_of_two() && (8..=65536).contains(&a) => Ok(a as usize),
        Value::U32(a) => Err(GgufError::Alignment {
            found: a.to_string(),
        }),
        _ => Err(GgufError::Alignment {
            found: format!("of type {}", value.kind()),
        }),
    }
}

fn tensor(cursor: &mut Cursor<'_>, index: usize, alignment: usize) -> Result<Described, GgufError> {
    cursor.enter(format!("tensor {index} of the table"));
    let name = cursor.string()?;
    if name.is_empty() {
        return Err(GgufError::EmptyName {
            place: cursor.place(),
        });
    }
    let name = name.to_owned();
    cursor.enter(format!("tensor '{}' of the table", shown(&name)));
    let dimensions = cursor.u32()?;
    if !(1..=4).contains(&dimensions) {
        return Err(GgufError::Dimensions {
            tensor: shown(&name),
            found: dimensions,
        });
    }
    let sizes = (0..dimensions)
        .map(|_| cursor.u64())
        .collect::<Result<Vec<_>, _>>()?;
    let number = cursor.u32()?;
    let offset = cursor.u64()?;
    let dtype = DType::from_ggml(number).ok_or_else(|| GgufError::TensorType {
        tensor: shown(&name),
        number,
        name: ggml_type_name(number),
        supported: DType::supported(),
    })?;
    let impossible = || GgufError::ImpossibleShape {
        tensor: shown(&name),
        shape: sizes.clone(),
    };
    // GGML counts dimensions from the innermost.
    let shape: Option<Vec<usize>> = sizes
        .iter()
        .rev()
        .map(|&size| usize::try_from(size).ok().filter(|&size| size > 0))
        .collect();
    let shape = shape.ok_or_else(impossible)?;
    let row = shape[shape.len() - 1];
    if !row.is_multiple_of(dtype.block_len()) {
        let block = dtype.block_len();
        return Err(GgufError::NotWholeBlocks {
            tensor: shown(&name),
            dtype,
            row,
            block,
        });
    }
    let elements = shape
        .iter()
        .try_fold(1usize, |n, &size| n.checked_mul(size));
    // Four bytes an element, so that a dequantized copy has a size, too.
    let elements = elements.filter(|n| n.checked_mul(4).is_some_and(|n| n <= isize::MAX as usize));
    let size = elements
        .and_then(|n| dtype.bytes_for(n))
        .ok_or_else(impossible)?;
    if !offset.is_multiple_of(alignment as u64) {
        return Err(GgufError::Misaligned {
            tensor: shown(&name),
            offset,
            alignment,
        });
    }
    Ok(Described {
        name,
        dtype,
        shape,
        size,
        offset,
    })
}

/// Turns offsets into ranges of the file, once all of them have been checked.
fn place(
    mut table: Vec<Described>,
    data_start: usize,
    available: usize,
) -> Result<TensorTable, GgufError> {
    table.sort_by_key(|tensor| tensor.offset);
    let mut tensors = TensorTable::default();
    let mut end = 0;
    let mut before = String::new();
    for Described {
        name,
        dtype,
        shape,
        size,
        offset,
    } in table
    {
        let start = usize::try_from(offset).ok();
        let range = start.and_then(|start| Some(start..start.checked_add(size)?));
        let Some(range) = range.filter(|range| range.end <= available) else {
            return Err(GgufError::OutOfRange {
                tensor: shown(&name),
                offset,
                size: size as u64,
                available,
            });
        };
        if range.start < end {
            return Err(GgufError::Overlap {
                first: shown(&before),
                second: shown(&name),
            });
        }
        end = range.end;
        let range = data_start + range.start..data_start + range.end;
        let entry = TensorEntry {
            dtype,
            shape,
            layout: Layout::Rows,
            file: 0,
            range,
            source: None,
        };
        before.clone_from(&name);
        if let Some((name, _)) = tensors.insert(name, entry) {
            return Err(GgufError::DuplicateTensor {
                tensor: shown(&name),
            });
        }
    }
    Ok(tensors)
}
