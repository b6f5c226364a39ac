//! The caches as those who run the server see, clear and warm them.

use std::time::Duration;

use code_explainer_client::proto::admin_service_client::AdminServiceClient;
use code_explainer_client::proto::{
    CacheLevelStats, CacheStore, ClearCacheRequest, EmbedRequest, ExplainRequest,
    GetCacheStatsRequest, WarmCacheRequest, WarmOutcome,
};
use tonic::Code;
use tonic::transport::Channel;

use crate::common::minilm;
use crate::common::redis::RedisServer;
use crate::common::server::TestServer;
use crate::common::stream::{TestStream, item};

type Admin = AdminServiceClient<Channel>;

async fn admin(server: &TestServer) -> Admin {
    AdminServiceClient::new(server.channel().await)
}

async fn level(admin: &mut Admin, store: CacheStore) -> Option<CacheLevelStats> {
    let stats = admin.get_cache_stats(GetCacheStatsRequest {}).await;
    let levels = stats.expect("statistics").into_inner().levels;
    levels.into_iter().find(|level| level.store() == store)
}

/// What left, by cause.
fn evicted(level: &CacheLevelStats) -> Vec<(&str, u64)> {
    let causes = level.evictions.iter();
    causes.map(|e| (e.cause.as_str(), e.count)).collect()
}

async fn ask(server: &TestServer, items: Vec<ExplainRequest>) {
    let mut stream = TestStream::open(server).await;
    for item in items {
        let id = item.id.clone();
        stream.explain(item).await;
        assert!(stream.collect(1).await[&id].done.is_some(), "{id}");
    }
}

fn of(id: &str, language: &str, strategy: &str) -> ExplainRequest {
    ExplainRequest {
        language: language.into(),
        strategy: strategy.into(),
        ..item(id, "x = 1")
    }
}

#[tokio::test]
async fn statistics_tell_what_each_level_did() {
    let flags = ["--cache-size", "2", "--cache-policy", "fifo"];
    let (server, _) = TestServer::fake(&flags).await;
    let mut admin = admin(&server).await;
    let asked = ["a = 1", "b = 1", "a = 1", "c = 1", "d = 1"];
    ask(&server, asked.map(|code| item("i", code)).into()).await;
    let memory = level(&mut admin, CacheStore::Memory).await.expect("it");
    assert_eq!((memory.entries, memory.max_entries), (Some(2), Some(2)));
    assert_eq!((memory.hits, memory.misses), (1, 4));
    assert!((memory.hit_rate - 0.2).abs() < 1e-9);
    assert!(memory.bytes > Some(0) && memory.bytes < memory.max_bytes);
    assert!(memory.mean_access_us > Some(0.0) && memory.p99_access_us > Some(0.0));
    assert!(memory.lookups_per_second > Some(0.0) && memory.evictions_per_second > Some(0.0));
    let left = |cause: &str| {
        memory
            .evictions
            .iter()
            .find(|e| e.cause == cause)
            .map(|e| e.count)
    };
    assert_eq!((left("entries"), left("cleared")), (Some(2), Some(0)));
    let prefix = level(&mut admin, CacheStore::PrefixKv).await.expect("it");
    assert!(prefix.hits > 0, "all prompts begin alike: {prefix:?}");
    assert_eq!(prefix.max_entries, Some(512));
    assert_eq!(evicted(&prefix), [("entries", 0)]);
    assert!(level(&mut admin, CacheStore::Redis).await.is_none());
    let evicted = "code_explainer_cache_evictions_total{cause=\"entries\"}";
    assert_eq!(server.metric(evicted).await, Some(2.0));
    assert_eq!(
        server
            .metric("code_explainer_cache_policy{policy=\"fifo\"}")
            .await,
        Some(1.0)
    );
}

#[tokio::test]
async fn embeddings_are_a_level() {
    let model = minilm::flags();
    let model: Vec<&str> = model.iter().map(String::as_str).collect();
    let (server, _) = TestServer::fake(&model).await;
    for _ in 0..2 {
        let texts = ["one", "two"].map(str::to_owned).into();
        let answer = server.client().await.embed(EmbedRequest { texts }).await;
        answer.expect("vectors");
        (server.until_metric("code_explainer_embedding_cache_entries", 2.0)).await;
    }
    let vectors = level(&mut admin(&server).await, CacheStore::Embeddings).await;
    let vectors = vectors.expect("it");
    assert_eq!((vectors.hits, vectors.misses), (2, 2));
    assert_eq!(vectors.entries, Some(2));
    assert!(vectors.max_entries > Some(2) && vectors.bytes > Some(2 * 4 * 384));
    assert!(vectors.mean_access_us > Some(0.0) && vectors.lookups_per_second > Some(0.0));
    assert_eq!(evicted(&vectors), [("entries", 0)]);
}

#[tokio::test]
async fn redis_is_a_level_that_is_told_and_cleared() {
    let redis = tokio::task::spawn_blocking(RedisServer::start).await;
    let redis = redis.expect("a Redis");
    let url = redis.url();
    let flags = ["--redis-url", &url, "--redis-timeout", "2s"];
    let (server, _) = TestServer::fake(&flags).await;
    let mut admin = admin(&server).await;
    let stored = ["x = 1", "y = 1"].map(|code| item("i", code));
    ask(&server, stored.into()).await;
    // The writes are behind the answers.
    let cleared = async {
        let mut cleared = 0;
        while cleared < 2 {
            let request = ClearCacheRequest {
                stores: vec![CacheStore::Redis.into()],
                strategy: "van*".into(),
                ..ClearCacheRequest::default()
            };
            let levels = admin.clear_cache(request).await.expect("cleared");
            let levels = levels.into_inner().levels;
            assert_eq!((levels.len(), levels[0].store()), (1, CacheStore::Redis));
            assert_eq!(levels[0].error, "");
            cleared += levels[0].entries;
        }
        cleared
    };
    let cleared = tokio::time::timeout(Duration::from_secs(60), cleared).await;
    assert_eq!(cleared.expect("both were stored"), 2);
    // Keys that Redis itself lets go of: two that do not fit beside each other, and one whose time is up.
    let mut raw = redis.connection().await;
    let mut command = async |command: &[&str]| {
        let mut redis = redis::cmd(command[0]);
        redis.arg(&command[1..]);
        redis.query_async::<redis::Value>(&mut raw).await
    };
    for set in ["a", "b"] {
        command(&["SET", set, "x"]).await.expect("SET");
    }
    command(&["SET", "c", "x", "PX", "1"]).await.expect("SET");
    let gone = async { while command(&["EXISTS", "c"]).await != Ok(redis::Value::Int(0)) {} };
    let gone = tokio::time::timeout(Duration::from_secs(60), gone).await;
    gone.expect("its time is up");
    redis.set("maxmemory-policy", "allkeys-lru").await;
    redis.set("maxmemory", "1").await;
    // There is not room for one key.
    command(&["SET", "d", "x"])
        .await
        .expect_err("out of memory");
    let level = level(&mut admin, CacheStore::Redis).await.expect("it");
    // What answers left behind may be among them.
    let [("bytes", evicted), ("expired", expired)] = evicted(&level)[..] else {
        panic!("{level:?}");
    };
    assert!(evicted >= 2 && expired >= 1, "{level:?}");
    assert_eq!((level.hits, level.misses, level.errors), (0, 2, 0));
    assert!(level.mean_access_us > Some(0.0) && level.bytes > Some(0));
}

#[tokio::test]
async fn what_is_cleared_is_what_was_named() {
    let (server, _) = TestServer::fake(&[]).await;
    let mut admin = admin(&server).await;
    let mut clear = async |request: ClearCacheRequest| {
        let cleared = admin.clear_cache(request).await?.into_inner().levels;
        assert!(
            cleared.iter().all(|level| level.error.is_empty()),
            "{cleared:?}"
        );
        Ok::<_, tonic::Status>(cleared.iter().map(|level| level.entries).sum::<u64>())
    };
    let all = || ["c", "c++", "python"].map(|l| of(l, l, "vanilla")).into();
    ask(&server, all()).await;
    ask(&server, vec![of("o", "python", "ast_augmented")]).await;
    let language = |pattern: &str| ClearCacheRequest {
        language: pattern.into(),
        ..ClearCacheRequest::default()
    };
    assert_eq!(clear(language("c*")).await.expect("cleared"), 2);
    assert_eq!(clear(language("c")).await.expect("cleared"), 0);
    let strategy = ClearCacheRequest {
        strategy: "ast*".into(),
        ..ClearCacheRequest::default()
    };
    assert_eq!(clear(strategy).await.expect("cleared"), 1);
    let tenant = |name: &str| ClearCacheRequest {
        tenant: Some(name.into()),
        ..ClearCacheRequest::default()
    };
    assert_eq!(clear(tenant("somebody")).await.expect("cleared"), 0);
    assert_eq!(clear(tenant("")).await.expect("cleared"), 1);
    ask(&server, all()).await;
    assert_eq!(
        clear(ClearCacheRequest::default()).await.expect("cleared"),
        3
    );

    let kv = ClearCacheRequest {
        stores: vec![CacheStore::PrefixKv.into()],
        ..ClearCacheRequest::default()
    };
    let refused = clear(kv).await.expect_err("it cannot be cleared");
    assert_eq!(refused.code(), Code::InvalidArgument);
    let refused = clear(language("q?*z"))
        .await
        .expect_err("no name is like that");
    assert_eq!(refused.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn a_warm_cache_answers_at_once() {
    let (server, control) = TestServer::fake(&["--stream-items", "2"]).await;
    let mut admin = admin(&server).await;
    let unseeded = ExplainRequest {
        temperature: 0.7,
        ..item("warm", "y = 2")
    };
    let bad = ExplainRequest {
        strategy: "none".into(),
        ..item("bad", "x")
    };
    let mut items: Vec<_> = (0..5)
        .map(|n| item(&format!("{n}"), &format!("x = {n}")))
        .collect();
    items.extend([unseeded, bad]);
    let warm = async |admin: &mut Admin, items: Vec<ExplainRequest>| {
        let requests = items
            .into_iter()
            .map(|item| WarmCacheRequest { item: Some(item) });
        let progress = admin.warm_cache(tokio_stream::iter(requests)).await;
        let mut progress = progress.expect("a stream").into_inner();
        let mut ended = Vec::new();
        while let Some(step) = progress.message().await.expect("progress") {
            assert_eq!(step.done, ended.len() as u64 + 1);
            assert!(step.received >= step.done);
            ended.push((step.id.clone(), step.outcome()));
        }
        ended.sort();
        ended
    };
    let ended = warm(&mut admin, items).await;
    let is = |id: &str| {
        ended
            .iter()
            .find(|(of, _)| of == id)
            .map(|(_, outcome)| *outcome)
    };
    assert_eq!(ended.len(), 7);
    assert_eq!(is("4"), Some(WarmOutcome::Warmed));
    assert_eq!(is("warm"), Some(WarmOutcome::NotCacheable));
    assert_eq!(is("bad"), Some(WarmOutcome::Failed));
    let again = warm(&mut admin, vec![item("again", "x = 4")]).await;
    assert_eq!(again, [("again".to_owned(), WarmOutcome::Present)]);
    let steps = control.steps();
    ask(&server, vec![item("later", "x = 3")]).await;
    assert_eq!(control.steps(), steps, "the engine was not asked");
}
