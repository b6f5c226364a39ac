//! `code-explainer corpus`: what is loaded, shown and removed.

use crate::command_line::{files, run};
use crate::scripted::Server;

#[tokio::test]
async fn documentation_is_loaded_listed_and_removed() {
    let server = Server::start().await;
    let dir = files(&[
        ("docs/a.md", b"# A"),
        ("docs/deep/b.TXT", b"b"),
        ("docs/bad.rst", b"please refuse"),
        ("docs/code.py", b"x = 1"),
        ("docs/.gitignore", b"ignored.md\n"),
        ("docs/ignored.md", b"no"),
        ("docs/empty.md", b" \n"),
    ]);
    let corpus = async |args: &[&str]| {
        let args: Vec<&str> = [&["corpus"], args].concat();
        run(&server.address, dir.path(), &args).await
    };
    let added = corpus(&["add", "./docs"]).await;
    assert_eq!(added.code, Some(1), "{added:?}");
    assert_eq!(
        added.stdout,
        "2 added, 0 replaced, 0 unchanged; 4 passages\n"
    );
    assert!(
        added.stderr.contains("docs/bad.rst: text: it says refuse"),
        "{added:?}"
    );

    let listed = corpus(&["list", "--json"]).await.json();
    let names: Vec<&str> = listed.iter().filter_map(|d| d["id"].as_str()).collect();
    assert_eq!(names, ["docs/a.md", "docs/deep/b.TXT"]);
    assert!(
        corpus(&["list", "docs/deep"])
            .await
            .stdout
            .starts_with("docs/deep/b.TXT ")
    );

    let removed = corpus(&["remove", "docs/a.md"]).await;
    assert_eq!(removed.stdout, "removed 1 documents, 0 passages\n");
    assert_eq!(
        corpus(&["remove", "--all"]).await.stdout,
        "removed 1 documents, 0 passages\n"
    );
    assert!(corpus(&["list"]).await.stdout.is_empty());
}

#[tokio::test]
async fn what_cannot_be_meant_is_told() {
    let server = Server::start().await;
    let dir = files(&[("a.py", b"x = 1")]);
    for (args, expected) in [
        (
            vec!["corpus", "add", "nowhere"],
            "nowhere: no such file or directory",
        ),
        (vec!["corpus", "add", "."], "there is no documentation"),
        (vec!["corpus", "remove"], "required"),
    ] {
        let run = run(&server.address, dir.path(), &args).await;
        assert_eq!(run.code, Some(2), "{run:?}");
        assert!(run.stderr.contains(expected), "{run:?}");
    }
}
