//! A packed model: a directory with weights in the very bytes that an engine's kernels read, so that a server maps them and
//! starts at once.
//!
//! ```text
//! DIR/model.packed     prelude | section | ... | section | table
//! DIR/tokenizer.json   and what else tokenizer and chat template come from: the files of a Hugging Face directory as they
//!                      were, or `metadata.gguf`, the metadata of a GGUF file
//! ```
//!
//! The prelude has 64 bytes, with numbers in the machine's byte order, as the weights are (a file from a machine of the
//! other order is of another version): [`MAGIC`]; the version of this format and that of the kernels' layout, 32 bits each;
//! where the table begins and how long it is, 64 bits each; BLAKE3 of the table. Sections begin at multiples of
//! [`ALIGNMENT`], in the table's order, with nothing but zeros to fill up between. The table is a JSON object, a [`Table`].
//!
//! Every bit is under a checksum or has one right value, and all are checked when a model is opened: BLAKE3 on all cores
//! takes about as long as the first look at the pages.
//!
//! Reading order: [`table`], [`model`], [`write`](mod@write), [`error`].

pub mod error;
pub mod model;
pub mod table;
pub mod write;

pub use error::PackedError;
pub use model::{PackedModel, Section};
pub use table::Table;
pub use write::PackedWriter;

/// The file with the weights.
pub const FILE: &str = "model.packed";
/// The metadata of the GGUF file that a model was made from, as a GGUF file without tensors.
pub const METADATA: &str = "metadata.gguf";
/// The first bytes of [`FILE`].
pub const MAGIC: [u8; 8] = *b"CXPACKED";
/// Version of this format.
pub const FORMAT: u32 = 1;
/// Sections begin at multiples of a cache line.
pub const ALIGNMENT: usize = 64;

/// Bytes before the first section.
const PRELUDE: usize = 64;
/// The longest table; a model of a thousand layers has a tenth of it.
const LARGEST_TABLE: usize = 16 << 20;
