//! The operator's documents over gRPC, with the real embedding model: loaded, listed, removed, and there after a restart.

use std::time::Duration;

use code_explainer::disk;
use code_explainer::retrieval::store::FILE;
use code_explainer_client::proto::{Document, DocumentOutcome, Retrieval};
use code_explainer_client::{Client, Code, DocumentResult, ExplainOptions, Item, NewDocument};
use futures::{StreamExt, stream};

use crate::common::minilm;
use crate::common::server::TestServer;

async fn server(more: &[&str]) -> (TestServer, Client) {
    let model = minilm::flags();
    let mut flags: Vec<&str> = model.iter().map(String::as_str).collect();
    flags.extend(more);
    let server = TestServer::fake(&flags).await.0;
    let client = Client::connect(&server.uri()).expect("an address");
    (server, client)
}

fn document(id: &str, text: &str) -> NewDocument {
    NewDocument {
        id: id.into(),
        title: String::new(),
        text: text.into(),
    }
}

async fn add(client: &Client, documents: Vec<NewDocument>) -> Vec<DocumentResult> {
    let results = client
        .add_documents(stream::iter(documents))
        .await
        .expect("a stream");
    let results: Vec<_> = results.collect().await;
    results
        .into_iter()
        .map(|result| result.expect("a result"))
        .collect()
}

async fn names(client: &Client, prefix: &str) -> Vec<String> {
    let page = client.list_documents(prefix, "").await.expect("documents");
    page.documents.into_iter().map(|d: Document| d.id).collect()
}

/// The names of what a prompt about the code quotes.
async fn quoted(client: &Client, code: &str) -> Vec<String> {
    let options = ExplainOptions {
        strategy: Some("retrieval_augmented".into()),
        retrieval: Some(Retrieval {
            threshold: Some(-1.0),
            ..Retrieval::default()
        }),
        max_new_tokens: Some(4),
        ..ExplainOptions::default()
    };
    let explanation = client
        .explain(Item::new(code).with_options(options))
        .await
        .expect("an answer");
    let (_, done) = explanation.finish().await.expect("the end");
    done.receipt
        .sources
        .into_iter()
        .map(|source| source.id)
        .collect()
}

#[tokio::test]
async fn documents_are_added_replaced_left_listed_and_removed() {
    let (_server, client) = server(&[]).await;
    let long = "A paragraph about queues and their bounds. ".repeat(60);
    let results = add(
        &client,
        vec![document("docs/a.md", "# A"), document("docs/b.txt", &long)],
    )
    .await;
    assert!(
        results
            .iter()
            .all(|r| r.outcome() == DocumentOutcome::Added),
        "{results:?}"
    );
    assert_eq!(results[0].passages, 1);
    assert!(results[1].passages > 2, "{results:?}");

    let again = add(
        &client,
        vec![
            document("docs/a.md", "# A"),
            document("docs/b.txt", "short"),
        ],
    )
    .await;
    let outcomes: Vec<_> = again.iter().map(DocumentResult::outcome).collect();
    assert_eq!(
        outcomes,
        [DocumentOutcome::Unchanged, DocumentOutcome::Replaced]
    );
    assert_eq!(names(&client, "").await, ["docs/a.md", "docs/b.txt"]);
    assert_eq!(names(&client, "docs/b").await, ["docs/b.txt"]);
    let page = client
        .list_documents("", "docs/a.md")
        .await
        .expect("a page");
    assert_eq!(page.documents.len(), 1);
    assert_eq!((page.total_documents, page.total_passages), (2, 2));
    assert!(
        page.documents[0]
            .added
            .is_some_and(|time| time.seconds > 1_700_000_000)
    );

    let removed = client
        .remove_documents(vec!["docs/a.md".into(), "none".into()], None)
        .await;
    let removed = removed.expect("removed");
    assert_eq!((removed.documents, removed.passages), (1, 1));
    assert_eq!(names(&client, "").await, ["docs/b.txt"]);
    let all = client
        .remove_documents(Vec::new(), Some(String::new()))
        .await
        .expect("removed");
    assert_eq!(all.documents, 1);
    let nothing = client
        .remove_documents(Vec::new(), None)
        .await
        .expect_err("refused");
    assert_eq!(nothing.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn a_bad_document_is_refused_by_its_field_and_the_others_are_not() {
    let (_server, client) =
        server(&["--corpus-document-bytes", "4000", "--corpus-passages", "2"]).await;
    let results = add(
        &client,
        vec![
            document("", "text"),
            document("a\nb", "text"),
            document(&"x".repeat(513), "text"),
            document("empty", " \n"),
            document("large", &"x".repeat(4001)),
            document("many", &"One more sentence of this. ".repeat(120)),
            document("good", "text"),
        ],
    )
    .await;
    let fields: Vec<&str> = results.iter().map(|r| r.field.as_str()).collect();
    assert_eq!(fields, ["id", "id", "id", "text", "text", "", ""]);
    assert!(results[5].error.contains("2 passages"), "{:?}", results[5]);
    let outcomes = results.iter().map(DocumentResult::outcome);
    let refused = outcomes.filter(|o| *o == DocumentOutcome::Refused).count();
    assert_eq!((refused, results[6].outcome()), (6, DocumentOutcome::Added));
}

#[tokio::test]
async fn the_corpus_is_there_after_a_restart_and_found() {
    let directory = tempfile::tempdir().expect("a directory");
    let place = directory.path().display().to_string();
    let flags = ["--data-dir", place.as_str()];
    let (mut first, client) = server(&flags).await;
    let documents = vec![
        document(
            "sorting.md",
            "# Sorting\n\nBubble sort swaps neighbours of a list until it is in order.",
        ),
        document(
            "queue.md",
            "# Queue\n\nA bounded queue refuses more items than it may hold.",
        ),
    ];
    add(&client, documents).await;
    let code = "def bubble_sort(items):\n    swap neighbours until the list is sorted";
    assert_eq!(quoted(&client, code).await[0], "sorting.md#0");
    drop(client);
    first.terminate();
    first.ended().await.expect("a clean end");
    // The file is free once the last of the server's tasks has let go of it.
    let free = async {
        while disk::open(Some(directory.path()), FILE).is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), free)
        .await
        .expect("the file is free");

    let (_second, client) = server(&flags).await;
    assert_eq!(names(&client, "").await, ["queue.md", "sorting.md"]);
    assert_eq!(quoted(&client, code).await[0], "sorting.md#0");
    client
        .remove_documents(vec!["sorting.md".into()], None)
        .await
        .expect("removed");
    assert_eq!(quoted(&client, code).await, ["queue.md#0"]);
}

#[tokio::test]
async fn without_an_embedding_model_there_is_no_corpus() {
    let server = TestServer::fake(&["--embeddings", "off"]).await.0;
    let client = Client::connect(&server.uri()).expect("an address");
    let refused = client.list_documents("", "").await.expect_err("refused");
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(refused.to_string().contains("off"), "{refused}");
}
