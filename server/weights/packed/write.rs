//! Writing a packed model.

use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::table::{Entry, FileEntry, Prelude, Table};
use super::{ALIGNMENT, FILE, METADATA, PRELUDE};
use crate::checkpoint::Checkpoint;
use crate::error::WeightsError;
use crate::file::read_small;
use crate::huggingface::SMALL_FILES;

/// A packed model that is being written, section by section, into an empty directory. Until [`finish`](Self::finish) it
/// has no prelude and cannot be taken for a model.
pub struct PackedWriter {
    directory: PathBuf,
    path: PathBuf,
    file: File,
    end: u64,
    layout: u32,
    table: Table,
}

impl PackedWriter {
    /// Begins a packed `checkpoint` with weights of `bits` bits in the kernels' `layout`, and copies what its tokenizer and
    /// chat template come from.
    ///
    /// # Errors
    /// When a file cannot be read or written.
    pub fn create(
        directory: &Path,
        checkpoint: &Checkpoint,
        bits: u32,
        layout: u32,
    ) -> Result<Self, WeightsError> {
        let path = directory.join(FILE);
        let mut file = File::create_new(&path).map_err(|e| failed(&path, e))?;
        file.write_all(&[0; PRELUDE])
            .map_err(|e| failed(&path, e))?;
        Ok(Self {
            table: Table {
                bits,
                name: checkpoint.name().to_owned(),
                digest: checkpoint.digest().to_owned(),
                parameters: checkpoint.parameters(),
                config: checkpoint.config().clone(),
                sections: Vec::new(),
                files: copy_files(directory, checkpoint)?,
            },
            directory: directory.to_owned(),
            path,
            file,
            end: PRELUDE as u64,
            layout,
        })
    }

    /// Adds a section.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn section(&mut self, name: &str, bytes: &[u8]) -> Result<(), WeightsError> {
        self.align()?;
        self.table.sections.push(Entry {
            name: name.to_owned(),
            offset: self.end,
            length: bytes.len() as u64,
            checksum: hex(blake3::Hasher::new().update_rayon(bytes).finalize()),
        });
        self.put(bytes)
    }

    /// Writes table and prelude and waits until all of it is on the disk. Gives back the size of all files in bytes.
    ///
    /// # Errors
    /// When something cannot be written.
    pub fn finish(mut self) -> Result<u64, WeightsError> {
        self.align()?;
        let json = serde_json::to_vec(&self.table).expect("a table is plain data");
        let prelude = Prelude {
            layout: self.layout,
            table_offset: self.end,
            table_length: json.len() as u64,
            checksum: blake3::hash(&json),
        };
        self.put(&json)?;
        let sealed = (self.file.seek(SeekFrom::Start(0)))
            .and_then(|_| self.file.write_all(&prelude.to_bytes()))
            .and_then(|()| self.file.sync_all());
        sealed.map_err(|e| failed(&self.path, e))?;
        let mut bytes = self.end;
        for FileEntry { name, .. } in &self.table.files {
            let path = self.directory.join(name);
            bytes += path.metadata().map_err(|e| failed(&path, e))?.len();
        }
        sync_directory(&self.directory)?;
        Ok(bytes)
    }

    fn align(&mut self) -> Result<(), WeightsError> {
        let zeros = self.end.next_multiple_of(ALIGNMENT as u64) - self.end;
        self.put(&[0; ALIGNMENT][..zeros as usize])
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), WeightsError> {
        self.end += bytes.len() as u64;
        self.file
            .write_all(bytes)
            .map_err(|e| failed(&self.path, e))
    }
}

/// Waits until the names in a directory are on the disk.
///
/// # Errors
/// When the system says that they are not.
pub fn sync_directory(directory: &Path) -> Result<(), WeightsError> {
    let synced = File::open(directory).and_then(|directory| directory.sync_all());
    synced.map_err(|e| failed(directory, e))
}

/// Copies what tokenizer and chat template come from.
fn copy_files(directory: &Path, checkpoint: &Checkpoint) -> Result<Vec<FileEntry>, WeightsError> {
    let mut files = Vec::new();
    if let Some(bytes) = checkpoint.gguf_without_tensors()? {
        files.push((METADATA, bytes));
    }
    for name in SMALL_FILES {
        let source = checkpoint.directory();
        if let Some(bytes) = source.map_or(Ok(None), |from| read_small(from, name))? {
            files.push((name, bytes));
        }
    }
    let copied = files.into_iter().map(|(name, bytes)| {
        let path = directory.join(name);
        let written = File::create_new(&path).and_then(|mut file| {
            file.write_all(&bytes)?;
            file.sync_all()
        });
        written.map_err(|e| failed(&path, e))?;
        Ok(FileEntry {
            name: name.to_owned(),
            checksum: hex(blake3::hash(&bytes)),
        })
    });
    copied.collect()
}

fn hex(hash: blake3::Hash) -> String {
    hash.to_hex().to_string()
}

fn failed(path: &Path, source: io::Error) -> WeightsError {
    WeightsError::Write {
        path: path.to_owned(),
        source,
    }
}
