//! Files that are read again when they change, by looking at their contents every now and then: that sees every way in
//! which a file can be replaced, the links of a mounted Kubernetes secret included, and needs no help of the system.

use std::sync::{Arc, Mutex, PoisonError, RwLock};

use super::AccessError;
use super::file::{Source, Wanted};

/// Makes of the files what they say; what they said before may live on in it.
type Reader<T> = Box<dyn Fn(&[Source], Option<&T>) -> Result<T, AccessError> + Send + Sync>;

/// What some files say; the last of it that was good.
pub struct Reloading<T> {
    name: &'static str,
    files: Vec<Wanted>,
    read: Reader<T>,
    current: RwLock<Arc<T>>,
    /// Held while what is current is replaced.
    seen: Mutex<Seen>,
}

/// What a look has found, to tell whether the next one finds something else.
#[derive(Debug)]
struct Seen {
    what: Found,
    /// It is of no use, so that what was there before is still current.
    stale: bool,
}

#[derive(Debug, PartialEq)]
enum Found {
    Contents(blake3::Hash),
    Unreadable(String),
}

/// What came of a look at the files.
pub(super) struct Look<T> {
    /// Those that take rights away could be read, whatever was in them.
    pub(super) readable: bool,
    /// What lies there is not what counts.
    pub(super) stale: bool,
    /// The files have changed, and are in use or of no use.
    pub(super) changed: Option<bool>,
    /// What counted before, if it counts no more.
    pub(super) before: Option<Arc<T>>,
}

impl<T> Reloading<T> {
    /// Reads the files, which are given with the settings that name them.
    ///
    /// # Errors
    /// One cannot be read, or `read` does not like them.
    pub(super) fn new(
        name: &'static str,
        files: Vec<Wanted>,
        read: impl Fn(&[Source], Option<&T>) -> Result<T, AccessError> + Send + Sync + 'static,
    ) -> Result<Self, AccessError> {
        let sources = files
            .iter()
            .map(Wanted::read)
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Self {
            name,
            files,
            current: RwLock::new(Arc::new(read(&sources, None)?)),
            read: Box::new(read),
            seen: Mutex::new(Seen {
                what: Found::Contents(digest(&sources)),
                stale: false,
            }),
        })
    }

    /// In metrics and logs.
    pub(super) fn name(&self) -> &'static str {
        self.name
    }

    /// What they say.
    pub fn current(&self) -> Arc<T> {
        let current = self.current.read();
        current.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Looks at the files. If they have changed, what they say now is taken, or told to be of no use, once.
    pub(super) fn look(&self) -> Look<T> {
        let mut readable = true;
        let mut found: Result<Vec<Source>, AccessError> = Ok(Vec::new());
        for file in &self.files {
            let read = file.read();
            if file.withdraws && matches!(read, Err(AccessError::Unreadable { .. })) {
                readable = false;
            }
            // The first that is wrong is told.
            found = found.and_then(|mut sources| {
                sources.push(read?);
                Ok(sources)
            });
        }
        let now = match &found {
            Ok(sources) => Found::Contents(digest(sources)),
            Err(error) => Found::Unreadable(error.to_string()),
        };
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.what == now {
            return Look {
                readable,
                stale: seen.stale,
                changed: None,
                before: None,
            };
        }
        let before = self.current();
        let said = found.and_then(|sources| (self.read)(&sources, Some(&before)));
        let stale = said.is_err();
        *seen = Seen { what: now, stale };
        let before = match said {
            Ok(good) => {
                self.set(good);
                tracing::info!(files = self.name, "files have changed and are in use");
                Some(before)
            }
            Err(error) => {
                tracing::error!(files = self.name, %error, "files have changed and are of no use; going on with the old ones, \
                    so that nothing of the change counts");
                None
            }
        };
        Look {
            readable,
            stale,
            changed: Some(!stale),
            before,
        }
    }

    /// Puts something else in the place of what is current, and gives that.
    pub(super) fn replace(&self, with: impl FnOnce(&T) -> T) -> Arc<T> {
        let _seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.current();
        self.set(with(&before));
        before
    }

    fn set(&self, now: T) {
        let current = self.current.write();
        *current.unwrap_or_else(PoisonError::into_inner) = Arc::new(now);
    }
}

fn digest(sources: &[Source]) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    for source in sources {
        hasher.update(&(source.bytes.len() as u64).to_le_bytes());
        hasher.update(&source.bytes);
    }
    hasher.finalize()
}
