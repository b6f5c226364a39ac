//! Files as byte slices.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::Path;

use memmap2::{Mmap, MmapMut};

use super::error::WeightsError;
use crate::model_files;

/// How the files that hold a model's weights are held while it is served.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum ModelMemory {
    /// Mapped: the files must not be written or cut in place
    #[default]
    Map,
    /// Copied into memory of the server's own, whatever happens to the files
    Copy,
}

/// A whole file, read-only, in pages of its own.
#[derive(Debug)]
pub(crate) struct MappedFile(Mmap);

impl MappedFile {
    /// A file that the operator has named, which is regular and not empty.
    pub(crate) fn open(path: &Path, memory: ModelMemory) -> Result<Self, WeightsError> {
        let file = model_files::open_named(path).map_err(|source| Self::failed(path, source))?;
        Self::from_file(file, path, memory)
    }

    /// A file of a model's directory.
    pub(crate) fn open_in(
        directory: &Path,
        name: &str,
        memory: ModelMemory,
    ) -> Result<Self, WeightsError> {
        let path = directory.join(name);
        let file = model_files::open(directory, name)
            .and_then(|file| file.ok_or_else(|| ErrorKind::NotFound.into()))
            .map_err(|source| Self::failed(&path, source))?;
        Self::from_file(file, &path, memory)
    }

    fn from_file(file: File, path: &Path, memory: ModelMemory) -> Result<Self, WeightsError> {
        let io = |source| Self::failed(path, source);
        let metadata = file.metadata().map_err(io)?;
        if !metadata.is_file() {
            return Err(WeightsError::NotAFile {
                path: path.to_owned(),
            });
        }
        if metadata.len() == 0 {
            return Err(WeightsError::Empty {
                path: path.to_owned(),
            });
        }
        let map = match memory {
            // SAFETY: The map is private to this process and read-only, and nothing here writes to it. Its bytes are only
            // ever read as integers and floats, for which every bit pattern is valid, after parsers that check each length
            // against the map's fixed size. What remains is the operator's part, which the documentation of `Checkpoint`
            // states: model files are replaced by renaming, never written or cut in place while they are served. Who
            // cannot promise that takes `ModelMemory::Copy`.
            ModelMemory::Map => unsafe { Mmap::map(&file) }.map_err(io)?,
            ModelMemory::Copy => copy(file, metadata.len()).map_err(io)?,
        };
        Ok(Self(map))
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Asks the system to read all of it ahead. Without that, and without large pages, it works all the same.
    pub(crate) fn will_be_read(&self) {
        #[cfg(target_os = "linux")]
        for advice in [memmap2::Advice::HugePage, memmap2::Advice::WillNeed] {
            let _ = self.0.advise(advice);
        }
    }

    fn failed(path: &Path, source: std::io::Error) -> WeightsError {
        let path = path.to_owned();
        match source.kind() {
            ErrorKind::NotFound => WeightsError::NotFound { path },
            _ => WeightsError::Io { path, source },
        }
    }
}

/// A file's bytes in memory that belongs to no file. One that is cut meanwhile is an error, not a signal.
fn copy(mut file: File, bytes: u64) -> std::io::Result<Mmap> {
    let bytes = usize::try_from(bytes).map_err(|_| std::io::Error::from(ErrorKind::OutOfMemory))?;
    let mut copy = MmapMut::map_anon(bytes)?;
    file.read_exact(&mut copy)?;
    copy.make_read_only()
}

/// Reads a file beside a model's weights, if it is there.
pub(crate) fn read_small(directory: &Path, name: &str) -> Result<Option<Vec<u8>>, WeightsError> {
    model_files::read(directory, name).map_err(|source| WeightsError::Io {
        path: directory.join(name),
        source,
    })
}
