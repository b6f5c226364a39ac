//! The house's rules about who may know whom, read off Cargo's graph and the sources.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::common::programs::{output, root};

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

/// What Cargo says of the crates below `server`, and of the one that is made of them: their names, without what all names
/// begin with, and what they need to be built. Tests may know more.
fn crates() -> BTreeMap<String, BTreeSet<String>> {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args([
        "metadata",
        "--no-deps",
        "--offline",
        "--format-version",
        "1",
    ]);
    let said = output(cargo.current_dir(root()));
    let said: Value = serde_json::from_slice(&said.stdout).expect("JSON");
    let packages = said["packages"].as_array().expect("packages");
    let short = |name: &Value| {
        let name = name.as_str().expect("a name");
        (name.strip_prefix("code-explainer-").unwrap_or(name)).to_owned()
    };
    let ours = (packages.iter()).filter(|package| {
        let place = package["manifest_path"].as_str().expect("a path");
        Path::new(place).starts_with(root().join("server")) || package["name"] == "code-explainer"
    });
    let needs = |package: &Value| {
        let all = package["dependencies"].as_array().expect("dependencies");
        let built = all.iter().filter(|needed| needed["kind"].is_null());
        built.map(|needed| short(&needed["name"])).collect()
    };
    ours.map(|package| (short(&package["name"]), needs(package)))
        .collect()
}

#[test]
fn tokenizers_are_for_texts_and_embeddings() {
    only_in("tokenizers", &["server/text", "server/embed"]);
}

#[test]
fn crates_depend_on_each_other_as_the_picture_has_it() {
    let crates = crates();
    let mut arrows = Vec::new();
    for (name, needs) in &crates {
        let needs = needs.iter().filter(|needed| crates.contains_key(*needed));
        arrows.extend(needs.map(|needed| format!("    {name} --> {needed}\n")));
    }
    // The crate that is made of all others comes first.
    arrows.sort_by_key(|arrow| !arrow.contains("code-explainer"));
    let drawn = std::fs::read_to_string(root().join("ARCHITECTURE.md")).expect("it is there");
    let drawn = drawn.split_once("graph TD\n").expect("a picture").1;
    let drawn = drawn.split_once("```").expect("its end").0;
    assert_eq!(drawn, arrows.concat());
}

#[test]
fn what_few_crates_need_no_other_one_has() {
    let crates = crates();
    for (needed, rooms) in [
        ("tch", &["engine-torch"][..]),
        ("redis", &["cache"]),
        ("tonic", &["code-explainer"]),
        ("axum", &["code-explainer"]),
        ("tokenizers", &["code-explainer", "text"]),
        ("tree-sitter", &["code"]),
        ("minijinja", &["text"]),
    ] {
        let have = crates.iter().filter(|(_, needs)| needs.contains(needed));
        let have: Vec<&str> = have.map(|(name, _)| name.as_str()).collect();
        assert_eq!(have, rooms, "{needed}");
    }
}

#[test]
fn unsafe_code_stays_in_the_kernels_and_the_memory_map() {
    let allowed = [
        "server/engine-native",
        "server/engine-torch",
        "server/host/memory.rs",
        "server/code/prompt/parse/memory.rs",
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
