//! A packed model, opened.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rayon::prelude::*;

use super::error::PackedError;
use super::table::{Entry, FileEntry, Table};
use super::{FILE, METADATA};
use crate::config::ModelConfig;
use crate::error::WeightsError;
use crate::file::{MappedFile, ModelMemory, read_small};
use crate::gguf::{Gguf, Metadata};
use crate::huggingface::SMALL_FILES;

/// A packed model whose every bit has been checked. `Send + Sync`.
///
/// As with a [`Checkpoint`](crate::Checkpoint), its files must not be written or cut in place while it, or any
/// [`Section`] of it, lives.
#[derive(Debug)]
pub struct PackedModel {
    path: PathBuf,
    file: Arc<MappedFile>,
    table: Table,
    sections: BTreeMap<String, Range<usize>>,
    metadata: Option<Metadata>,
}

/// A part of a mapped file. Begins at a multiple of [`ALIGNMENT`](super::ALIGNMENT) in memory too, as maps begin at pages.
#[derive(Debug, Clone)]
pub struct Section {
    file: Arc<MappedFile>,
    range: Range<usize>,
}

impl Section {
    /// Its bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.file.bytes()[self.range.clone()]
    }
}

impl PackedModel {
    /// Whether there is a packed model at `path`, sound or not.
    pub fn is_at(path: &Path) -> bool {
        path.join(FILE).exists()
    }

    /// Opens a directory and checks all of it, for kernels that read `layout`. Weights that are mapped are not copied;
    /// of copied ones it is the copy that is checked.
    ///
    /// # Errors
    /// [`WeightsError::Packed`] says what is wrong with it.
    pub fn open(path: &Path, layout: u32, memory: ModelMemory) -> Result<Self, WeightsError> {
        let weights = path.join(FILE);
        let file = MappedFile::open_in(path, FILE, memory)?;
        file.will_be_read();
        let in_file = |source| WeightsError::Packed {
            path: weights.clone(),
            source,
        };
        let table = Table::read(file.bytes(), layout).map_err(in_file)?;
        check_sections(&table.sections, file.bytes()).map_err(in_file)?;
        let metadata = open_files(path, &table.files, in_file)?;
        let range = |entry: &Entry| entry.offset as usize..(entry.offset + entry.length) as usize;
        Ok(Self {
            path: path.to_owned(),
            file: Arc::new(file),
            sections: (table.sections.iter())
                .map(|entry| (entry.name.clone(), range(entry)))
                .collect(),
            table,
            metadata,
        })
    }

    /// Bits of a weight in the blocks: 4 or 8.
    pub fn bits(&self) -> u32 {
        self.table.bits
    }

    /// Architecture and sizes.
    pub fn config(&self) -> &ModelConfig {
        &self.table.config
    }

    /// The model's name.
    pub fn name(&self) -> &str {
        &self.table.name
    }

    /// The digest of the model that was packed: with the same bits, both give the same answers.
    pub fn digest(&self) -> &str {
        &self.table.digest
    }

    /// Number of parameters; shared ones count once.
    pub fn parameters(&self) -> u64 {
        self.table.parameters
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The metadata of the GGUF file that it was made from, if it was.
    pub fn gguf_metadata(&self) -> Option<&Metadata> {
        self.metadata.as_ref()
    }

    /// Number of sections.
    pub fn sections(&self) -> usize {
        self.sections.len()
    }

    /// A section by name.
    pub fn section(&self, name: &str) -> Option<Section> {
        Some(Section {
            file: Arc::clone(&self.file),
            range: self.sections.get(name)?.clone(),
        })
    }

    /// An error about this model's weights.
    pub fn wrong(&self, source: PackedError) -> WeightsError {
        WeightsError::Packed {
            path: self.path.join(FILE),
            source,
        }
    }
}

/// Compares all sections with their checksums, on all cores.
fn check_sections(sections: &[Entry], file: &[u8]) -> Result<(), PackedError> {
    let damaged = sections.par_iter().find_any(|entry| {
        let bytes = &file[entry.offset as usize..][..entry.length as usize];
        // Of a large section, its own pieces are shared out as well.
        let found = blake3::Hasher::new().update_rayon(bytes).finalize();
        found.to_hex().as_str() != entry.checksum
    });
    match damaged {
        None => Ok(()),
        Some(entry) => Err(PackedError::Checksum {
            what: format!("section '{}'", entry.name),
        }),
    }
}

/// Compares the files beside the weights with their checksums; gives back what is in [`METADATA`].
fn open_files(
    directory: &Path,
    files: &[FileEntry],
    wrong: impl Fn(PackedError) -> WeightsError,
) -> Result<Option<Metadata>, WeightsError> {
    let known = || SMALL_FILES.into_iter().chain([METADATA]);
    let listed = |name: &str| files.iter().any(|file| file.name == name);
    // Names from a list: a file of any other could lie anywhere.
    if let Some(stranger) = files
        .iter()
        .find(|file| known().all(|name| name != file.name))
    {
        return Err(wrong(PackedError::Table {
            reason: format!(
                "'{}' is no file that belongs to a packed model",
                stranger.name
            ),
        }));
    }
    let extra = known().find(|name| !listed(name) && directory.join(name).exists());
    if let Some(file) = extra {
        return Err(wrong(PackedError::ExtraFile { file: file.into() }));
    }
    let mut metadata = None;
    for FileEntry { name, checksum } in files {
        let path = directory.join(name);
        let bytes = read_small(directory, name)?;
        let bytes = bytes.ok_or_else(|| wrong(PackedError::MissingFile { file: name.clone() }))?;
        if blake3::hash(&bytes).to_hex().as_str() != checksum {
            return Err(wrong(PackedError::OtherFile { file: name.clone() }));
        }
        if name == METADATA {
            let gguf = Gguf::parse(&bytes);
            metadata = Some(
                gguf.map_err(|source| WeightsError::Gguf { path, source })?
                    .metadata,
            );
        }
    }
    Ok(metadata)
}
