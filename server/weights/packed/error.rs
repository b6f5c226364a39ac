//! What can be wrong with a packed model.

/// A directory is not a packed model that can be served.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum PackedError {
    /// Another kind of file.
    #[error(
        "not a packed model: it begins with '{found}'; make one with `code-explainer-server quantize`"
    )]
    Magic {
        /// Its first bytes.
        found: String,
    },
    /// The file's own format is of another version.
    #[error(
        "packed in version {found} of the format, this server reads version {expected}; quantize the model again"
    )]
    Format {
        /// The file's.
        found: u32,
        /// This program's.
        expected: u32,
    },
    /// The weights lie in another order than the kernels read them.
    #[error(
        "weights packed in layout {found}, this server's kernels read layout {expected}; quantize the model again"
    )]
    Layout {
        /// The file's.
        found: u32,
        /// This program's.
        expected: u32,
    },
    /// The file is not as long as it says.
    #[error("{}: {described} bytes are described, {found} are there",
        if found < described { "truncated" } else { "trailing bytes" })]
    Length {
        /// As the prelude has it.
        described: u64,
        /// The file's length.
        found: u64,
    },
    /// A checksum does not match.
    #[error(
        "{what} is damaged: its checksum does not match; copy the directory again, or quantize the model again"
    )]
    Checksum {
        /// Which part.
        what: String,
    },
    /// The table is no table, or describes an impossible file.
    #[error("the table is broken: {reason}")]
    Table {
        /// What is wrong with it.
        reason: String,
    },
    /// A section that does not lie where it must.
    #[error("section '{section}' at {offset}, {length} bytes long, {problem}")]
    Place {
        /// Its name.
        section: String,
        /// Its offset.
        offset: u64,
        /// Its length.
        length: u64,
        /// What is wrong with that.
        problem: String,
    },
    /// The model has a section that the file does not.
    #[error("section '{section}' is missing; the model's configuration needs it")]
    MissingSection {
        /// Its name.
        section: String,
    },
    /// The file has sections that the model does not.
    #[error(
        "{found} sections are there, but the model's configuration has only {expected} of them"
    )]
    ExtraSections {
        /// How many are there.
        found: usize,
        /// How many were read.
        expected: usize,
    },
    /// A section that does not have the size that the model's configuration makes it.
    #[error(
        "section '{section}' has {found} bytes, but the model's configuration makes it {expected}"
    )]
    Size {
        /// Its name.
        section: String,
        /// Its length.
        found: usize,
        /// What the configuration says.
        expected: String,
    },
    /// A file beside the weights is gone.
    #[error("{file} is missing beside it; the model was packed with it")]
    MissingFile {
        /// Its name.
        file: String,
    },
    /// A file beside the weights is another than the model was packed with.
    #[error(
        "{file} beside it is damaged or another model's: it is not the file that the model was packed with"
    )]
    OtherFile {
        /// Its name.
        file: String,
    },
    /// A file that would change the answers, and was not there when the model was packed.
    #[error(
        "{file} lies beside it, but the model was packed without it; remove it, or quantize the model again"
    )]
    ExtraFile {
        /// Its name.
        file: String,
    },
    /// The weights have other bits than were asked for.
    #[error(
        "holds {has} weights, and {asked} was asked for: leave out --precision and --quantization, or quantize again"
    )]
    Precision {
        /// What it holds.
        has: String,
        /// What was asked for.
        asked: String,
    },
}
