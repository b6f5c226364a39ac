//! The corpus on disk, and answers by tenant: who finds what, what makes room, what another model does.

use std::path::Path;
use std::sync::Arc;

use code_explainer::embed::{EmbedConfig, Embedder};
use code_explainer::metrics::Metrics;
use code_explainer::retrieval::record::Kind;
use code_explainer::retrieval::store::{NewDocument, NewPassage, Store};
use code_explainer::retrieval::{Retrieval, RetrievalConfig, RetrievalOptions, Scope};

use crate::common::minilm;
use crate::common::server::config;

const ANYTHING: RetrievalOptions = RetrievalOptions {
    top_k: 8,
    threshold: -1.0,
    diversity: 0.0,
    tokens: 512,
    documentation: true,
    explanations: true,
};

fn retrieval(answers: usize) -> Arc<Retrieval> {
    let model = minilm::flags();
    let flags: Vec<&str> = model.iter().map(String::as_str).collect();
    let (embed, retrieval): (EmbedConfig, RetrievalConfig) = {
        let config = config(&flags);
        (config.embed, config.retrieval)
    };
    let metrics = Arc::new(Metrics::new().expect("metrics"));
    let embedder = Arc::new(Embedder::new(embed, metrics.clone()));
    let config = RetrievalConfig {
        answers,
        ..retrieval
    };
    Arc::new(Retrieval::new(config, embedder, metrics))
}

/// Titles and texts of what a tenant finds.
async fn found(retrieval: &Arc<Retrieval>, salt: &[u8], code: &str) -> Vec<String> {
    let found = retrieval.retrieve(salt, code, &ANYTHING).await;
    found
        .passages
        .into_iter()
        .map(|passage| passage.text)
        .collect()
}

#[tokio::test]
async fn an_answer_is_found_by_its_tenant_and_by_no_other() {
    let retrieval = retrieval(10);
    retrieval.keep_answer(
        b"a",
        "python",
        "def add(x, y): return x + y",
        "It adds two numbers.",
    );
    retrieval.keep_answer(
        b"b",
        "python",
        "def secret(): return 42",
        "It is b's secret.",
    );
    retrieval.settled().await;
    let near = "def add(a, b): return a + b";
    let own = retrieval.retrieve(b"a", near, &ANYTHING).await.passages;
    assert_eq!(own.len(), 1);
    assert_eq!(own[0].kind, Kind::Explanation);
    assert!(own[0].score > 0.7, "{own:?}");
    assert!(own[0].text.contains("return x + y") && own[0].text.contains("It adds two numbers."));
    assert_eq!(found(&retrieval, b"b", near).await.len(), 1);
    assert!(found(&retrieval, b"b", near).await[0].contains("b's secret"));
    assert!(found(&retrieval, b"c", near).await.is_empty());
    // Nor is it in what the operator sees.
    let documents = retrieval
        .list_documents(None, String::new(), 10)
        .await
        .expect("documents");
    assert!(documents.is_empty());
}

#[tokio::test]
async fn a_later_answer_takes_the_place_of_the_earlier_and_the_busiest_tenant_makes_room() {
    let retrieval = retrieval(3);
    let keep = async |salt: &[u8], code: &str, answer: &str| {
        retrieval.keep_answer(salt, "", code, answer);
        retrieval.settled().await;
    };
    keep(b"a", "x = 1", "first").await;
    keep(b"a", "x = 1", "second").await;
    let texts = found(&retrieval, b"a", "x = 1").await;
    assert_eq!(texts.len(), 1);
    assert!(texts[0].contains("second"));
    keep(b"b", "only", "of b").await;
    for code in ["y = 2", "z = 3", "w = 4"] {
        keep(b"a", code, code).await;
    }
    assert_eq!(retrieval.stats().answers, 3);
    assert_eq!(
        found(&retrieval, b"b", "only").await.len(),
        1,
        "the other tenant's stays"
    );
    let mut left = found(&retrieval, b"a", "x = 1").await;
    left.sort();
    assert!(
        left.len() == 2 && left[0].contains("w = 4") && left[1].contains("z = 3"),
        "{left:?}"
    );
}

#[tokio::test]
async fn who_has_many_answers_at_once_does_not_keep_anothers_out() {
    let retrieval = retrieval(100);
    // None is stored before all have come: there is one thread, and nothing to wait for.
    for n in 0..1000 {
        retrieval.keep_answer(b"a", "", &format!("x = {n}"), "of a");
    }
    retrieval.keep_answer(b"b", "", "only", "of b");
    retrieval.settled().await;
    assert_eq!(found(&retrieval, b"b", "only").await.len(), 1);
}

#[tokio::test]
async fn answers_are_not_kept_unless_that_is_asked_for() {
    let retrieval = retrieval(0);
    retrieval.keep_answer(b"a", "", "x = 1", "an answer");
    retrieval.settled().await;
    assert!(found(&retrieval, b"a", "x = 1").await.is_empty());
}

fn document(id: &str, vectors: &[[f32; 2]]) -> NewDocument {
    let passage = |vector: &[f32; 2]| NewPassage {
        title: id.into(),
        text: format!("text of {id}"),
        embedded: None,
        vector: vector.to_vec(),
    };
    NewDocument {
        scope: Scope::SHARED,
        id: id.into(),
        kind: Kind::Documentation,
        title: id.into(),
        bytes: 1,
        digest: [0; 32],
        passages: vectors.iter().map(passage).collect(),
    }
}

fn open(place: &Path, model: &str) -> Store {
    Store::open(Some(place), model, 2).expect("a store")
}

fn nearest(store: &Store, query: [f32; 2]) -> Option<String> {
    let (near, _) = store.search(&[Scope::SHARED], &query, 1).pop()?;
    let (_, record) = store.passages(&[near.id]).expect("the disk").pop()?;
    Some(record.document)
}

#[test]
fn another_models_vectors_are_not_searched_until_they_are_renewed() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = open(directory.path(), "one");
    assert!(
        store
            .put(document("a", &[[1.0, 0.0]]), 10)
            .expect("the disk")
    );
    assert!(
        store
            .put(document("b", &[[0.0, 1.0]]), 10)
            .expect("the disk")
    );
    drop(store);
    let store = open(directory.path(), "two");
    assert_eq!(
        (store.stats().stale, nearest(&store, [1.0, 0.0])),
        (2, None)
    );
    let stale = store.stale(10).expect("the disk");
    // The new model sees it the other way round.
    let turned = stale
        .into_iter()
        .map(|(id, record)| (id, vec![record.vector[1], record.vector[0]]));
    store.renew(turned.collect()).expect("the disk");
    assert_eq!(
        (store.stats().stale, nearest(&store, [1.0, 0.0])),
        (0, Some("b".into()))
    );
    drop(store);
    let store = open(directory.path(), "two");
    assert_eq!(
        (store.stats().stale, nearest(&store, [1.0, 0.0])),
        (0, Some("b".into()))
    );
}

#[test]
fn a_document_that_has_no_room_changes_nothing() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = open(directory.path(), "one");
    assert!(
        store
            .put(document("a", &[[1.0, 0.0]; 2]), 3)
            .expect("the disk")
    );
    assert!(
        !store
            .put(document("b", &[[1.0, 0.0]; 2]), 3)
            .expect("the disk")
    );
    assert_eq!(store.stats().passages, 2);
    // In its own place it has room.
    assert!(
        store
            .put(document("a", &[[0.0, 1.0]; 3]), 3)
            .expect("the disk")
    );
    assert_eq!((store.stats().passages, store.stats().documents), (3, 1));
}

#[test]
fn many_vectors_are_found_by_a_graph_also_after_a_restart() {
    use code_explainer::retrieval::index::{GRAPH_FROM, VectorIndex};
    let mut index = VectorIndex::new(2);
    let vector = |n: usize| {
        let angle = n as f32 * 0.001;
        [angle.cos(), angle.sin()]
    };
    let directory = tempfile::tempdir().expect("a directory");
    let store = open(directory.path(), "one");
    let count = GRAPH_FROM + 100;
    let vectors: Vec<[f32; 2]> = (0..count).map(vector).collect();
    assert!(
        store
            .put(document("large", &vectors), count)
            .expect("the disk")
    );
    vectors
        .iter()
        .enumerate()
        .for_each(|(n, v)| index.insert(n as u64, v));
    drop(store);
    let store = open(directory.path(), "one");
    for query in [vector(17), vector(4000), vector(8000)] {
        let near = store.search(&[Scope::SHARED], &query, 5);
        let exact = index.search_exactly(&query, 5);
        let scores = |all: Vec<f32>| {
            all.into_iter()
                .map(|s| (s * 1e5).round())
                .collect::<Vec<_>>()
        };
        assert_eq!(
            scores(near.iter().map(|(n, _)| n.score).collect()),
            scores(exact.iter().map(|n| n.score).collect())
        );
    }
}
