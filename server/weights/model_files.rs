//! The files of a model, opened as what they are: somebody else's.
//!
//! A model's directory is downloaded, unpacked, or mounted, and what lies in it decides what this process reads. So names in
//! it lead to regular files in it and to nothing else, and each is read up to a length that is known beforehand.
//!
//! Hugging Face's cache has links in place of files: `models--NAME/snapshots/REVISION/config.json` leads to
//! `models--NAME/blobs/HASH`. A link into the `blobs` of the same repository is followed; so are links within the directory,
//! which Kubernetes makes for mounted volumes. The path that an operator gives may be a link itself.

use std::fs::{File, OpenOptions};
use std::io::{Error, ErrorKind, Read, Result};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Component, Path, PathBuf};

/// Most bytes of `tokenizer.json`, its older parts, and the header of a GGUF file: that of a vocabulary of 262,144 tokens has
/// half of it.
const LARGEST_VOCABULARY: usize = 64 << 20;
/// Most bytes of the index of a model in several files; one of a thousand layers has a tenth of it.
const LARGEST_INDEX: usize = 32 << 20;
/// Most bytes of a file that says more of some tokens.
const LARGEST_TOKENS: usize = 8 << 20;
/// Most bytes of a configuration.
const LARGEST_CONFIG: usize = 1 << 20;
/// Most bytes of a chat template, in whatever file it comes; those in use have some kilobytes.
pub const LARGEST_TEMPLATE: usize = 1 << 20;

/// Opens a file that an operator has named; links are followed. Never waits, as opening a pipe does.
pub fn open_named(path: &Path) -> Result<File> {
    OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)
}

/// Opens a regular file of a model's directory; `None` if there is none.
///
/// # Errors
/// The name leads out of the directory or to something else than a file, or the system refuses.
pub fn open(directory: &Path, name: &str) -> Result<Option<File>> {
    let plain = |part| matches!(part, Component::Normal(_));
    if !Path::new(name).components().all(plain) {
        let problem = "is not the name of a file in the model's directory";
        return Err(Error::new(ErrorKind::InvalidInput, problem));
    }
    let found = directory
        .canonicalize()
        .and_then(|root| Ok((root.join(name).canonicalize()?, root)));
    let (target, root) = match found {
        Ok(found) => found,
        Err(err) if err.kind() == ErrorKind::NotFound => return Ok(None),
        Err(err) => return Err(err),
    };
    let is_content = || blobs(&root).is_some_and(|blobs| target.parent() == Some(&blobs));
    if !target.starts_with(&root) && !is_content() {
        let problem = format!(
            "is a link to {}, outside of the model's directory, which is not followed; put the file itself there",
            target.display()
        );
        return Err(Error::new(ErrorKind::PermissionDenied, problem));
    }
    // What was found is no link; if it is one by now, it is not followed.
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(target)?;
    if !file.metadata()?.is_file() {
        let problem = "is not a regular file";
        return Err(Error::new(ErrorKind::InvalidInput, problem));
    }
    Ok(Some(file))
}

/// Reads a file beside a model's weights; `None` if there is none.
///
/// # Errors
/// As [`open`], or the file is longer than one of its name may be.
pub fn read(directory: &Path, name: &str) -> Result<Option<Vec<u8>>> {
    let Some(file) = open(directory, name)? else {
        return Ok(None);
    };
    read_to_end(file, most_bytes(name)).map(Some)
}

/// Reads a configuration that an operator has named, or that lies beside a file that was named.
///
/// # Errors
/// The system refuses, or it is longer than a configuration may be.
pub fn read_named(path: &Path) -> Result<Vec<u8>> {
    read_to_end(open_named(path)?, LARGEST_CONFIG)
}

/// Whatever the file system says of a file's length, it is read so far: it may grow.
fn read_to_end(file: File, most: usize) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(most as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > most {
        let problem = format!("is larger than {most} bytes, the most that such a file may have");
        return Err(Error::new(ErrorKind::FileTooLarge, problem));
    }
    Ok(bytes)
}

/// The most bytes of a file of this name.
fn most_bytes(name: &str) -> usize {
    match name {
        "tokenizer.json" | "vocab.json" | "merges.txt" | "metadata.gguf" => LARGEST_VOCABULARY,
        "model.safetensors.index.json" => LARGEST_INDEX,
        "tokenizer_config.json" | "added_tokens.json" | "special_tokens_map.json" => LARGEST_TOKENS,
        "chat_template.jinja" => LARGEST_TEMPLATE,
        _ => LARGEST_CONFIG,
    }
}

/// Where a repository in Hugging Face's cache has the contents of the files of this directory, which is resolved.
fn blobs(directory: &Path) -> Option<PathBuf> {
    directory.ancestors().find_map(|revision| {
        let snapshots = revision.parent()?;
        let repository = snapshots.parent()?;
        let name = repository.file_name()?.to_str()?;
        (snapshots.file_name()? == "snapshots" && name.starts_with("models--"))
            .then(|| repository.join("blobs"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_snapshot_of_the_cache_has_blobs() {
        let of = |path: &str| blobs(Path::new(path));
        let expected = Some(PathBuf::from("/hub/models--a--b/blobs"));
        assert_eq!(of("/hub/models--a--b/snapshots/1f"), expected);
        assert_eq!(of("/hub/models--a--b/snapshots/1f/1_Pooling"), expected);
        for path in [
            "/hub/models--a--b/snapshots",
            "/hub/a/snapshots/1f",
            "/",
            "/1f",
        ] {
            assert_eq!(of(path), None, "{path}");
        }
    }
}
