//! Reading metadata values.

use super::cursor::Cursor;
use super::error::GgufError;
use super::metadata::{Array, StringArray, Value};

/// Arrays in arrays are legal; nobody writes more than two levels.
const DEEPEST: usize = 4;

/// Numbers of GGUF's value types.
mod kind {
    pub(super) const U8: u32 = 0;
    pub(super) const I8: u32 = 1;
    pub(super) const U16: u32 = 2;
    pub(super) const I16: u32 = 3;
    pub(super) const U32: u32 = 4;
    pub(super) const I32: u32 = 5;
    pub(super) const F32: u32 = 6;
    pub(super) const BOOL: u32 = 7;
    pub(super) const STRING: u32 = 8;
    pub(super) const ARRAY: u32 = 9;
    pub(super) const U64: u32 = 10;
    pub(super) const I64: u32 = 11;
    pub(super) const F64: u32 = 12;
}

/// Reads a value with the type number before it.
pub(super) fn value(cursor: &mut Cursor<'_>) -> Result<Value, GgufError> {
    let found = cursor.u32()?;
    Ok(match found {
        kind::U8 => Value::U8(cursor.u8()?),
        kind::I8 => Value::I8(cursor.u8()? as i8),
        kind::U16 => Value::U16(cursor.u16()?),
        kind::I16 => Value::I16(cursor.u16()? as i16),
        kind::U32 => Value::U32(cursor.u32()?),
        kind::I32 => Value::I32(cursor.u32()? as i32),
        kind::F32 => Value::F32(f32::from_bits(cursor.u32()?)),
        kind::BOOL => Value::Bool(cursor.bool()?),
        kind::STRING => Value::String(cursor.string()?.to_owned()),
        kind::ARRAY => Value::Array(array(cursor, 1)?),
        kind::U64 => Value::U64(cursor.u64()?),
        kind::I64 => Value::I64(cursor.u64()? as i64),
        kind::F64 => Value::F64(f64::from_bits(cursor.u64()?)),
        _ => {
            return Err(GgufError::ValueType {
                place: cursor.place(),
                found,
            });
        }
    })
}

fn array(cursor: &mut Cursor<'_>, depth: usize) -> Result<Array, GgufError> {
    if depth > DEEPEST {
        return Err(GgufError::TooDeep {
            place: cursor.place(),
            most: DEEPEST,
        });
    }
    let found = cursor.u32()?;
    Ok(match found {
        kind::U8 => integers(cursor, |[b]: [u8; 1]| b.into())?,
        kind::I8 => integers(cursor, |[b]: [u8; 1]| (b as i8).into())?,
        kind::U16 => integers(cursor, |b| u16::from_le_bytes(b).into())?,
        kind::I16 => integers(cursor, |b| i16::from_le_bytes(b).into())?,
        kind::U32 => integers(cursor, |b| u32::from_le_bytes(b).into())?,
        kind::I32 => integers(cursor, |b| i32::from_le_bytes(b).into())?,
        kind::I64 => integers(cursor, i64::from_le_bytes)?,
        kind::U64 => Array::U64(numbers(cursor, u64::from_le_bytes)?),
        kind::F32 => Array::Floats(numbers(cursor, f32::from_le_bytes)?),
        kind::F64 => Array::Floats(numbers(cursor, |b| f64::from_le_bytes(b) as f32)?),
        kind::BOOL => {
            let count = cursor.count("booleans", 1)?;
            Array::Bools(
                (0..count)
                    .map(|_| cursor.bool())
                    .collect::<Result<_, _>>()?,
            )
        }
        kind::STRING => {
            let count = cursor.count("strings", 8)?;
            let mut strings = StringArray::with_capacity(count);
            for _ in 0..count {
                strings.push(cursor.string()?);
            }
            Array::Strings(strings)
        }
        kind::ARRAY => {
            // An empty inner array is a type number and a length.
            let count = cursor.count("arrays", 12)?;
            let inner = (0..count).map(|_| array(cursor, depth + 1));
            Array::Arrays(inner.collect::<Result<_, _>>()?)
        }
        _ => {
            return Err(GgufError::ValueType {
                place: cursor.place(),
                found,
            });
        }
    })
}

fn integers<const N: usize>(
    cursor: &mut Cursor<'_>,
    read: impl Fn([u8; N]) -> i64,
) -> Result<Array, GgufError> {
    numbers(cursor, read).map(Array::Integers)
}

fn numbers<const N: usize, T>(
    cursor: &mut Cursor<'_>,
    read: impl Fn([u8; N]) -> T,
) -> Result<Vec<T>, GgufError> {
    let count = cursor.count("numbers", N)?;
    let (chunks, _) = cursor.take((count * N) as u64)?.as_chunks::<N>();
    Ok(chunks.iter().map(|&chunk| read(chunk)).collect())
}
