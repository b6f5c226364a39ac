//! What can be wrong in a GGUF file.

use crate::dtype::DType;

/// A byte slice is not a GGUF file that can be read.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum GgufError {
    /// The first four bytes are not "GGUF".
    #[error("not a GGUF file: it begins with '{found}' instead of 'GGUF'{hint}")]
    Magic {
        /// The first bytes, escaped.
        found: String,
        /// What it seems to be instead; may be empty.
        hint: &'static str,
    },
    /// Written for big-endian machines.
    #[error("a big-endian GGUF file (version {version}); only little-endian ones can be read")]
    BigEndian {
        /// The format's version.
        version: u32,
    },
    /// A version of the format that cannot be read.
    #[error("GGUF version {found} cannot be read; versions 2 and 3 can")]
    Version {
        /// The version.
        found: u32,
    },
    /// The file ends too early.
    #[error(
        "truncated: {place} at byte {offset} needs {needed} bytes, but only {available} are left"
    )]
    Truncated {
        /// What was being read.
        place: String,
        /// Where.
        offset: usize,
        /// How much it needs.
        needed: u64,
        /// How much there is.
        available: usize,
    },
    /// A count that the rest of the file cannot hold.
    #[error(
        "{place} declares {count} {what}, but the {available} bytes left can hold at most {most}"
    )]
    TooMany {
        /// What was being read.
        place: String,
        /// What is counted.
        what: &'static str,
        /// How many it declares.
        count: u64,
        /// Bytes left.
        available: usize,
        /// How many would fit.
        most: usize,
    },
    /// A string that is not UTF-8.
    #[error("{place} at byte {offset} is not UTF-8")]
    NotUtf8 {
        /// What was being read.
        place: String,
        /// Where.
        offset: usize,
    },
    /// A metadata key or tensor name of no characters.
    #[error("{place} has an empty name")]
    EmptyName {
        /// Which one.
        place: String,
    },
    /// A value type that the format does not have.
    #[error("{place} has value type {found}, which GGUF does not define (it has 0 to 12)")]
    ValueType {
        /// What was being read.
        place: String,
        /// The type's number.
        found: u32,
    },
    /// A boolean that is neither 0 nor 1.
    #[error("{place} is a boolean of value {found}; it must be 0 or 1")]
    Bool {
        /// What was being read.
        place: String,
        /// The byte.
        found: u8,
    },
    /// Arrays in arrays in arrays.
    #[error("{place} nests arrays more than {most} deep")]
    TooDeep {
        /// What was being read.
        place: String,
        /// The bound.
        most: usize,
    },
    /// One key twice.
    #[error("metadata key '{key}' is there twice")]
    DuplicateKey {
        /// The key.
        key: String,
    },
    /// One tensor name twice.
    #[error("tensor '{tensor}' is in the table twice")]
    DuplicateTensor {
        /// Its name.
        tensor: String,
    },
    /// An alignment that cannot be one.
    #[error("general.alignment is {found}; it must be a power of two from 8 to 65536")]
    Alignment {
        /// The value.
        found: String,
    },
    /// No dimensions, or more than four.
    #[error("tensor '{tensor}' has {found} dimensions; it must have 1 to 4")]
    Dimensions {
        /// Its name.
        tensor: String,
        /// How many.
        found: u32,
    },
    /// A dimension of size 0, or sizes whose product overflows.
    #[error("tensor '{tensor}' has the impossible shape {shape:?}")]
    ImpossibleShape {
        /// Its name.
        tensor: String,
        /// Its sizes, innermost first as the file has them.
        shape: Vec<u64>,
    },
    /// A tensor type that cannot be read.
    #[error("tensor '{tensor}' has type {number} ({name}); supported are {supported}")]
    TensorType {
        /// Its name.
        tensor: String,
        /// GGML's number of the type.
        number: u32,
        /// GGML's name of the type.
        name: &'static str,
        /// The types that can be read.
        supported: String,
    },
    /// Rows that are not whole blocks.
    #[error(
        "tensor '{tensor}' has rows of {row} elements, which are not whole {dtype} blocks of {block}"
    )]
    NotWholeBlocks {
        /// Its name.
        tensor: String,
        /// Its type.
        dtype: DType,
        /// Elements in a row.
        row: usize,
        /// Elements in a block.
        block: usize,
    },
    /// A tensor that does not begin at a multiple of the alignment.
    #[error(
        "tensor '{tensor}' begins at offset {offset}, which is not a multiple of the alignment {alignment}"
    )]
    Misaligned {
        /// Its name.
        tensor: String,
        /// Its offset in the data.
        offset: u64,
        /// The alignment.
        alignment: usize,
    },
    /// A tensor that leaves the file.
    #[error(
        "truncated: tensor '{tensor}' has {size} bytes at offset {offset} of the data, which is only {available} bytes long"
    )]
    OutOfRange {
        /// Its name.
        tensor: String,
        /// Its offset in the data.
        offset: u64,
        /// Its bytes.
        size: u64,
        /// The data's bytes.
        available: usize,
    },
    /// Two tensors that share bytes.
    #[error("tensors '{first}' and '{second}' overlap")]
    Overlap {
        /// The one that begins first.
        first: String,
        /// The other.
        second: String,
    },
    /// One part of a model in several files.
    #[error("one of {parts} parts of a split model; join them with `llama-gguf-split --merge`")]
    Split {
        /// How many there are.
        parts: u32,
    },
}
