//! The program as a person runs it.

use std::fs;
use std::path::Path;
use std::sync::atomic::Ordering::Relaxed;

use serde_json::Value;
use tempfile::TempDir;
use tokio::process::Command;

use crate::scripted::{Server, answer, nobody};

/// What a run of the program came to.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Run {
    pub(crate) fn json(&self) -> Vec<Value> {
        self.stdout
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }
}

pub(crate) fn program(address: &str, dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_code-explainer"));
    command
        .args(args)
        .current_dir(dir)
        .env("CODE_EXPLAINER_SERVER", address)
        .env_remove("NO_COLOR");
    command.kill_on_drop(true);
    command
}

pub(crate) async fn run(address: &str, dir: &Path, args: &[&str]) -> Run {
    let output = program(address, dir, args).output().await.unwrap();
    Run {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// A directory of files.
pub(crate) fn files(files: &[(&str, &[u8])]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, contents) in files {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, contents).unwrap();
    }
    dir
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_explained_on_standard_output() {
    let server = Server::start().await;
    let dir = files(&[("a.py", b"def f(): pass")]);
    let run = run(&server.address, dir.path(), &["explain", "a.py"]).await;
    assert_eq!(run.stdout, answer("def f(): pass") + "\n");
    assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""));
    assert_eq!(server.seen.items.lock().unwrap()[0].0.language, "python");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receipt_names_what_was_quoted() {
    let server = Server::start().await;
    let dir = files(&[("a.py", b"def f(): pass")]);
    let strategy = ["--strategy", "retrieval_augmented", "--receipt"];
    let args = [&["explain", "a.py"][..], &strategy].concat();
    let run = run(&server.address, dir.path(), &args).await;
    let quotes = " · quotes docs/queue.md#0, docs/stack.md#2\n";
    assert!(run.stderr.ends_with(quotes), "{}", run.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn several_files_stream_together_and_print_in_order() {
    let server = Server::start().await;
    server.seen.gather.store(3, Relaxed);
    // The first is the longest, so that the others wait for their turn.
    let dir = files(&[("a.py", b"busy 1"), ("b.rs", b"refuse"), ("c.zz", b"c")]);
    let args = ["explain", "a.py", "b.rs", "c.zz", "--receipt"];
    let run = run(&server.address, dir.path(), &args).await;
    let expected = format!(
        "==> a.py <==\n{}\n\n==> c.zz <==\n{}\n",
        answer("busy 1"),
        answer("c")
    );
    assert_eq!(run.stdout, expected);
    assert_eq!(run.code, Some(1));
    let receipt = "scripted fp32 · 12 tokens in 3.1 s (3.9 tok/s) · first token 201 ms · queue 1.0 ms · \
                   prefill 200 ms · prompt 7 (0 cached) · batch ≤ 3 · replica host-1 · seed 0 · eos";
    let lines: Vec<&str> = run.stderr.lines().collect();
    assert_eq!(
        lines[1..],
        [
            receipt,
            "code-explainer: b.rs: the code is refused (INVALID_ARGUMENT, field code)",
            receipt
        ]
    );
    assert!(lines[0].contains("a.py: the queue is full"), "{}", lines[0]);
    // The server detects what the extension does not tell.
    assert!(
        server
            .seen
            .items
            .lock()
            .unwrap()
            .iter()
            .any(|(item, _)| item.language.is_empty())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_are_no_source_are_named_and_the_others_go_on() {
    let server = Server::start().await;
    let dir = files(&[
        ("a.py", b"a"),
        ("b.py", b"\xff\xfe"),
        ("e.py", b""),
        ("large.py", &[b'x'; 1001]),
    ]);
    let args = [
        "explain", "b.py", "gone.py", "e.py", "large.py", ".", "a.py",
    ];
    let run = run(&server.address, dir.path(), &args).await;
    assert_eq!(run.code, Some(1));
    assert_eq!(run.stdout, format!("==> a.py <==\n{}\n", answer("a")));
    let expected = [
        "code-explainer: b.py: it is not UTF-8 text (see byte 0)",
        "code-explainer: gone.py: No such file or directory (os error 2)",
        "code-explainer: e.py: it is empty",
        "code-explainer: large.py: it is larger than 1000 bytes, the most that is taken",
        "code-explainer: .: it is a directory; `code-explainer batch` explains directories",
    ];
    assert_eq!(run.stderr.lines().collect::<Vec<_>>(), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn json_has_a_line_per_file_with_all_options_sent() {
    let server = Server::start().await;
    let dir = files(&[("a.py", b"a"), ("b.py", b"refuse"), ("c.py", b"\xff")]);
    let options = [
        "explain",
        "a.py",
        "b.py",
        "c.py",
        "--json",
        "-l",
        "ruby",
        "--strategy",
        "ast_augmented",
        "-n",
        "5",
        "--min-new-tokens",
        "2",
        "--temperature",
        "-1",
        "--top-p",
        "0.9",
        "--top-k",
        "40",
        "--repetition-penalty",
        "1.1",
        "--seed",
        "9",
        "--stop",
        "\\n\\n",
        "--stop",
        "END",
        "--ignore-eos",
        "--show-prompt",
    ];
    let run = run(&server.address, dir.path(), &options).await;
    assert_eq!(run.code, Some(1));
    let mut lines = run.json();
    lines.sort_by_key(|line| line["id"].to_string());
    let [a, b, c] = lines.as_slice() else {
        panic!("{run:?}")
    };
    assert_eq!((&a["id"], &a["language"]), (&"a.py".into(), &"ruby".into()));
    assert_eq!(a["text"], "`a` does what it says, ");
    assert_eq!(a["prompt"], "Explain: a");
    assert_eq!(
        (&a["finish_reason"], &a["tries"]),
        (&"length".into(), &1.into())
    );
    assert_eq!(a["usage"]["generated_tokens"], 5);
    assert_eq!(
        (&a["receipt"]["seed"], &a["receipt"]["cache"]),
        (&9.into(), &"computed".into())
    );
    assert_eq!(b["error"]["code"], "INVALID_ARGUMENT");
    assert_eq!(
        (&b["error"]["field"], &b["error"]["retryable"]),
        (&"code".into(), &false.into())
    );
    assert_eq!(c["error"]["message"], "it is not UTF-8 text (see byte 0)");

    let sent = server.seen.items.lock().unwrap()[0].0.clone();
    assert_eq!(
        (sent.strategy.as_str(), sent.language.as_str()),
        ("ast_augmented", "ruby")
    );
    assert_eq!(
        (sent.max_new_tokens, sent.min_new_tokens, sent.top_k),
        (5, 2, 40)
    );
    assert_eq!(
        (sent.temperature, sent.top_p, sent.repetition_penalty),
        (-1.0, 0.9, 1.1)
    );
    assert_eq!((sent.seed, sent.ignore_eos), (Some(9), true));
    assert_eq!(sent.stop, ["\n\n", "END"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_printed_as_they_come() {
    let server = Server::start().await;
    let dir = files(&[("a.py", b"break")]);
    let run = run(
        &server.address,
        dir.path(),
        &["explain", "a.py", "--events", "-n", "3"],
    )
    .await;
    let events: Vec<_> = run.json();
    let names: Vec<&str> = events
        .iter()
        .map(|event| event["event"].as_str().unwrap())
        .collect();
    assert_eq!(
        names,
        ["accepted", "delta", "delta", "retrying", "delta", "done"]
    );
    assert!(events.iter().all(|event| event["id"] == "a.py"));
    assert_eq!(
        (&events[1]["sequence"], &events[1]["text"]),
        (&0.into(), &"`break` ".into())
    );
    assert_eq!(events[3]["error"]["code"], "UNAVAILABLE");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_tried_again_in_a_line_is_whole_where_no_terminal_shows_it() {
    let server = Server::start().await;
    let dir = files(&[("a.py", b"break")]);
    let run = run(&server.address, dir.path(), &["explain", "a.py"]).await;
    assert_eq!(run.stdout, answer("break") + "\n");
    assert!(run.stderr.ends_with("; trying again\n"), "{}", run.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_server_one_sentence_says_what_to_do() {
    let address = nobody().await;
    let dir = files(&[("a.py", b"a")]);
    for args in [
        &["explain", "a.py"][..],
        &["batch", ".", "-o", "o"],
        &["model"],
        &["report"],
    ] {
        let run = run(&address, dir.path(), args).await;
        assert_eq!((run.code, run.stdout.as_str()), (Some(69), ""), "{args:?}");
        assert_eq!(
            run.stderr,
            format!(
                "code-explainer: no server answers at {address} (Connection refused (os error 111)): start \
                 one with `code-explainer-server serve`, or name another with --server HOST:PORT\n"
            )
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_speaks_tls_or_does_not_is_told_from_one_that_is_not_there() {
    let dir = files(&[("a.py", b"a")]);
    // It says what a TLS server says to who does not speak TLS: an alert.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let encrypted = listener.local_addr().unwrap();
    let answers = tokio::spawn(async move {
        while let Ok((mut connection, _)) = listener.accept().await {
            tokio::io::AsyncWriteExt::write_all(&mut connection, b"\x15\x03\x03\0\x02\x02\x0a")
                .await
                .ok();
        }
    });
    let plain = Server::start().await;
    for (address, said) in [
        (format!("http://{encrypted}"), "give https://"),
        (
            plain.address.replace("http://", "https://"),
            "give http:// instead",
        ),
    ] {
        let run = run(&address, dir.path(), &["model"]).await;
        assert_eq!(run.code, Some(69));
        assert!(run.stderr.contains(said), "{}", run.stderr);
    }
    answers.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_command_line_exits_2() {
    let dir = files(&[("a.py", b"a")]);
    let cases: [&[&str]; 6] = [
        &[],
        &["explain"],
        &["explain", "a.py", "--stop", "\\q"],
        &["explain", "a.py", "--json", "--events"],
        &["batch", "."],
        &["--server", "ftp://x", "model"],
    ];
    for args in cases {
        let run = run("127.0.0.1:1", dir.path(), args).await;
        assert_eq!((run.code, run.stdout.as_str()), (Some(2), ""), "{args:?}");
        assert!(!run.stderr.is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_help_teaches_examples_and_exit_codes() {
    let dir = files(&[]);
    let help = run("127.0.0.1:1", dir.path(), &["--help"]).await;
    assert_eq!(help.code, Some(0));
    for part in [
        "Examples:",
        "CODE_EXPLAINER_SERVER",
        "Exit codes:",
        "69 ",
        "130 ",
    ] {
        assert!(help.stdout.contains(part), "{part} is not in the help");
    }
    let version = run("127.0.0.1:1", dir.path(), &["--version"]).await;
    assert_eq!(
        version.stdout,
        format!("code-explainer {}\n", env!("CARGO_PKG_VERSION"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_model_and_the_report_are_shown() {
    let server = Server::start().await;
    let dir = files(&[]);
    let model = run(&server.address, dir.path(), &["model"]).await.stdout;
    assert!(
        model.contains("Parameters       135M\n") && model.contains("1,000 bytes"),
        "{model}"
    );
    let json = run(&server.address, dir.path(), &["model", "--json"])
        .await
        .json();
    assert_eq!(
        (&json[0]["name"], &json[0]["limits"]["stream_items"]),
        (&"scripted".into(), &4.into())
    );

    let report = run(&server.address, dir.path(), &["report"]).await.stdout;
    let title =
        "Code Explainer Performance Report\n==================================\n\nModel Inf";
    assert!(report.starts_with(title), "{report}");
    for part in [
        "\nMemory Usage:\n",
        "\nCache Statistics:\n  Explanation Cache: 1,247 entries (87.3% hit rate)\n",
        "\nRequest Statistics:\n  Total Requests: 15,432\n",
        "\nBatch Processing:\n  Average Batch Size: ",
    ] {
        assert!(report.contains(part), "{part} is not in {report}");
    }
    let json = run(&server.address, dir.path(), &["report", "--json"])
        .await
        .json();
    assert_eq!(json[0]["requests"]["total"], 15_432);
}
