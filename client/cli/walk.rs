//! Which files a batch is about.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use globset::{Glob, GlobBuilder, GlobSet, GlobSetBuilder};
use ignore::WalkBuilder;

use super::args::BatchArgs;
use super::exit::Stop;
use super::languages::is_source;

/// The files found, in the order of their names, and those left out for what they are.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) files: Vec<PathBuf>,
    /// Files of no bytes.
    pub(crate) empty: usize,
    /// Files over the limit.
    pub(crate) large: usize,
    /// Files of given directories that are not known as source code.
    pub(crate) other: usize,
    /// What below the given directories could not be looked at, and why.
    pub(crate) unreadable: Vec<String>,
}

/// Finds the files that the arguments mean, without those of more than `max_bytes` and without the
/// output itself.
pub(crate) fn find(args: &BatchArgs, max_bytes: u64) -> Result<Found, Stop> {
    let include = patterns(&args.include)?;
    let exclude = patterns(&args.exclude)?;
    let mut names = BTreeSet::new();
    let mut unreadable = Vec::new();
    let mut other = BTreeSet::new();
    for path in &args.paths {
        let root = Path::new(path);
        if root.is_dir() {
            walk(root, &mut names, &mut unreadable, |relative| {
                if matches(&exclude, relative) {
                    return false;
                }
                let wanted = include.as_ref().map(|set| set.is_match(relative));
                wanted.unwrap_or_else(|| {
                    let path = root.join(relative);
                    let known = is_source(&path);
                    if !known {
                        other.insert(plain(&path).to_owned());
                    }
                    known
                })
            })?;
        } else if root.exists() {
            names.insert(root.to_owned());
        } else if path.contains(['*', '?', '[', '{']) {
            let pattern = glob(path)?.compile_matcher();
            let root = literal_root(path);
            let found = walk(&root, &mut names, &mut unreadable, |relative| {
                pattern.is_match(root.join(relative)) && !matches(&exclude, relative)
            })?;
            if found == 0 {
                return Err(Stop::Usage(format!("{path}: no file matches this pattern")));
            }
        } else {
            return Err(Stop::Usage(format!("{path}: no such file or directory")));
        }
    }
    // Named by themselves they are explained.
    let named: BTreeSet<&Path> = names.iter().map(|name| plain(name)).collect();
    other.retain(|path| !named.contains(path.as_path()));
    let found = sift(names, max_bytes, &args.output)?;
    // The output lies among what it is about, often.
    let output = args.output.canonicalize().ok();
    let is_output = |path: &&PathBuf| {
        path.file_name() == args.output.file_name() && path.canonicalize().ok() == output
    };
    let other = other.iter().filter(|path| !is_output(path)).count();
    Ok(Found {
        other,
        unreadable,
        ..found
    })
}

/// `./a` and `a` are one.
fn plain(path: &Path) -> &Path {
    path.strip_prefix(".").unwrap_or(path)
}

fn sift(names: BTreeSet<PathBuf>, max_bytes: u64, output: &Path) -> Result<Found, Stop> {
    let output = output.canonicalize().ok();
    let mut found = Found::default();
    for name in names {
        if output.is_some() && name.canonicalize().ok() == output {
            continue;
        }
        // A file that cannot be looked at stays, and fails by its name when it is read.
        match name.metadata().map(|metadata| metadata.len()) {
            Ok(0) => found.empty += 1,
            Ok(bytes) if bytes > max_bytes => found.large += 1,
            _ => found.files.push(name),
        }
    }
    Ok(found)
}

/// Adds the files under `root` that are `wanted` by their path relative to it; says how many.
fn walk(
    root: &Path,
    names: &mut BTreeSet<PathBuf>,
    unreadable: &mut Vec<String>,
    mut wanted: impl FnMut(&Path) -> bool,
) -> Result<usize, Stop> {
    let start = if root.as_os_str().is_empty() {
        Path::new(".")
    } else {
        root
    };
    let mut found = 0;
    // A .gitignore counts outside a repository too.
    for entry in WalkBuilder::new(start).require_git(false).build() {
        let entry = match entry {
            Ok(entry) => entry,
            // What was asked for by name must be there; below it, the rest is done.
            Err(error) if error.depth() == Some(0) => return Err(Stop::Usage(error.to_string())),
            Err(error) => {
                unreadable.push(error.to_string());
                continue;
            }
        };
        if !entry.file_type().is_some_and(|kind| kind.is_file()) {
            continue;
        }
        let Ok(relative) = entry.path().strip_prefix(start) else {
            continue;
        };
        if wanted(relative) {
            found += 1;
            // `.` gives `a.py` rather than `./a.py`.
            names.insert(if start == Path::new(".") {
                relative.into()
            } else {
                entry.into_path()
            });
        }
    }
    Ok(found)
}

/// The directories at the start of a pattern that are no pattern: `src` of `src/**/*.rs`.
fn literal_root(pattern: &str) -> PathBuf {
    let magic = |part: &str| part.contains(['*', '?', '[', '{']);
    let parts: Vec<&str> = pattern.split('/').take_while(|part| !magic(part)).collect();
    match parts.as_slice() {
        [""] => PathBuf::from("/"),
        parts => PathBuf::from(parts.join("/")),
    }
}

fn patterns(patterns: &[String]) -> Result<Option<GlobSet>, Stop> {
    if patterns.is_empty() {
        return Ok(None);
    }
    let mut set = GlobSetBuilder::new();
    for pattern in patterns {
        let anywhere = if pattern.contains('/') { "" } else { "**/" };
        set.add(glob(&format!("{anywhere}{pattern}"))?);
    }
    set.build()
        .map(Some)
        .map_err(|error| Stop::Usage(error.to_string()))
}

fn glob(pattern: &str) -> Result<Glob, Stop> {
    // `*` stays within a directory, as in a shell.
    let glob = GlobBuilder::new(pattern).literal_separator(true).build();
    glob.map_err(|error| Stop::Usage(format!("{pattern}: {}", error.kind())))
}

fn matches(set: &Option<GlobSet>, path: &Path) -> bool {
    set.as_ref().is_some_and(|set| set.is_match(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_patterns_root_is_what_is_literal() {
        assert_eq!(literal_root("src/**/*.rs"), Path::new("src"));
        assert_eq!(literal_root("*.rs"), Path::new(""));
        assert_eq!(literal_root("/*.rs"), Path::new("/"));
        assert_eq!(literal_root("/a/b?/c"), Path::new("/a"));
    }
}
