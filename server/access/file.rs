//! The files that say who may call, read with care: of a bounded size, written by nobody else, and also when the process
//! has no descriptor left.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::AccessError;

/// The largest file that is read. A list of revoked certificates of this size has about 100,000 of them.
const MOST_BYTES: u64 = 4 << 20;
/// Everybody may make files in such a directory, and each replace only their own.
const STICKY: u32 = 0o1000;
/// Its group, or all others, may write.
const OTHERS_WRITE: u32 = 0o022;

/// A descriptor that is given up to open one of these files when the process has none left. Of the process, as
/// descriptors are.
static SPARE: Mutex<Option<File>> = Mutex::new(None);

/// A file to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    /// The setting that names it.
    pub(super) flag: &'static str,
    /// Where it lies.
    pub(super) path: PathBuf,
    /// It takes rights away, so that nobody is let in for long when it cannot be read.
    pub(super) withdraws: bool,
}

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
        unusable(self.flag, &self.path, problem)
    }
}

impl Wanted {
    /// Reads it.
    ///
    /// # Errors
    /// [`AccessError::Unreadable`] where nothing can be told of what is in it, [`AccessError::Unusable`] where that is too
    /// much, or could be anybody's.
    pub(super) fn read(&self) -> Result<Source, AccessError> {
        let read = self.read_now();
        keep_spare();
        read
    }

    fn read_now(&self) -> Result<Source, AccessError> {
        let Self { flag, path, .. } = self;
        let unreadable = |problem| AccessError::Unreadable {
            flag,
            path: path.clone(),
            problem,
        };
        let file = open(path).map_err(unreadable)?;
        let found = file.metadata().map_err(unreadable)?;
        if !found.is_file() {
            let problem = io::Error::other("is no regular file");
            return Err(unreadable(problem));
        }
        if let Some(problem) = others_may_change(path, found.mode(), found.uid()) {
            return Err(unusable(flag, path, problem));
        }
        let mut bytes = Vec::new();
        let read = file.take(MOST_BYTES + 1).read_to_end(&mut bytes);
        read.map_err(unreadable)?;
        if bytes.len() as u64 > MOST_BYTES {
            return Err(unusable(flag, path, "is larger than 4 MiB"));
        }
        Ok(Source {
            flag,
            path: path.clone(),
            bytes,
        })
    }
}

fn unusable(flag: &'static str, path: &Path, problem: impl ToString) -> AccessError {
    AccessError::Unusable {
        flag,
        path: path.to_owned(),
        problem: problem.to_string(),
    }
}

/// Opens it; where the process has no descriptor left, in the place of the spare one.
fn open(path: &Path) -> io::Result<File> {
    // Without waiting: a pipe that lies there has no end to wait for.
    let open = || {
        let mut how = File::options();
        how.read(true).custom_flags(libc::O_NONBLOCK).open(path)
    };
    match open() {
        Err(error) if matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE)) => {
            drop(spare().take());
            open()
        }
        opened => opened,
    }
}

/// Takes a spare descriptor while there are some, and anew after it was needed.
fn keep_spare() {
    let mut spare = spare();
    if spare.is_none() {
        // Where there is none now, there may be one after the next file.
        *spare = File::open("/dev/null").ok();
    }
}

fn spare() -> MutexGuard<'static, Option<File>> {
    SPARE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How somebody else than the server and root could change what is at a path, and what to do about it.
fn others_may_change(path: &Path, mode: u32, owner: u32) -> Option<String> {
    let own = rustix::process::geteuid().as_raw();
    if mode & OTHERS_WRITE != 0 {
        return Some(format!(
            "can be written by others (mode {:03o}), who could let themselves in: chmod go-w it",
            mode & 0o777
        ));
    }
    if owner != 0 && owner != own {
        return Some(format!(
            "belongs to user {owner}, who could let others in: chown it to root, or to the server's user {own}"
        ));
    }
    // Where it lies, and where the link to it does, such as those of a mounted secret.
    let real = std::fs::canonicalize(path).ok()?;
    let mut directories = [real.parent(), path.parent()].into_iter().flatten();
    directories.find_map(|directory| {
        let here = Path::new(".");
        let directory = match directory.as_os_str().is_empty() {
            true => here,
            false => directory,
        };
        let found = std::fs::metadata(directory).ok()?;
        let (mode, owner) = (found.mode(), found.uid());
        let theirs = owner != 0 && owner != own;
        let anybody = mode & OTHERS_WRITE != 0 && mode & STICKY == 0;
        (theirs || anybody).then(|| {
            format!(
                "lies in {}, where others can put another file in its place (mode {:03o}, of user {owner}): chmod go-w that \
                 directory, or chown it to root or to the server's user {own}",
                directory.display(),
                mode & 0o777
            )
        })
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn read(path: &Path) -> Result<Source, AccessError> {
        let wanted = Wanted {
            flag: "auth-file",
            path: path.to_owned(),
            withdraws: true,
        };
        wanted.read()
    }

    fn set(path: &Path, mode: u32) {
        let mode = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(path, mode).expect("ours");
    }

    #[test]
    fn what_others_may_write_is_not_believed_and_the_words_say_what_to_do() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("book");
        std::fs::write(&path, "text").expect("written");
        for (mode, good) in [(0o600, true), (0o644, true), (0o664, false), (0o646, false)] {
            set(&path, mode);
            let told = read(&path).map(|source| source.bytes);
            match told {
                Ok(bytes) => assert!(good && bytes == b"text", "{mode:o}"),
                Err(told) => {
                    assert!(!good && matches!(told, AccessError::Unusable { .. }));
                    assert!(told.to_string().contains("chmod go-w"), "{told}");
                }
            }
        }
        set(&path, 0o600);
        set(directory.path(), 0o777);
        let told = read(&path).expect_err("anybody could replace it");
        assert!(told.to_string().contains("that directory"), "{told}");
        // As /tmp, and as what a mounted secret lies in.
        set(directory.path(), 0o1777);
        read(&path).expect("nobody can");
    }

    #[test]
    fn links_are_followed_to_the_file_that_counts() {
        let (links, files) = (
            tempfile::tempdir().expect("a"),
            tempfile::tempdir().expect("b"),
        );
        let (link, path) = (links.path().join("book"), files.path().join("book"));
        std::fs::write(&path, "text").expect("written");
        set(&path, 0o644);
        symlink(&path, &link).expect("a link");
        assert_eq!(read(&link).expect("good").bytes, b"text");
        set(&path, 0o666);
        read(&link).expect_err("its file is anybody's");
        set(&path, 0o644);
        set(files.path(), 0o777);
        read(&link).expect_err("its file's directory is anybody's");
    }

    #[test]
    fn what_is_no_file_is_not_waited_for() {
        let directory = tempfile::tempdir().expect("a directory");
        let pipe = directory.path().join("pipe");
        let made = std::process::Command::new("mkfifo").arg(&pipe).status();
        assert!(made.expect("mkfifo").success());
        for path in [&*pipe, directory.path(), Path::new("/nowhere")] {
            let told = read(path).expect_err("no file");
            assert!(matches!(told, AccessError::Unreadable { .. }), "{told}");
        }
        let large = directory.path().join("large");
        std::fs::write(&large, vec![b'#'; MOST_BYTES as usize + 1]).expect("written");
        set(&large, 0o600);
        let told = read(&large).expect_err("too large");
        assert!(matches!(told, AccessError::Unusable { .. }), "{told}");
    }
}
