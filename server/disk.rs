//! Databases in files of the data directory: redb, checked as a whole when they are opened, and in memory where there is no
//! directory. [`recovering`]: closed when the disk fails, and opened again when it works.

pub mod recovering;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

pub use recovering::RecoveringDatabase;
use redb::backends::InMemoryBackend;
use redb::{Builder, Database, DatabaseError, StorageError};

/// Pages that redb keeps in memory, for each database; the system caches the file beside that.
const PAGE_CACHE_BYTES: usize = 16 << 20;

/// Why a database cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// Two servers cannot share one.
    #[error("{path}: another server has it open; give each server a --data-dir of its own")]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// Not what this server has written.
    #[error("{path}: the file is damaged, or not of this server's format: {reason}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The operating system refused.
    #[error("{path}: {source}")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A read or a write failed.
    #[error("the database failed: {0}")]
    Failed(#[from] Box<redb::Error>),
    /// A read or a write found what cannot be.
    #[error("the database of the {name} failed: its pages do not fit together")]
    Broken {
        /// What is in it.
        name: &'static str,
    },
    /// The disk has failed, and does not work again yet.
    #[error("the database of the {name} is closed, because its disk has failed or is full")]
    Away {
        /// What is in it.
        name: &'static str,
    },
}

/// Makes a directory, and sees that files can be made in it.
///
/// # Errors
/// [`DiskError::Io`], where they cannot.
pub fn writable(directory: &Path) -> Result<(), DiskError> {
    let file = directory.join(format!(".writable-{}", std::process::id()));
    // An empty file: a disk that is full today is recovered from.
    std::fs::create_dir_all(directory)
        .and_then(|()| std::fs::File::create(&file))
        .and_then(|_| std::fs::remove_file(&file))
        .map_err(|source| DiskError::Io {
            path: directory.to_owned(),
            source,
        })
}

/// How a database's disk fares.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DiskHealth {
    /// It has failed, and nothing can be read or written until it works again.
    pub away: bool,
    /// How often it failed, attempts to open it again included.
    pub errors: u64,
}

impl DiskError {
    /// Of any of redb's errors.
    pub fn failed(error: impl Into<redb::Error>) -> Self {
        Self::Failed(Box::new(error.into()))
    }

    /// Whether to close the database and to try again later may help. A change that was wrong in itself is none of the disk.
    pub fn is_of_the_disk(&self) -> bool {
        match self {
            Self::InUse { .. } | Self::Damaged { .. } => false,
            Self::Io { .. } | Self::Broken { .. } | Self::Away { .. } => true,
            Self::Failed(error) => !matches!(**error, redb::Error::ValueTooLarge(_)),
        }
    }
}

/// Opens the database `name` in a directory, which is made if it is missing; or one that lives as long as the process.
///
/// # Errors
/// [`DiskError`] names the file.
pub fn open(directory: Option<&Path>, name: &str) -> Result<Database, DiskError> {
    let mut builder = Builder::new();
    builder.set_cache_size(PAGE_CACHE_BYTES);
    let Some(directory) = directory else {
        let database = builder.create_with_backend(InMemoryBackend::new());
        return database.map_err(DiskError::failed);
    };
    std::fs::create_dir_all(directory).map_err(|source| DiskError::Io {
        path: directory.to_owned(),
        source,
    })?;
    let path = directory.join(name);
    // Reads all of it, once: after that a page is believed.
    builder.set_check_integrity_on_open(true);
    let damaged = |reason: String| DiskError::Damaged {
        path: path.clone(),
        reason,
    };
    // A file that was made to hurt may still make it panic.
    match catch_unwind(AssertUnwindSafe(|| builder.create(&path))) {
        Ok(Ok(database)) => Ok(database),
        Ok(Err(DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch)) => {
            Err(DiskError::InUse { path })
        }
        Ok(Err(DatabaseError::Storage(StorageError::Io(source))))
            if source.kind() != std::io::ErrorKind::InvalidData =>
        {
            Err(DiskError::Io { path, source })
        }
        Ok(Err(error)) => Err(damaged(error.to_string())),
        Err(_) => Err(damaged("its pages do not fit together".into())),
    }
}

/// As [`open`], for what can be made again: a file that is damaged is put aside as `NAME.damaged`, in place of one that was
/// put aside before, and a new one is begun.
///
/// # Errors
/// As [`open`], for everything else.
pub fn open_or_renew(directory: Option<&Path>, name: &str) -> Result<Database, DiskError> {
    match open(directory, name) {
        Err(DiskError::Damaged { path, reason }) => {
            let aside = path.with_extension("damaged");
            tracing::warn!(
                file = %path.display(),
                aside = %aside.display(),
                reason,
                "a file is damaged; beginning a new one"
            );
            std::fs::rename(&path, &aside).map_err(|source| DiskError::Io { path, source })?;
            open(directory, name)
        }
        other => other,
    }
}
