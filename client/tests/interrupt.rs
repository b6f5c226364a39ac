//! Ctrl-C, and readers that go away.

use std::process::Stdio;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};

use crate::command_line::{files, program};
use crate::scripted::{Server, answer};

/// What Ctrl-C sends.
async fn interrupt(child: &Child) {
    let id = child.id().unwrap().to_string();
    assert!(
        Command::new("kill")
            .args(["-INT", &id])
            .status()
            .await
            .unwrap()
            .success()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn ctrl_c_cancels_the_items_and_exits_130() {
    let server = Server::start().await;
    let dir = files(&[("a.py", b"hold")]);
    let mut command = program(&server.address, dir.path(), &["explain", "a.py"]);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let mut word = [0; 7];
    stdout.read_exact(&mut word).await.unwrap();
    assert_eq!(&word, b"`hold` ");
    interrupt(&child).await;
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).await.unwrap();
    assert_eq!(rest, "\n");
    assert_eq!(child.wait().await.unwrap().code(), Some(130));
    assert_eq!(server.seen.cancelled.lock().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn ctrl_c_leaves_a_batch_that_can_go_on() {
    let server = Server::start().await;
    let dir = files(&[("a.py", b"a"), ("b.py", b"hold"), ("c.py", b"c")]);
    let args = ["batch", ".", "-o", "out.jsonl", "--window", "1"];
    let mut command = program(&server.address, dir.path(), &args);
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    let seen = server.seen.clone();
    while seen.codes().len() < 2 {
        tokio::task::yield_now().await;
    }
    interrupt(&child).await;
    let mut stderr = String::new();
    child
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut stderr)
        .await
        .unwrap();
    assert_eq!(child.wait().await.unwrap().code(), Some(130));
    assert!(
        stderr.starts_with("1 explained, 2 left: run the same command to go on"),
        "{stderr}"
    );
    let out = std::fs::read_to_string(dir.path().join("out.jsonl")).unwrap();
    assert!(
        out.starts_with("{\"path\":\"a.py\",") && out.lines().count() == 1,
        "{out}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_goes_away_ends_the_program_quietly() {
    let server = Server::start().await;
    let dir = files(&[("a.py", b"a")]);
    let mut command = program(
        &server.address,
        dir.path(),
        &["explain", "a.py", "-n", "100000"],
    );
    let child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = child.unwrap();
    let mut stdout = child.stdout.take().unwrap();
    stdout.read_exact(&mut [0; 4]).await.unwrap();
    drop(stdout);
    let output = child.wait_with_output().await.unwrap();
    assert_eq!(
        (output.status.code(), output.stderr.as_slice()),
        (Some(0), &b""[..])
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn standard_input_is_a_file_too() {
    let server = Server::start().await;
    let dir = files(&[]);
    let mut command = program(&server.address, dir.path(), &["explain", "-"]);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(b"from a pipe")
        .await
        .unwrap();
    let output = child.wait_with_output().await.unwrap();
    assert_eq!(
        String::from_utf8(output.stdout).unwrap(),
        answer("from a pipe") + "\n"
    );
}
