//! Many files, into a file that a later run goes on from.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::command_line::{files, run};
use crate::scripted::{Server, answer};

/// The records by path: the text, or the error's code. The last of a path counts.
fn records(path: &Path) -> BTreeMap<String, String> {
    let text = fs::read_to_string(path).unwrap();
    assert!(text.is_empty() || text.ends_with('\n'));
    let record = |line: &str| {
        let line: Value = serde_json::from_str(line).unwrap();
        let value = line["text"]
            .as_str()
            .or(line["error"]["code"].as_str())
            .unwrap();
        (line["path"].as_str().unwrap().to_owned(), value.to_owned())
    };
    text.lines().map(record).collect()
}

fn expected(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs
        .iter()
        .map(|(path, text)| ((*path).to_owned(), (*text).to_owned()))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_is_searched_for_source_files() {
    let server = Server::start().await;
    let dir = files(&[
        ("src/a.py", b"a"),
        ("src/deep/b.rs", b"b"),
        ("src/notes.txt", b"no source"),
        ("src/empty.py", b""),
        ("src/large.py", &[b'x'; 1001]),
        ("src/built/c.py", b"ignored"),
        ("src/.hidden/d.py", b"hidden"),
        ("src/.gitignore", b"built/\n"),
    ]);
    let run = run(
        &server.address,
        dir.path(),
        &["batch", "src", "-o", "out.jsonl"],
    )
    .await;
    assert_eq!((run.code, run.stdout.as_str()), (Some(0), ""), "{run:?}");
    let summary = "2 explained, 1 empty, 1 over 1000 bytes and 1 not known as source code left out · 24 tokens in ";
    assert!(run.stderr.starts_with(summary), "{}", run.stderr);
    assert_eq!(
        records(&dir.path().join("out.jsonl")),
        expected(&[("src/a.py", &answer("a")), ("src/deep/b.rs", &answer("b"))])
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_are_known_by_their_names_or_first_lines_are_found_too() {
    let server = Server::start().await;
    let known: [(&str, &[u8]); 8] = [
        ("src/CMakeLists.txt", b"project(x)"),
        ("src/Dockerfile", b"FROM x"),
        ("src/Makefile", b"all:"),
        ("src/a.css", b"a {}"),
        ("src/a.html", b"<p>"),
        ("src/a.toml", b"a = 1"),
        ("src/a.yaml", b"a: 1"),
        ("src/run", b"#!/bin/sh"),
    ];
    let unknown: [(&str, &[u8]); 1] = [("src/notes", b"no source")];
    let dir = files(&[&known[..], &unknown].concat());
    let run = run(
        &server.address,
        dir.path(),
        &["batch", "src", "-o", "out.jsonl"],
    )
    .await;
    let summary = "8 explained, 1 not known as source code left out · ";
    assert!(run.stderr.starts_with(summary), "{}", run.stderr);
    let found = records(&dir.path().join("out.jsonl"));
    assert!(found.keys().eq(known.iter().map(|(name, _)| name)));
}

#[tokio::test(flavor = "multi_thread")]
async fn patterns_choose_and_leave_out() {
    let server = Server::start().await;
    let names = [
        "lib/a.py",
        "lib/a_test.py",
        "lib/x/b.py",
        "lib/x/b.rs",
        "lib/x/c.txt",
    ];
    let dir = files(&names.map(|name| (name, &b"x"[..])));
    let cases: [(&[&str], &[&str]); 5] = [
        (
            &["lib/**/*.py"],
            &["lib/a.py", "lib/a_test.py", "lib/x/b.py"],
        ),
        (&["lib/*.py", "--exclude", "*_test.py"], &["lib/a.py"]),
        (&["lib", "--include", "*.txt"], &["lib/x/c.txt"]),
        (
            &["lib", "--exclude", "x/**"],
            &["lib/a.py", "lib/a_test.py"],
        ),
        (
            &["lib/x/c.txt", "lib/a.py", "lib/a.py"],
            &["lib/a.py", "lib/x/c.txt"],
        ),
    ];
    for (args, paths) in cases {
        let args: Vec<&str> = [&["batch", "-q", "-o", "-"], args].concat();
        let run = run(&server.address, dir.path(), &args).await;
        let mut found: Vec<String> = run
            .json()
            .iter()
            .map(|line| line["path"].as_str().unwrap().to_owned())
            .collect();
        found.sort();
        assert_eq!(
            (found.as_slice(), run.stderr.as_str()),
            (&paths.map_owned()[..], ""),
            "{args:?}"
        );
    }
    for args in [
        &["batch", "-o", "-", "*.nothing"][..],
        &["batch", "-o", "-", "gone"],
    ] {
        assert_eq!(run(&server.address, dir.path(), args).await.code, Some(2));
    }
}

trait MapOwned {
    fn map_owned(&self) -> Vec<String>;
}

impl MapOwned for &[&str] {
    fn map_owned(&self) -> Vec<String> {
        self.iter().map(|text| (*text).to_owned()).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_run_does_what_is_left_and_what_failed() {
    let server = Server::start().await;
    let dir = files(&[
        ("a.py", b"a"),
        ("b.py", b"refuse"),
        ("c.py", b"\xff"),
        ("d.py", b"break"),
    ]);
    let out = dir.path().join("out.jsonl");
    let args = ["batch", ".", "-o", "out.jsonl"];
    let first = run(&server.address, dir.path(), &args).await;
    assert_eq!(first.code, Some(1));
    assert!(
        first
            .stderr
            .contains("code-explainer: b.py: the code is refused"),
        "{}",
        first.stderr
    );
    let (a, d) = (answer("a"), answer("break"));
    let invalid = "INVALID_ARGUMENT";
    let all = [
        ("a.py", a.as_str()),
        ("b.py", invalid),
        ("c.py", invalid),
        ("d.py", &d),
    ];
    assert_eq!(records(&out), expected(&all));

    fs::write(dir.path().join("b.py"), "better").unwrap();
    fs::write(dir.path().join("c.py"), "text").unwrap();
    fs::write(dir.path().join("e.py"), "new").unwrap();
    let before = server.seen.codes().len();
    let second = run(&server.address, dir.path(), &args).await;
    assert_eq!(second.code, Some(0));
    assert!(
        second.stderr.starts_with("3 explained, 2 done before"),
        "{}",
        second.stderr
    );
    assert_eq!(server.seen.codes()[before..], ["better", "text", "new"]);

    let third = run(&server.address, dir.path(), &args).await;
    assert_eq!(
        (third.code, third.stderr.as_str()),
        (Some(0), "0 explained, 5 done before\n")
    );
    let (better, text, new) = (answer("better"), answer("text"), answer("new"));
    let all = [
        ("a.py", &*a),
        ("b.py", &*better),
        ("c.py", &*text),
        ("d.py", &*d),
        ("e.py", &*new),
    ];
    assert_eq!(records(&out), expected(&all));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_would_be_asked_otherwise_now_is_asked_again() {
    let server = Server::start().await;
    let dir = files(&[("a.py", b"a"), ("b.py", b"b")]);
    let out = dir.path().join("out.jsonl");
    let args = ["batch", ".", "-o", "out.jsonl"];
    run(&server.address, dir.path(), &args).await;

    fs::write(dir.path().join("a.py"), "changed").unwrap();
    let second = run(&server.address, dir.path(), &args).await;
    let summary = "1 explained, 1 done before, 1 again: the file, the options or the model changed";
    assert!(second.stderr.starts_with(summary), "{}", second.stderr);
    let (changed, b) = (answer("changed"), answer("b"));
    assert_eq!(records(&out), expected(&[("a.py", &changed), ("b.py", &b)]));

    let otherwise = [&args[..], &["--max-new-tokens", "5"]].concat();
    let third = run(&server.address, dir.path(), &otherwise).await;
    let summary = "2 explained, 2 again: the file, the options or the model changed";
    assert!(third.stderr.starts_with(summary), "{}", third.stderr);
    // It decides when the answer comes, not what it is.
    let otherwise = [
        &otherwise[..],
        &["--priority", "bulk", "--item-timeout", "60"],
    ]
    .concat();
    let fourth = run(&server.address, dir.path(), &otherwise).await;
    assert_eq!(fourth.stderr, "0 explained, 2 done before\n");
    assert_eq!(server.seen.codes(), ["a", "b", "changed", "changed", "b"]);
    // What cannot be read has failed, whether it has changed or not.
    fs::write(dir.path().join("b.py"), b"\xff").unwrap();
    let fifth = run(&server.address, dir.path(), &otherwise).await;
    let summary = "\n0 explained, 1 failed, 1 done before\n";
    assert!(fifth.stderr.ends_with(summary), "{}", fifth.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_explained_by_its_name_is_not_left_out() {
    let server = Server::start().await;
    let dir = files(&[("src/a.py", b"a"), ("src/notes.txt", b"n")]);
    for paths in [["src", "./src/notes.txt"], ["./src", "src/notes.txt"]] {
        let args = [&["batch", "-o", "-"][..], &paths].concat();
        let run = run(&server.address, dir.path(), &args).await;
        assert!(
            run.stderr.starts_with("2 explained · "),
            "{paths:?}: {}",
            run.stderr
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_last_line_that_was_cut_is_done_again() {
    let server = Server::start().await;
    let dir = files(&[("a.py", b"a"), ("b.py", b"b")]);
    let out = dir.path().join("out.jsonl");
    let args = ["batch", "a.py", "b.py", "-o", "out.jsonl", "--window", "1"];
    run(&server.address, dir.path(), &args).await;
    let whole = fs::read(&out).unwrap();
    fs::write(&out, &whole[..whole.len() - 9]).unwrap();
    let again = run(&server.address, dir.path(), &args).await;
    assert_eq!(again.code, Some(0));
    assert_eq!(fs::read(&out).unwrap(), whole);
    assert_eq!(server.seen.codes(), ["a", "b", "b"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_no_batch_wrote_is_left_alone() {
    let server = Server::start().await;
    let dir = files(&[("a.py", b"print(1)"), ("b.py", b"b")]);
    let run = run(&server.address, dir.path(), &["batch", ".", "-o", "a.py"]).await;
    assert_eq!(run.code, Some(2));
    assert!(
        run.stderr
            .contains("a.py: line 1 is not one that `batch` wrote"),
        "{}",
        run.stderr
    );
    assert_eq!(fs::read(dir.path().join("a.py")).unwrap(), b"print(1)");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_goes_away_leaves_what_was_done() {
    let server = Server::start().await;
    let dir = files(&[("a.py", b"a"), ("z.py", b"die")]);
    let args = ["batch", ".", "-o", "out.jsonl", "--window", "1"];
    let run = run(&server.address, dir.path(), &args).await;
    assert_eq!(run.code, Some(1), "{run:?}");
    assert!(
        run.stderr
            .contains("1 explained, 1 left: run the same command"),
        "{}",
        run.stderr
    );
    assert!(
        run.stderr
            .ends_with("code-explainer: it crashed (INTERNAL)\n"),
        "{}",
        run.stderr
    );
    assert_eq!(
        records(&dir.path().join("out.jsonl")),
        expected(&[("a.py", &answer("a"))])
    );
}
