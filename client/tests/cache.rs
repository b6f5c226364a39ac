//! `code-explainer cache` as a person runs it.

use std::fs;

use tempfile::TempDir;

use crate::command_line::run;
use crate::scripted::Server;

#[tokio::test]
async fn stats_are_told_level_by_level() {
    let (server, dir) = (Server::start().await, TempDir::new().unwrap());
    let told = run(&server.address, dir.path(), &["cache", "stats"]).await;
    assert_eq!(told.code, Some(0), "{told:?}");
    for expected in [
        "memory\n",
        "1,247 of 10,000",
        "873 hits, 127 misses (87.3% hit rate)",
        "0.9 µs mean, 12 µs p99",
        "12 expired",
        "adaptive, now lfu",
    ] {
        assert!(
            told.stdout.contains(expected),
            "{expected}: {}",
            told.stdout
        );
    }
    let json = run(&server.address, dir.path(), &["cache", "stats", "--json"]).await;
    let json = &json.json()[0];
    assert_eq!(json["levels"][0]["hits"], 873);
    assert_eq!(json["policy_in_force"], "lfu");
}

#[tokio::test]
async fn what_is_cleared_is_what_was_named() {
    let (server, dir) = (Server::start().await, TempDir::new().unwrap());
    let args = [
        "cache",
        "clear",
        "--json",
        "--level",
        "redis",
        "--tenant",
        "team",
        "--language",
        "c*",
        "--strategy",
        "vanilla",
    ];
    let told = run(&server.address, dir.path(), &args).await;
    assert_eq!(told.code, Some(0), "{told:?}");
    assert_eq!(
        told.json(),
        [serde_json::json!({ "level": "redis", "entries": 111, "error": "" })]
    );
    let told = run(
        &server.address,
        dir.path(),
        &["cache", "clear", "--level", "memory"],
    )
    .await;
    assert_eq!(told.stdout, "memory: 0 removed\n");
}

#[tokio::test]
async fn warming_tells_what_came_of_each_file() {
    let (server, dir) = (Server::start().await, TempDir::new().unwrap());
    fs::write(dir.path().join("a.py"), "x = 1").unwrap();
    fs::write(dir.path().join("b.py"), "busy x").unwrap();
    fs::write(dir.path().join("c.py"), "refuse x").unwrap();
    let args = ["cache", "warm", "a.py", "b.py", "c.py", "none.py"];
    let told = run(&server.address, dir.path(), &args).await;
    assert_eq!(told.code, Some(1), "{told:?}");
    assert!(
        told.stderr.contains("1 warmed, 1 there before, 2 failed"),
        "{}",
        told.stderr
    );
    assert!(told.stderr.contains("c.py: refused"), "{}", told.stderr);
    let args = ["cache", "warm", "--json", "a.py", "b.py"];
    let told = run(&server.address, dir.path(), &args).await;
    assert_eq!(told.code, Some(0), "{told:?}");
    let outcomes: Vec<_> = told.json().iter().map(|o| o["outcome"].clone()).collect();
    assert_eq!(outcomes, ["warmed", "present"]);
}
