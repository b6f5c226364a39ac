//! The README's Rust program is an example of this crate, which is tried here against a scripted server.

use std::path::Path;

use tokio::process::Command;

use crate::command_line::files;
use crate::scripted::{Server, answer, nobody};

const EXAMPLE: &str = include_str!("../examples/ask.rs");
const README: &str = include_str!("../../README.md");

fn ask(address: &str, directory: &Path) -> Command {
    // Cargo builds examples before it runs tests, beside the program.
    let program = Path::new(env!("CARGO_BIN_EXE_code-explainer"));
    let example = program.with_file_name("examples").join("ask");
    let mut command = Command::new(example);
    command.args([address, "a.py"]).current_dir(directory);
    command
}

#[test]
fn it_is_printed_as_it_is() {
    assert!(README.contains(&format!("```rust runnable=ask.rs\n{EXAMPLE}```\n")));
}

#[tokio::test(flavor = "multi_thread")]
async fn it_prints_the_answer_and_ends_with_an_error_where_there_is_none() {
    let server = Server::start().await;
    let dir = files(&[("a.py", b"a")]);
    let ran = ask(&server.address, dir.path()).output().await.unwrap();
    let text = String::from_utf8(ran.stdout).unwrap();
    assert!(ran.status.success());
    assert_eq!(text, format!("{}\n[a.py]\n", answer("a")));
    let ran = ask(&nobody().await, dir.path()).output().await.unwrap();
    assert!(!ran.status.success() && ran.stdout.is_empty());
    let said = String::from_utf8(ran.stderr).unwrap();
    assert!(said.starts_with("a.py: "), "{said}");
}
