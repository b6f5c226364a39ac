//! Look-ups of the memory cache, the policy's update included, beside moka: `cargo bench --bench cache_lookups`.
//!
//! 100,000 entries, one thread; each iteration looks up one name that is there. `uniform` takes every name as often as any
//! other, which is the worst for the processor's caches; `zipf` takes them as requests do. The store's clock is an
//! argument: `lru_with_clock` reads the system's for each look-up, as the server does and as moka does.

#![allow(missing_docs, reason = "criterion's macros define undocumented items")]

#[path = "cache/trace.rs"]
mod trace;

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use code_explainer_cache::{Name, Policy, Store, StoreLimits, Terms};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use trace::name;

const ENTRIES: u64 = 100_000;
/// A power of two, so that going round costs nothing.
const LOOKUPS: usize = 1 << 20;

/// About what a pointer to an answer is.
type Value = Arc<[u8; 64]>;
type Order = Vec<Name>;

fn lookups(c: &mut Criterion) {
    for kind in ["uniform", "zipf"] {
        let trace = trace::requests(kind, LOOKUPS, ENTRIES as usize);
        let names: Order = trace.iter().map(|n| name(*n)).collect();
        let mut group = c.benchmark_group(format!("cache_lookups/{kind}"));
        group.throughput(Throughput::Elements(1));
        group.warm_up_time(Duration::from_secs(1));
        group.measurement_time(Duration::from_secs(3));
        for policy in Policy::ALL {
            let store = store(policy);
            let get = |name: &Name| store.get(name, 0).is_some();
            group.bench_function(policy.as_str(), |b| round(b, &names, get));
        }
        let (lru, epoch) = (store(Policy::Lru), Instant::now());
        let get = |name: &Name| lru.get(name, epoch.elapsed().as_nanos() as u64).is_some();
        group.bench_function("lru_with_clock", |b| round(b, &names, get));

        let moka: moka::sync::Cache<Name, Value, Passed> = moka::sync::Cache::builder()
            .max_capacity(ENTRIES + ENTRIES / 5)
            .eviction_policy(moka::policy::EvictionPolicy::lru())
            .time_to_live(Duration::from_secs(3600))
            .build_with_hasher(Passed::default());
        (0..ENTRIES).for_each(|n| moka.insert(name(n as u32), Arc::new([0; 64])));
        moka.run_pending_tasks();
        let get = |name: &Name| moka.get(name).is_some();
        group.bench_function("moka", |b| round(b, &names, get));
        group.finish();
    }
}

/// With some room to spare: shards are never quite even.
fn store(policy: Policy) -> Store<Value> {
    let store = Store::new(&StoreLimits {
        entries: ENTRIES + ENTRIES / 5,
        bytes: u64::MAX,
        value_bytes: 1,
        policy,
    });
    let terms = Terms {
        owner: 0,
        bytes: 64,
        expires: u64::MAX,
    };
    for n in 0..ENTRIES {
        assert!(store.put(name(n as u32), Arc::new([0; 64]), terms, 0));
    }
    assert_eq!(store.usage().entries, ENTRIES);
    store
}

fn round(b: &mut criterion::Bencher<'_>, names: &[Name], get: impl Fn(&Name) -> bool) {
    let mut at = 0;
    b.iter(|| {
        at = (at + 1) & (LOOKUPS - 1);
        assert!(black_box(get(&names[at])), "every name is there");
    });
}

/// A hash that takes the first bytes of a name for its hash, which they are.
#[derive(Debug, Default, Clone)]
struct Passing(u64);

/// Makes them.
type Passed = std::hash::BuildHasherDefault<Passing>;

impl std::hash::Hasher for Passing {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        if let Some(first) = bytes.first_chunk() {
            self.0 = u64::from_le_bytes(*first);
        }
    }
}

criterion_group!(benches, lookups);
criterion_main!(benches);
