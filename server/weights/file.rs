//! Files as byte slices.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::Path;

use memmap2::Mmap;

use super::error::WeightsError;

/// A whole file, mapped read-only.
#[derive(Debug)]
pub(crate) struct MappedFile(Mmap);

impl MappedFile {
    /// Maps a regular file that is not empty.
    pub(crate) fn open(path: &Path) -> Result<Self, WeightsError> {
        let io = |source| Self::failed(path, source);
        let file = File::open(path).map_err(io)?;
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
        // SAFETY: The map is private to this process and read-only, and nothing here writes to it. Its bytes are only
        // ever read as integers and floats, for which every bit pattern is valid, after parsers that check each length
        // against the map's fixed size. What remains is the operator's part, which the documentation of `Checkpoint`
        // states: model files are replaced by renaming, never written or cut in place while they are served.
        let map = unsafe { Mmap::map(&file) }.map_err(io)?;
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

/// Most bytes of a JSON file; the largest index of a model with a thousand layers has a tenth of it.
const LARGEST_JSON: u64 = 32 << 20;

/// Reads a small file, if it is there.
pub(crate) fn read_small(path: &Path) -> Result<Option<Vec<u8>>, WeightsError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        Err(source) => {
            return Err(WeightsError::Io {
                path: path.to_owned(),
                source,
            });
        }
    };
    let mut bytes = Vec::new();
    file.take(LARGEST_JSON + 1)
        .read_to_end(&mut bytes)
        .map_err(|source| WeightsError::Io {
            path: path.to_owned(),
            source,
        })?;
    if bytes.len() as u64 > LARGEST_JSON {
        let reason = format!("larger than {LARGEST_JSON} bytes");
        let source = std::io::Error::new(ErrorKind::FileTooLarge, reason);
        return Err(WeightsError::Io {
            path: path.to_owned(),
            source,
        });
    }
    Ok(Some(bytes))
}
