//! What can be wrong in a safetensors file.

/// A byte slice is not a safetensors file that can be read.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum SafetensorsError {
    /// What Git LFS leaves in the place of a file.
    #[error("{}", crate::model_json::POINTER_PROBLEM)]
    Pointer,
    /// Not even a header's length.
    #[error(
        "truncated: a safetensors file begins with an 8-byte length, but there are {available} bytes"
    )]
    NoLength {
        /// How many bytes there are.
        available: usize,
    },
    /// A header that the file cannot hold.
    #[error(
        "the header's length says {declared} bytes, but only {available} follow (and {most} are allowed)"
    )]
    HeaderLength {
        /// What it says.
        declared: u64,
        /// How many follow.
        available: usize,
        /// Most that is allowed.
        most: usize,
    },
    /// A header that is no table of tensors.
    #[error("the header is broken: {reason}")]
    Header {
        /// What is wrong.
        reason: String,
    },
    /// A tensor whose bytes are not what its shape and type make.
    #[error("tensor '{tensor}' of type {dtype} and shape {shape:?} has {found} bytes")]
    Size {
        /// Its name.
        tensor: String,
        /// Its type.
        dtype: String,
        /// Its shape.
        shape: Vec<usize>,
        /// Bytes between its offsets.
        found: usize,
    },
    /// The data is shorter or longer than the table says.
    #[error("{}: the table describes {described} bytes of data, but {available} follow the header",
        if available < described { "truncated" } else { "trailing bytes" })]
    DataLength {
        /// End of the last tensor.
        described: usize,
        /// Bytes after the header.
        available: usize,
    },
}
