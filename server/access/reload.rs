//! Files that are read again when they change, by looking at their contents every now and then: that sees every way in
//! which a file can be replaced, the links of a mounted Kubernetes secret included, and needs no help of the system.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use super::AccessError;

/// The largest file that is read.
const MOST_BYTES: u64 = 4 << 20;

/// A file with its contents.
#[derive(Debug)]
pub struct Source {
    /// The setting that names it.
    pub flag: &'static str,
    /// Where it lies.
    pub path: PathBuf,
    /// What is in it.
    pub bytes: Vec<u8>,
}

impl Source {
    /// Why the file cannot be used.
    pub fn unusable(&self, problem: impl ToString) -> AccessError {
        AccessError::Unusable {
            flag: self.flag,
            path: self.path.clone(),
            problem: problem.to_string(),
        }
    }
}

/// Makes of the files what they say; what they said before may live on in it.
type Reader<T> = Box<dyn Fn(&[Source], Option<&T>) -> Result<T, AccessError> + Send + Sync>;

/// What some files say; the last of it that was good.
pub struct Reloading<T> {
    name: &'static str,
    files: Vec<(&'static str, PathBuf)>,
    read: Reader<T>,
    current: RwLock<Arc<T>>,
    seen: Mutex<Seen>,
}

/// What a look has found, to tell whether the next one finds something else.
#[derive(Debug, PartialEq)]
enum Seen {
    Contents(blake3::Hash),
    Unreadable(String),
}

impl<T> Reloading<T> {
    /// Reads the files, which are given with the settings that name them.
    ///
    /// # Errors
    /// One cannot be read, or `read` does not like them.
    pub fn new(
        name: &'static str,
        files: Vec<(&'static str, PathBuf)>,
        read: impl Fn(&[Source], Option<&T>) -> Result<T, AccessError> + Send + Sync + 'static,
    ) -> Result<Self, AccessError> {
        let sources = sources(&files)?;
        Ok(Self {
            name,
            files,
            current: RwLock::new(Arc::new(read(&sources, None)?)),
            read: Box::new(read),
            seen: Mutex::new(Seen::Contents(digest(&sources))),
        })
    }

    /// What they say.
    pub fn current(&self) -> Arc<T> {
        let current = self.current.read();
        current.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Looks at the files. If they have changed, what they say now is taken, or told to be of no use, once. Gives what
    /// they said before, if that counts no more.
    pub fn look(&self, told: &mut impl FnMut(&'static str, bool)) -> Option<Arc<T>> {
        let found = sources(&self.files);
        let now = match &found {
            Ok(sources) => Seen::Contents(digest(sources)),
            Err(error) => Seen::Unreadable(error.to_string()),
        };
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if *seen == now {
            return None;
        }
        *seen = now;
        let before = self.current();
        match found.and_then(|sources| (self.read)(&sources, Some(&before))) {
            Ok(good) => {
                let current = self.current.write();
                *current.unwrap_or_else(PoisonError::into_inner) = Arc::new(good);
                tracing::info!(files = self.name, "files have changed and are in use");
                told(self.name, true);
                Some(before)
            }
            Err(error) => {
                tracing::warn!(files = self.name, %error, "files have changed and are of no use; going on with the old ones");
                told(self.name, false);
                None
            }
        }
    }
}

fn sources(files: &[(&'static str, PathBuf)]) -> Result<Vec<Source>, AccessError> {
    let read = |(flag, path): &(&'static str, PathBuf)| {
        let bytes = contents(path).map_err(|problem| AccessError::Unreadable {
            flag,
            path: path.clone(),
            problem,
        })?;
        Ok(Source {
            flag,
            path: path.clone(),
            bytes,
        })
    };
    files.iter().map(read).collect()
}

fn contents(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path)?;
    file.take(MOST_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MOST_BYTES {
        return Err(std::io::Error::other("is larger than 4 MiB"));
    }
    Ok(bytes)
}

fn digest(sources: &[Source]) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    for source in sources {
        hasher.update(&(source.bytes.len() as u64).to_le_bytes());
        hasher.update(&source.bytes);
    }
    hasher.finalize()
}
