//! Typed key-value metadata of a GGUF file.

use std::collections::BTreeMap;

/// A metadata value.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// 8-bit unsigned integer.
    U8(u8),
    /// 8-bit signed integer.
    I8(i8),
    /// 16-bit unsigned integer.
    U16(u16),
    /// 16-bit signed integer.
    I16(i16),
    /// 32-bit unsigned integer.
    U32(u32),
    /// 32-bit signed integer.
    I32(i32),
    /// 32-bit float.
    F32(f32),
    /// Boolean.
    Bool(bool),
    /// UTF-8 string.
    String(String),
    /// Array of one type.
    Array(Array),
    /// 64-bit unsigned integer.
    U64(u64),
    /// 64-bit signed integer.
    I64(i64),
    /// 64-bit float.
    F64(f64),
}

impl Value {
    /// What it is, for messages.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::U8(_) => "uint8",
            Self::I8(_) => "int8",
            Self::U16(_) => "uint16",
            Self::I16(_) => "int16",
            Self::U32(_) => "uint32",
            Self::I32(_) => "int32",
            Self::F32(_) => "float32",
            Self::Bool(_) => "bool",
            Self::String(_) => "string",
            Self::Array(_) => "array",
            Self::U64(_) => "uint64",
            Self::I64(_) => "int64",
            Self::F64(_) => "float64",
        }
    }

    /// As an integer, of whatever width it was stored.
    pub fn as_i128(&self) -> Option<i128> {
        Some(match *self {
            Self::U8(v) => v.into(),
            Self::I8(v) => v.into(),
            Self::U16(v) => v.into(),
            Self::I16(v) => v.into(),
            Self::U32(v) => v.into(),
            Self::I32(v) => v.into(),
            Self::U64(v) => v.into(),
            Self::I64(v) => v.into(),
            _ => return None,
        })
    }
}

/// An array of metadata values of one type.
#[derive(Debug, Clone, PartialEq)]
pub enum Array {
    /// Integers of any width, widened.
    Integers(Vec<i64>),
    /// 64-bit unsigned integers, some of which do not fit `i64`.
    U64(Vec<u64>),
    /// Floats, narrowed from 64 bits where they were stored so.
    Floats(Vec<f32>),
    /// Booleans.
    Bools(Vec<bool>),
    /// Strings.
    Strings(StringArray),
    /// Arrays.
    Arrays(Vec<Array>),
}

impl Array {
    /// Number of elements.
    pub fn len(&self) -> usize {
        match self {
            Self::Integers(v) => v.len(),
            Self::U64(v) => v.len(),
            Self::Floats(v) => v.len(),
            Self::Bools(v) => v.len(),
            Self::Strings(v) => v.len(),
            Self::Arrays(v) => v.len(),
        }
    }

    /// Whether it has no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Many strings in one allocation: a tokenizer has a hundred thousand.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StringArray {
    text: String,
    ends: Vec<usize>,
}

impl StringArray {
    /// Room for `strings` strings.
    pub(crate) fn with_capacity(strings: usize) -> Self {
        Self {
            text: String::new(),
            ends: Vec::with_capacity(strings),
        }
    }

    pub(crate) fn push(&mut self, string: &str) {
        self.text.push_str(string);
        self.ends.push(self.text.len());
    }

    /// Number of strings.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The string at `index`.
    pub fn get(&self, index: usize) -> Option<&str> {
        let end = *self.ends.get(index)?;
        let start = if index == 0 { 0 } else { self.ends[index - 1] };
        Some(&self.text[start..end])
    }

    /// All strings in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &str> + '_ {
        (0..self.len()).map(|i| {
            let start = if i == 0 { 0 } else { self.ends[i - 1] };
            &self.text[start..self.ends[i]]
        })
    }
}

/// All metadata of a GGUF file, by key.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Metadata {
    values: BTreeMap<String, Value>,
}

impl Metadata {
    /// Number of keys.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Keys and values, by key.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.values.iter().map(|(key, value)| (key.as_str(), value))
    }

    /// The value of `key`.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.values.get(key)
    }

    /// Adds a value; gives back whether the key was new.
    pub(crate) fn insert(&mut self, key: String, value: Value) -> bool {
        self.values.insert(key, value).is_none()
    }

    /// An integer of any width that fits.
    pub fn get_u32(&self, key: &str) -> Option<u32> {
        self.get(key)?.as_i128()?.try_into().ok()
    }

    /// An integer of any width that fits.
    pub fn get_u64(&self, key: &str) -> Option<u64> {
        self.get(key)?.as_i128()?.try_into().ok()
    }

    /// An integer of any width that fits.
    pub fn get_i64(&self, key: &str) -> Option<i64> {
        self.get(key)?.as_i128()?.try_into().ok()
    }

    /// A float of either width.
    pub fn get_f32(&self, key: &str) -> Option<f32> {
        match self.get(key)? {
            Value::F32(v) => Some(*v),
            Value::F64(v) => Some(*v as f32),
            _ => None,
        }
    }

    /// A boolean.
    pub fn get_bool(&self, key: &str) -> Option<bool> {
        match self.get(key)? {
            Value::Bool(v) => Some(*v),
            _ => None,
        }
    }

    /// A string.
    pub fn get_str(&self, key: &str) -> Option<&str> {
        match self.get(key)? {
            Value::String(v) => Some(v),
            _ => None,
        }
    }

    /// An array.
    pub fn get_array(&self, key: &str) -> Option<&Array> {
        match self.get(key)? {
            Value::Array(v) => Some(v),
            _ => None,
        }
    }

    /// An array of strings, such as `tokenizer.ggml.tokens`.
    pub fn get_strings(&self, key: &str) -> Option<&StringArray> {
        match self.get_array(key)? {
            Array::Strings(v) => Some(v),
            _ => None,
        }
    }

    /// An array of integers, such as `tokenizer.ggml.token_type`.
    pub fn get_integers(&self, key: &str) -> Option<&[i64]> {
        match self.get_array(key)? {
            Array::Integers(v) => Some(v),
            _ => None,
        }
    }

    /// An array of floats, such as `tokenizer.ggml.scores`.
    pub fn get_floats(&self, key: &str) -> Option<&[f32]> {
        match self.get_array(key)? {
            Array::Floats(v) => Some(v),
            _ => None,
        }
    }
}
