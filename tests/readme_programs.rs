//! The README's programs run as they are printed, in a folder that has nothing but what the README puts there.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::common::programs::{node, output, python, root};
use crate::common::server::TestServer;

const SNIPPET: &str = "def f(x):\n    return x + 1\n";

/// The block that the README prints under this name.
fn printed(name: &str) -> String {
    let readme = std::fs::read_to_string(root().join("README.md")).expect("it is there");
    let mark = format!("{name}\n");
    let (_, rest) = readme.split_once(&mark).expect("a block of this name");
    let (program, _) = rest.split_once("```\n").expect("its end");
    program.to_owned()
}

/// What stands in the README where the reader's own path goes.
const PATH: &str = "/path/to/code-explainer";

/// Writes a program of Rust into a folder, as `cargo new` and the README have it, and builds it. Its packages have this
/// repository's versions: which ones are the newest differs from day to day.
fn build(folder: &Path) -> PathBuf {
    let dependencies = printed("```toml");
    assert!(dependencies.contains(PATH), "{dependencies}");
    let dependencies = dependencies.replace(PATH, root().to_str().expect("UTF-8"));
    let package = "[package]\nname = \"ask\"\nversion = \"0.1.0\"\nedition = \"2024\"\n\n";
    let write = |name: &str, text: &str| {
        std::fs::write(folder.join(name), text).expect("written");
    };
    write("Cargo.toml", &format!("{package}{dependencies}"));
    std::fs::create_dir(folder.join("src")).expect("a new folder");
    write("src/main.rs", &printed(" runnable=ask.rs"));
    std::fs::copy(root().join("Cargo.lock"), folder.join("Cargo.lock")).expect("copied");
    let target = folder.join("target");
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--offline"]).current_dir(folder);
    cargo.env("CARGO_TARGET_DIR", &target);
    cargo.env_remove("CARGO_BUILD_TARGET");
    let ran = output(&mut cargo);
    let said = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "{said}");
    assert!(!said.contains("warning:"), "{said}");
    target.join("debug/ask")
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir(to).expect("a new folder");
    for entry in std::fs::read_dir(from).expect("a folder") {
        let entry = entry.expect("an entry");
        let to = to.join(entry.file_name());
        if entry.file_type().expect("a type").is_dir() {
            copy(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), to).expect("copied");
        }
    }
}

/// Runs a printed program on files, against a server; gives whether it succeeded, and what it wrote.
async fn run(
    mut interpreter: Command,
    name: &str,
    address: String,
    files: &[(&str, &str)],
) -> (bool, String, String) {
    let folder = tempfile::tempdir().expect("a folder");
    copy(&root().join("proto"), &folder.path().join("proto"));
    let program = printed(&format!(" runnable={name}"));
    std::fs::write(folder.path().join(name), program).expect("written");
    interpreter
        .args([name, &address])
        .current_dir(folder.path());
    for (file, code) in files {
        std::fs::write(folder.path().join(file), code).expect("written");
        interpreter.arg(file);
    }
    let ran = tokio::task::spawn_blocking(move || output(&mut interpreter)).await;
    let ran = ran.expect("it ran");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    (ran.status.success(), text(ran.stdout), text(ran.stderr))
}

fn programs() -> [(Command, &'static str); 2] {
    let mut node = Command::new(node());
    node.env("NODE_PATH", root().join("tests/clients/node/node_modules"));
    [(Command::new(python()), "ask.py"), (node, "ask.js")]
}

#[tokio::test]
async fn they_print_the_answer_to_its_end() {
    let server = TestServer::real().await;
    for (interpreter, name) in programs() {
        let address = server.grpc.to_string();
        let (good, out, err) = run(interpreter, name, address, &[("a.py", SNIPPET)]).await;
        assert!(good && err.is_empty(), "{name}: {err}");
        let (answer, end) = out.trim_end().rsplit_once('\n').expect("two lines");
        assert!(!answer.trim().is_empty(), "{out}");
        assert!(
            end.starts_with("[a.py: ") && end.ends_with(" tokens]"),
            "{out}"
        );
    }
}

#[tokio::test]
async fn they_say_what_is_wrong_with_an_item_and_go_on() {
    let (server, _) = TestServer::fake(&[]).await;
    for (interpreter, name) in programs() {
        let files = [("bad.py", " "), ("good.py", SNIPPET)];
        let (good, out, err) = run(interpreter, name, server.grpc.to_string(), &files).await;
        assert!(!good && out.contains("\n[good.py: "), "{name}: {out}");
        assert!(err.starts_with("bad.py: code"), "{name}: {err}");
    }
}

#[tokio::test]
async fn without_a_server_they_end_with_an_error() {
    for (interpreter, name) in programs() {
        let address = "127.0.0.1:1".to_owned();
        let (good, _, err) = run(interpreter, name, address, &[("a.py", SNIPPET)]).await;
        let told = ["UNAVAILABLE", "is there a server?"];
        assert!(
            !good && told.iter().all(|part| err.contains(part)),
            "{name}: {err}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_one_in_rust_is_built_of_what_is_printed_and_does_the_same() {
    let (server, _) = TestServer::fake(&[]).await;
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().to_owned();
    let built = tokio::task::spawn_blocking(move || build(&path)).await;
    let program = built.expect("it is built");
    for (name, code) in [("bad.py", " "), ("good.py", SNIPPET)] {
        std::fs::write(folder.path().join(name), code).expect("written");
    }
    let ask = |address: &str, files: &[&str]| {
        let mut command = Command::new(&program);
        command.arg(address).args(files).current_dir(folder.path());
        tokio::task::spawn_blocking(move || {
            let ran = output(&mut command);
            let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
            (ran.status.success(), text(ran.stdout), text(ran.stderr))
        })
    };
    let address = server.grpc.to_string();
    let (good, out, err) = ask(&address, &["good.py"]).await.expect("it ran");
    assert!(good && err.is_empty(), "{err}");
    let (answer, end) = out.trim_end().rsplit_once('\n').expect("two lines");
    assert!(!answer.trim().is_empty() && end == "[good.py]", "{out}");
    let both = ask(&address, &["bad.py", "good.py"]).await;
    let (good, out, err) = both.expect("it ran");
    assert!(!good && out.ends_with("\n[good.py]\n"), "{out}");
    assert!(err.starts_with("bad.py: ") && err.contains("code"), "{err}");
    let nobody = ask("127.0.0.1:1", &["good.py"]).await;
    let (good, out, err) = nobody.expect("it ran");
    assert!(!good && out.is_empty(), "{out}");
    assert!(
        err.starts_with("good.py: ") && err.contains("is there a server"),
        "{err}"
    );
}

#[test]
fn each_of_them_is_run_here() {
    let readme = std::fs::read_to_string(root().join("README.md")).expect("it is there");
    let marked = readme
        .lines()
        .filter_map(|line| line.split_once(" runnable="));
    let names: Vec<&str> = marked.map(|(_, name)| name).collect();
    assert_eq!(names, ["ask.rs", "ask.py", "ask.js"]);
}
