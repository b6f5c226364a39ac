//! A GGUF file in parts, so that a test can write a good one or break exactly one thing.

use code_explainer_weights::DType;

/// A metadata value to be written.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Meta {
    U32(u32),
    F32(f32),
    Bool(bool),
    Str(String),
    Strings(Vec<String>),
    I32s(Vec<i32>),
    /// A type number and the bytes after it.
    Raw(u32, Vec<u8>),
}

impl Meta {
    pub(crate) fn str(value: &str) -> Self {
        Self::Str(value.to_owned())
    }

    fn write(&self, out: &mut Vec<u8>) {
        let mut number = |n: u32| out.extend(n.to_le_bytes());
        match self {
            Self::U32(value) => {
                number(4);
                number(*value);
            }
            Self::F32(value) => {
                number(6);
                number(value.to_bits());
            }
            Self::Bool(value) => {
                number(7);
                out.push((*value).into());
            }
            Self::Str(value) => {
                number(8);
                string(out, value.as_bytes());
            }
            Self::Strings(values) => {
                number(9);
                number(8);
                out.extend((values.len() as u64).to_le_bytes());
                values
                    .iter()
                    .for_each(|value| string(out, value.as_bytes()));
            }
            Self::I32s(values) => {
                number(9);
                number(5);
                out.extend((values.len() as u64).to_le_bytes());
                values
                    .iter()
                    .for_each(|value| out.extend(value.to_le_bytes()));
            }
            Self::Raw(kind, bytes) => {
                number(*kind);
                out.extend(bytes);
            }
        }
    }
}

/// A line of the table of tensors, with the tensor's data.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct TableLine {
    pub(crate) name: Vec<u8>,
    /// Innermost first, as the file has them.
    pub(crate) sizes: Vec<u64>,
    pub(crate) kind: u32,
    /// `None`: right behind the tensor before, aligned.
    pub(crate) offset: Option<u64>,
    pub(crate) data: Vec<u8>,
}

/// A GGUF file.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct GgufFile {
    pub(crate) magic: [u8; 4],
    pub(crate) version: u32,
    pub(crate) alignment: usize,
    pub(crate) metadata: Vec<(Vec<u8>, Meta)>,
    pub(crate) tensors: Vec<TableLine>,
    /// Instead of the true counts.
    pub(crate) tensor_count: Option<u64>,
    pub(crate) key_count: Option<u64>,
}

impl Default for GgufFile {
    fn default() -> Self {
        Self {
            magic: *b"GGUF",
            version: 3,
            alignment: 32,
            metadata: Vec::new(),
            tensors: Vec::new(),
            tensor_count: None,
            key_count: None,
        }
    }
}

impl GgufFile {
    /// Sets a key, in place if it is there.
    pub(crate) fn set(&mut self, key: &str, value: Meta) {
        match self.metadata.iter_mut().find(|(k, _)| k == key.as_bytes()) {
            Some((_, old)) => *old = value,
            None => self.metadata.push((key.into(), value)),
        }
    }

    /// Removes a key.
    pub(crate) fn unset(&mut self, key: &str) {
        self.metadata.retain(|(k, _)| k != key.as_bytes());
    }

    /// Adds a tensor of logical shape `shape`.
    pub(crate) fn tensor(&mut self, name: &str, shape: &[usize], dtype: DType, data: Vec<u8>) {
        let sizes = shape.iter().rev().map(|&size| size as u64).collect();
        let name = name.into();
        self.tensors.push(TableLine {
            name,
            sizes,
            kind: type_number(dtype),
            offset: None,
            data,
        });
    }

    /// The line of tensor `name`.
    pub(crate) fn line(&mut self, name: &str) -> &mut TableLine {
        let line = self
            .tensors
            .iter_mut()
            .find(|line| line.name == name.as_bytes());
        line.expect("a tensor of this name")
    }

    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut out = self.magic.to_vec();
        out.extend(self.version.to_le_bytes());
        out.extend(
            self.tensor_count
                .unwrap_or(self.tensors.len() as u64)
                .to_le_bytes(),
        );
        out.extend(
            self.key_count
                .unwrap_or(self.metadata.len() as u64)
                .to_le_bytes(),
        );
        for (key, value) in &self.metadata {
            string(&mut out, key);
            value.write(&mut out);
        }
        let mut data: Vec<u8> = Vec::new();
        for line in &self.tensors {
            data.resize(data.len().next_multiple_of(self.alignment), 0);
            string(&mut out, &line.name);
            out.extend((line.sizes.len() as u32).to_le_bytes());
            line.sizes
                .iter()
                .for_each(|size| out.extend(size.to_le_bytes()));
            out.extend(line.kind.to_le_bytes());
            out.extend(line.offset.unwrap_or(data.len() as u64).to_le_bytes());
            data.extend(&line.data);
        }
        out.resize(out.len().next_multiple_of(self.alignment), 0);
        out.extend(data);
        out
    }
}

/// GGML's number of a type.
pub(crate) fn type_number(dtype: DType) -> u32 {
    match dtype {
        DType::F32 => 0,
        DType::F16 => 1,
        DType::Q4_0 => 2,
        DType::Q4_1 => 3,
        DType::Q5_0 => 6,
        DType::Q5_1 => 7,
        DType::Q8_0 => 8,
        DType::Q4_K => 12,
        DType::Q5_K => 13,
        DType::Q6_K => 14,
        DType::BF16 => 30,
    }
}

fn string(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend((bytes.len() as u64).to_le_bytes());
    out.extend(bytes);
}
