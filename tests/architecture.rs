//! The house's rules about who may know whom, read off the sources.

use std::path::{Path, PathBuf};

use crate::common::programs::root;

fn sources(directory: &Path) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut left: Vec<PathBuf> = vec![directory.into()];
    while let Some(path) = left.pop() {
        if path.is_dir() {
            left.extend(
                std::fs::read_dir(&path)
                    .expect("readable")
                    .flatten()
                    .map(|e| e.path()),
            );
        } else if path.extension().is_some_and(|e| e == "rs") {
            let name = path
                .strip_prefix(root())
                .expect("inside")
                .display()
                .to_string();
            found.push((name, std::fs::read_to_string(&path).expect("UTF-8")));
        }
    }
    assert!(
        found.len() > 10,
        "the sources are where they are looked for"
    );
    found
}

/// Lines of code, without comments and documentation.
fn code(text: &str) -> impl Iterator<Item = &str> {
    text.lines()
        .map(str::trim_start)
        .filter(|line| !line.starts_with("//"))
}

#[track_caller]
fn only_in(crate_name: &str, rooms: &[&str]) {
    let path = format!("{crate_name}::");
    for (name, text) in sources(&root().join("server")) {
        let allowed = rooms.iter().any(|room| name.starts_with(room));
        let uses = |line: &str| {
            line.match_indices(&path)
                .any(|(at, _)| !line[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_'))
        };
        let used = code(&text).find(|line| uses(line));
        assert!(
            allowed || used.is_none(),
            "{name} uses {crate_name}: {used:?}"
        );
    }
}

#[test]
fn tonic_stays_at_the_door() {
    only_in("tonic", &["server/api", "server/error.rs", "server/lib.rs"]);
}

#[test]
fn libtorch_stays_in_its_engine() {
    only_in("tch", &["server/engine/torch"]);
}

#[test]
fn redis_stays_in_the_cache() {
    only_in("redis", &["server/cache"]);
}

#[test]
fn unsafe_code_stays_in_the_kernels_and_the_memory_map() {
    let allowed = [
        "server/engine/native",
        "server/engine/torch",
        "server/memory.rs",
        "server/prompt/parse/memory.rs",
        "server/weights/file.rs",
    ];
    for (name, text) in sources(&root().join("server")) {
        let keyword = |l: &&str| l.contains("unsafe {") || l.contains("unsafe fn ");
        // The tables of Rust's own words have it in strings.
        let found = code(&text).filter(|l| !l.contains('"')).find(keyword);
        let may = allowed.iter().any(|room| name.starts_with(room));
        assert!(may || found.is_none(), "{name}: {found:?}");
    }
}

#[test]
fn no_file_has_grown_too_long() {
    for directory in ["server", "client", "tests"] {
        for (name, text) in sources(&root().join(directory)) {
            assert!(
                text.lines().count() <= 500,
                "{name} has {} lines",
                text.lines().count()
            );
        }
    }
}
