//! The prelude and the table of a packed file: what they say, and that it can be true.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use super::error::PackedError;
use super::{ALIGNMENT, FORMAT, LARGEST_TABLE, MAGIC, PRELUDE};
use crate::config::ModelConfig;

/// All that a packed file tells about itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Table {
    /// Bits of a weight in the blocks: 4 or 8.
    pub bits: u32,
    /// The model's name.
    pub name: String,
    /// [`digest`](crate::Checkpoint::digest) of the model that was packed.
    pub digest: String,
    /// Number of parameters.
    pub parameters: u64,
    /// Architecture and sizes.
    pub config: ModelConfig,
    /// The parts of the file, in order.
    pub sections: Vec<Entry>,
    /// The files beside it.
    pub files: Vec<FileEntry>,
}

/// A part of the file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// What it is, such as `blk.0.qkv.weight`.
    pub name: String,
    /// Where it begins in the file, in bytes.
    pub offset: u64,
    /// How long it is, in bytes.
    pub length: u64,
    /// BLAKE3 of it, in hexadecimal.
    pub checksum: String,
}

/// A file beside the weights.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileEntry {
    /// Its name.
    pub name: String,
    /// BLAKE3 of it, in hexadecimal.
    pub checksum: String,
}

impl Table {
    /// Reads prelude and table of a whole packed file, for kernels that read `layout`. Sections are known to lie in the
    /// file, in order and apart; their bytes have not been looked at.
    ///
    /// # Errors
    /// Whatever is wrong. Allocates no more than a small multiple of the table's bytes.
    pub fn read(file: &[u8], layout: u32) -> Result<Self, PackedError> {
        let prelude = Prelude::read(file, layout)?;
        // `Prelude::read` has compared both with the file's length.
        let (data, json) = file.split_at(prelude.table_offset as usize);
        if blake3::hash(json) != prelude.checksum {
            return Err(PackedError::Checksum {
                what: "the table".into(),
            });
        }
        Self::parse(json, data)
    }

    /// Reads a table out of its JSON; `data` is what lies before it in the file, prelude included.
    ///
    /// # Errors
    /// See [`read`](Self::read).
    pub fn parse(json: &[u8], data: &[u8]) -> Result<Self, PackedError> {
        let broken = |reason: String| PackedError::Table { reason };
        let mut table: Self = serde_json::from_slice(json).map_err(|e| broken(e.to_string()))?;
        if !matches!(table.bits, 4 | 8) {
            return Err(broken(format!(
                "weights of {} bits; they have 4 or 8",
                table.bits
            )));
        }
        if blake3::Hash::from_hex(&table.digest).is_err() {
            return Err(broken("the model's digest is not one".into()));
        }
        table.config = (table.config.checked()).map_err(|e| broken(e.to_string()))?;
        table.check_places(data)?;
        Ok(table)
    }

    /// Every section begins where the one before ends, rounded up, and the last one where the data does.
    fn check_places(&self, data: &[u8]) -> Result<(), PackedError> {
        let mut names = HashSet::new();
        let mut end = PRELUDE;
        for section in &self.sections {
            let misplaced = |problem: String| PackedError::Place {
                section: section.name.clone(),
                offset: section.offset,
                length: section.length,
                problem,
            };
            if !names.insert(section.name.as_str()) {
                return Err(misplaced("is there twice".into()));
            }
            let range = usize::try_from(section.offset)
                .ok()
                .zip(usize::try_from(section.length).ok());
            let range = range.and_then(|(start, length)| Some((start, start.checked_add(length)?)));
            let Some((start, stop)) = range.filter(|(_, stop)| *stop <= data.len()) else {
                return Err(misplaced(format!(
                    "leaves the {} bytes of data",
                    data.len()
                )));
            };
            if !start.is_multiple_of(ALIGNMENT) {
                return Err(misplaced(format!(
                    "does not begin at a multiple of {ALIGNMENT}"
                )));
            }
            if start < end {
                return Err(misplaced(format!("overlaps what ends at {end}")));
            }
            check_filling(data, end, start).map_err(misplaced)?;
            end = stop;
        }
        check_filling(data, end, data.len()).map_err(|problem| PackedError::Table {
            reason: format!("the data before it {problem}"),
        })
    }
}

/// Between two sections are as many zeros as it takes to reach a multiple of the alignment.
fn check_filling(data: &[u8], from: usize, to: usize) -> Result<(), String> {
    if from.next_multiple_of(ALIGNMENT) != to {
        return Err(format!("leaves a gap after {from}"));
    }
    match data[from..to].iter().all(|&byte| byte == 0) {
        true => Ok(()),
        false => Err(format!(
            "follows bytes after {from} that are not 0: the file is damaged"
        )),
    }
}

/// The first bytes of a packed file.
pub(super) struct Prelude {
    pub(super) layout: u32,
    pub(super) table_offset: u64,
    pub(super) table_length: u64,
    pub(super) checksum: blake3::Hash,
}

impl Prelude {
    fn read(file: &[u8], layout: u32) -> Result<Self, PackedError> {
        let magic = &file[..file.len().min(MAGIC.len())];
        if magic != MAGIC {
            let found = magic.escape_ascii().to_string();
            return Err(PackedError::Magic { found });
        }
        let length = |described| PackedError::Length {
            described,
            found: file.len() as u64,
        };
        let Some((prelude, _)) = file.split_first_chunk::<PRELUDE>() else {
            return Err(length(PRELUDE as u64));
        };
        let u32_at = |at: usize| u32::from_ne_bytes(std::array::from_fn(|i| prelude[at + i]));
        let u64_at = |at: usize| u64::from_ne_bytes(std::array::from_fn(|i| prelude[at + i]));
        if u32_at(8) != FORMAT {
            return Err(PackedError::Format {
                found: u32_at(8),
                expected: FORMAT,
            });
        }
        if u32_at(12) != layout {
            return Err(PackedError::Layout {
                found: u32_at(12),
                expected: layout,
            });
        }
        let read = Self {
            layout,
            table_offset: u64_at(16),
            table_length: u64_at(24),
            checksum: blake3::Hash::from_bytes(std::array::from_fn(|i| prelude[32 + i])),
        };
        let end = read.table_offset.saturating_add(read.table_length);
        if end != file.len() as u64 {
            return Err(length(end));
        }
        if read.table_offset < PRELUDE as u64 || read.table_length > LARGEST_TABLE as u64 {
            let reason = format!(
                "{} bytes at {}, where no table can be",
                read.table_length, read.table_offset
            );
            return Err(PackedError::Table { reason });
        }
        Ok(read)
    }

    pub(super) fn to_bytes(&self) -> [u8; PRELUDE] {
        let mut bytes = [0; PRELUDE];
        let parts: [&[u8]; 6] = [
            &MAGIC,
            &FORMAT.to_ne_bytes(),
            &self.layout.to_ne_bytes(),
            &self.table_offset.to_ne_bytes(),
            &self.table_length.to_ne_bytes(),
            self.checksum.as_bytes(),
        ];
        let all = parts.into_iter().flatten();
        bytes.iter_mut().zip(all).for_each(|(to, from)| *to = *from);
        bytes
    }
}
