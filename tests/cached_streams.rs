//! The same question is answered from the cache, as the stream that it was.

use code_explainer_client::proto::{CacheLevel, ExplainRequest};

use crate::common::redis::RedisServer;
use crate::common::server::TestServer;
use crate::common::stream::{Outcome, TestStream, is_last, item};

async fn ask(server: &TestServer, wanted: ExplainRequest) -> Outcome {
    let mut stream = TestStream::open(server).await;
    let id = wanted.id.clone();
    stream.explain(wanted).await;
    stream.collect(1).await.remove(&id).expect("its outcome")
}

fn level(outcome: &Outcome) -> CacheLevel {
    let done = outcome.done.as_ref().expect("done");
    done.receipt.as_ref().expect("receipt").cache()
}

#[tokio::test]
async fn a_repeated_item_is_replayed_from_memory() {
    let (server, control) = TestServer::fake(&[]).await;
    let first = ask(&server, item("first", "x = 1")).await;
    let steps = control.steps();
    let second = ask(&server, item("second", "x = 1")).await;
    assert_eq!(level(&first), CacheLevel::Unspecified);
    assert_eq!(level(&second), CacheLevel::Memory);
    assert_eq!((second.text, second.deltas), (first.text, first.deltas));
    assert_eq!(control.steps(), steps, "the engine was not asked");
    let (first, second) = (first.done.expect("done"), second.done.expect("done"));
    assert_eq!(first.finish_reason, second.finish_reason);
    let tokens = |d: &code_explainer_client::proto::Done| {
        let usage = d.usage.expect("usage");
        (usage.prompt_tokens, usage.generated_tokens)
    };
    assert_eq!(tokens(&first), tokens(&second));
}

#[tokio::test]
async fn a_hit_takes_no_place_in_the_queue() {
    let (server, control) = TestServer::fake(&["--queue-items", "1", "--batch-size", "1"]).await;
    let first = ask(&server, item("first", "x = 1")).await;
    control.hold();
    let mut full = TestStream::open(&server).await;
    full.begin(item("running", "y = 1")).await;
    server
        .until_metric("code_explainer_running_sequences", 1.0)
        .await;
    full.begin(item("waiting", "z = 1")).await;
    let refused = ask(&server, item("refused", "w = 1")).await;
    assert!(refused.error.is_some(), "the queue is full");
    let again = ask(&server, item("again", "x = 1")).await;
    assert_eq!(again.text, first.text);
    assert_eq!(level(&again), CacheLevel::Memory);
    control.release();
    full.wait_for("running", is_last).await;
    full.wait_for("waiting", is_last).await;
}

#[tokio::test]
async fn code_in_another_layout_is_the_same_question_where_that_is_wanted() {
    let asked = async |flags: &[&str], code: &str| {
        // The first parse of a process reads the grammar's tables, which takes a busy machine part of a short text's time.
        let flags = [&["--code-cpu-time", "1m"], flags].concat();
        let (server, _) = TestServer::fake(&flags).await;
        let python = |id, code| ExplainRequest {
            language: "python".into(),
            ..item(id, code)
        };
        ask(&server, python("a", "def f(x):\n    return x + 1  # one\n")).await;
        let outcome = ask(&server, python("b", code)).await;
        let again = ask(&server, python("c", code)).await;
        assert_eq!(level(&again), CacheLevel::Memory);
        level(&outcome) == CacheLevel::Memory
    };
    let (layout, comment) = (
        "def f(x):\n  return x+1 # one",
        "def f(x):\n    return x + 1\n",
    );
    let whitespace = &["--cache-normalize", "whitespace"];
    let comments = &["--cache-normalize", "comments"];
    assert!(!asked(&[], layout).await);
    assert!(asked(whitespace, layout).await);
    assert!(!asked(whitespace, comment).await);
    assert!(asked(comments, comment).await);
    assert!(!asked(comments, "def f(x):\n    return x + 2\n").await);
}

#[tokio::test]
async fn another_question_is_another_answer() {
    let (server, _) = TestServer::fake(&[]).await;
    ask(&server, item("a", "x = 1")).await;
    let changes: [fn(&mut ExplainRequest); 6] = [
        |r| r.code = "x = 2".into(),
        |r| r.strategy = "ast_augmented".into(),
        |r| r.max_new_tokens = 15,
        |r| r.language = "ruby".into(),
        |r| r.repetition_penalty = 1.5,
        |r| r.stop = vec!["never".into()],
    ];
    for change in changes {
        let mut wanted = item("b", "x = 1");
        change(&mut wanted);
        assert_eq!(level(&ask(&server, wanted).await), CacheLevel::Unspecified);
    }
}

#[tokio::test]
async fn only_reproducible_answers_are_kept() {
    let (server, _) = TestServer::fake(&[]).await;
    let warm = |seed| ExplainRequest {
        temperature: 0.7,
        seed,
        ..item("a", "x = 1")
    };
    ask(&server, warm(None)).await;
    assert_eq!(
        level(&ask(&server, warm(None)).await),
        CacheLevel::Unspecified
    );
    ask(&server, warm(Some(5))).await;
    assert_eq!(
        level(&ask(&server, warm(Some(5))).await),
        CacheLevel::Memory
    );
    assert_eq!(
        level(&ask(&server, warm(Some(6))).await),
        CacheLevel::Unspecified
    );
}

#[tokio::test]
async fn replicas_share_answers_through_redis_and_live_without_it() {
    let mut redis = tokio::task::spawn_blocking(RedisServer::start)
        .await
        .expect("a Redis");
    let url = redis.url();
    let flags = ["--redis-url", url.as_str(), "--redis-timeout", "2s"];
    let (one, _) = TestServer::fake(&flags).await;
    let (two, control) = TestServer::fake(&flags).await;
    let first = ask(&one, item("a", "x = 1")).await;
    until_stored(&url).await;
    let second = ask(&two, item("b", "x = 1")).await;
    assert_eq!(level(&second), CacheLevel::Redis);
    assert_eq!(
        control.steps(),
        1,
        "one warm-up step, and none for the item"
    );
    assert_eq!(second.text, first.text);
    tokio::task::spawn_blocking(move || {
        redis.kill();
        redis
    })
    .await
    .expect("killed");
    let outcome = ask(&two, item("c", "another = 1")).await;
    assert!(outcome.done.is_some(), "{:?}", outcome.error);
}

/// Waits until the write, which is behind the answer, has arrived.
async fn until_stored(url: &str) {
    let client = redis::Client::open(url).expect("a URL");
    let mut connection = client
        .get_multiplexed_async_connection()
        .await
        .expect("it answers");
    let stored = async {
        while redis::cmd("DBSIZE")
            .query_async::<u64>(&mut connection)
            .await
            .expect("a size")
            == 0
        {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), stored)
        .await
        .expect("stored");
}

const PROMPTS: &str = "code_explainer_prompt_seconds_count";

/// Prompts that a server has made.
async fn prompts(server: &TestServer) -> f64 {
    server.metric(PROMPTS).await.unwrap_or(0.0)
}

#[tokio::test]
async fn an_answer_in_redis_needs_no_prompt() {
    let redis = tokio::task::spawn_blocking(RedisServer::start);
    let redis = redis.await.expect("a Redis");
    let url = redis.url();
    let flags = [
        "--redis-url",
        url.as_str(),
        "--redis-timeout",
        "20s",
        "--cache-size",
        "0",
    ];
    let (one, _) = TestServer::fake(&flags).await;
    let (two, _) = TestServer::fake(&flags).await;
    let code = "def f(x):\n    return x + 1\n";
    let first = ask(&one, item("a", code)).await;
    assert_eq!(prompts(&one).await, 1.0);
    until_stored(&url).await;
    for id in ["b", "c"] {
        let again = ask(&two, item(id, code)).await;
        assert_eq!(level(&again), CacheLevel::Redis);
        assert_eq!(again.text, first.text);
        let usage = |outcome: &Outcome| outcome.done.as_ref().expect("done").usage.expect("usage");
        assert_eq!(usage(&again).prompt_tokens, usage(&first).prompt_tokens);
    }
    assert_eq!(prompts(&two).await, 0.0);
    // Who wants to see the prompt has it made.
    let wanted = ExplainRequest {
        include_prompt: true,
        ..item("d", code)
    };
    let shown = ask(&two, wanted).await;
    assert_eq!(level(&shown), CacheLevel::Redis);
    assert!(shown.prompt.contains("return x + 1"), "{}", shown.prompt);
    assert_eq!(prompts(&two).await, 1.0);
}

#[tokio::test]
async fn those_who_ask_together_need_one_prompt() {
    let (server, control) = TestServer::fake(&["--cache-size", "0"]).await;
    control.hold();
    let mut stream = TestStream::open(&server).await;
    for id in ["a", "b", "c"] {
        stream.explain(item(id, "x = 1")).await;
    }
    server
        .until_metric("code_explainer_items_joined_total", 2.0)
        .await;
    control.release();
    let outcomes = stream.collect(3).await;
    let tokens = |id: &str| {
        outcomes[id]
            .done
            .as_ref()
            .expect("done")
            .usage
            .expect("usage")
            .prompt_tokens
    };
    assert!(tokens("a") > 0 && tokens("a") == tokens("b") && tokens("b") == tokens("c"));
    assert_eq!(prompts(&server).await, 1.0);
}
