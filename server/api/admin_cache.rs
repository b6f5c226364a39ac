//! The caches, as `AdminService` tells of them.

use std::time::Duration;

use code_explainer_cache::{Cause, Level, LevelStats, MemoryState};

use crate::api::Shared;
use crate::explain::Explainer;
use crate::proto::{CacheEvictions, CacheLevelStats, CacheStore, GetCacheStatsResponse};

/// All levels that there are.
pub(super) async fn stats(shared: &Shared) -> GetCacheStatsResponse {
    let cache = &shared.cache;
    let state = cache.memory();
    let memory = cache.level(Level::Memory).zip(state);
    let mut redis = (cache.level(Level::Redis)).map(|stats| level(CacheStore::Redis, &stats));
    if let Some(level) = &mut redis {
        // It does not say when what left it left.
        level.evictions_per_second = None;
    }
    // A Redis that does not answer is told by its errors.
    if let (Some(level), Some(Ok(usage))) = (&mut redis, cache.remote_usage().await) {
        level.entries = Some(usage.keys);
        level.bytes = Some(usage.used_bytes);
        level.max_bytes = (usage.max_bytes > 0).then_some(usage.max_bytes);
        level.evictions = vec![
            left(Cause::Bytes, usage.evicted),
            left(Cause::Expired, usage.expired),
        ];
    }
    let prefix = shared.status.loaded().map(|e| prefix(e, shared));
    let levels = [
        memory.map(|(stats, state)| in_memory(&stats, &state)),
        redis,
        prefix,
        embeddings(shared),
    ];
    let name = |of: fn(MemoryState) -> code_explainer_cache::Policy| {
        state.map(|s| of(s).as_str().to_owned()).unwrap_or_default()
    };
    GetCacheStatsResponse {
        levels: levels.into_iter().flatten().collect(),
        policy: name(|state| state.policy),
        policy_in_force: name(|state| state.in_force),
    }
}

fn in_memory(stats: &LevelStats, state: &MemoryState) -> CacheLevelStats {
    CacheLevelStats {
        entries: Some(state.usage.entries),
        bytes: Some(state.usage.bytes),
        max_entries: Some(state.max_entries),
        max_bytes: Some(state.max_bytes),
        evictions: evictions(&state.usage.evictions),
        ..level(CacheStore::Memory, stats)
    }
}

fn level(store: CacheStore, stats: &LevelStats) -> CacheLevelStats {
    CacheLevelStats {
        store: store.into(),
        hits: stats.hits,
        misses: stats.misses,
        hit_rate: stats.hit_rate(),
        mean_access_us: stats.times.map(|times| microseconds(times.mean)),
        p99_access_us: stats.times.map(|times| microseconds(times.p99)),
        lookups_per_second: Some(stats.rates.lookups),
        evictions_per_second: Some(stats.rates.evictions),
        errors: stats.errors,
        ..CacheLevelStats::default()
    }
}

/// By cause, in the order of [`Cause::ALL`].
pub(super) fn evictions(counts: &[u64]) -> Vec<CacheEvictions> {
    let causes = Cause::ALL.iter().zip(counts);
    causes.map(|(cause, count)| left(*cause, *count)).collect()
}

fn left(cause: Cause, count: u64) -> CacheEvictions {
    CacheEvictions {
        cause: cause.as_str().into(),
        count,
    }
}

/// For a person's eyes, in statistics.
pub(super) fn microseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

/// There once the embedding model is loaded, unless its cache is off.
fn embeddings(shared: &Shared) -> Option<CacheLevelStats> {
    let did = shared.embedder.cache_stats();
    let stats = LevelStats {
        hits: did.hits,
        misses: did.misses,
        times: did.times,
        rates: did.rates,
        errors: did.broken + did.dropped,
    };
    did.enabled.then(|| CacheLevelStats {
        entries: Some(did.entries),
        bytes: Some(did.bytes),
        max_entries: Some(did.max_entries),
        evictions: vec![left(Cause::Entries, did.evictions)],
        ..level(CacheStore::Embeddings, &stats)
    })
}

/// Looked up by the engine's thread as it plans a step, in no time that could be told.
fn prefix(explainer: &Explainer, shared: &Shared) -> CacheLevelStats {
    let (totals, gauges) = (shared.metrics.step_totals(), explainer.scheduler.gauges());
    let blocks = gauges.blocks_total() as u64;
    let pool = explainer.model.kv_pool_bytes;
    let kept = gauges.blocks_idle() as u64;
    let stats = LevelStats {
        hits: totals.cached_tokens,
        misses: totals.prefill_tokens,
        ..LevelStats::default()
    };
    CacheLevelStats {
        entries: Some(kept),
        bytes: Some(pool.checked_div(blocks).unwrap_or(0) * kept),
        max_entries: Some(blocks),
        max_bytes: Some(pool),
        evictions: vec![left(Cause::Entries, gauges.blocks_evicted() as u64)],
        lookups_per_second: None,
        evictions_per_second: None,
        ..level(CacheStore::PrefixKv, &stats)
    }
}
