//! How often each policy has what is asked for, beside the best that anybody could do and beside moka.

use std::collections::{BinaryHeap, HashMap};

use code_explainer_cache::{Policy, Store, StoreLimits, Terms};
use serde_json::{Value, json};

use crate::plot;
use crate::trace::{self, EXPONENT, name};

const REQUESTS: usize = 1_000_000;
const NAMES: usize = 100_000;
/// A hundredth of the names, and a tenth.
const ENTRIES: [u64; 2] = [1_000, 10_000];

/// Hit rates of one trace at one size, by who had them.
pub(crate) struct Rates {
    pub(crate) title: String,
    pub(crate) rates: Vec<(&'static str, f64)>,
}

/// Runs all, prints a table, writes a plot, and gives the numbers.
pub(crate) fn run() -> Result<Value, Box<dyn std::error::Error>> {
    let mut all = Vec::new();
    for kind in ["zipf", "scanned"] {
        let trace = trace::requests(kind, REQUESTS, NAMES);
        for entries in ENTRIES {
            all.push(Rates {
                title: format!("{kind}, {entries} entries"),
                rates: rates(&trace, entries),
            });
        }
    }
    let names = all[0].rates.iter().map(|(name, _)| *name);
    println!("\nhit rates in %, 1,000,000 requests, 100,000 names by Zipf({EXPONENT})");
    print!("{:<26}", "");
    names.for_each(|name| print!("{name:>10}"));
    println!();
    for row in &all {
        print!("{:<26}", row.title);
        row.rates
            .iter()
            .for_each(|(_, rate)| print!("{:>10.2}", rate * 100.0));
        println!();
    }
    plot::bars(&all, "target/bench/cache_hit_rates.svg")?;
    let rows = all.iter().map(|row| {
        let rates: HashMap<_, _> = row.rates.iter().copied().collect();
        let fixed = Policy::ALL.iter().filter(|p| **p != Policy::Adaptive);
        let best = fixed.map(|p| rates[p.as_str()]).fold(0.0, f64::max);
        let behind = (best - rates["adaptive"]) * 100.0;
        println!(
            "{}: adaptive is {behind:.2} points behind the best fixed policy",
            row.title
        );
        json!({ "trace": row.title, "rates": rates, "adaptive_behind_best_points": behind })
    });
    Ok(rows.collect())
}

fn rates(trace: &[u32], entries: u64) -> Vec<(&'static str, f64)> {
    let mut rates = vec![("optimum", optimum(trace, entries as usize))];
    rates.extend(Policy::ALL.map(|policy| (policy.as_str(), ours(trace, entries, policy))));
    use moka::policy::EvictionPolicy as Moka;
    rates.push(("moka lru", moka(trace, entries, Moka::lru())));
    rates.push(("moka", moka(trace, entries, Moka::tiny_lfu())));
    rates
}

/// Answers of 200 to 8,000 bytes, which live for longer than the trace.
fn ours(trace: &[u32], entries: u64, policy: Policy) -> f64 {
    let limits = StoreLimits {
        entries,
        bytes: u64::MAX,
        value_bytes: 8_000,
        policy,
    };
    let store = Store::new(&limits);
    let mut hits = 0;
    for (now, n) in (0..).zip(trace) {
        let name = name(*n);
        if store.get(&name, now).is_some() {
            hits += 1;
            continue;
        }
        let bytes = 200 + u64::from(name.0[31]) * 30;
        let terms = Terms {
            owner: 0,
            bytes,
            expires: now + 2 * REQUESTS as u64,
        };
        store.put(name, (), terms, now);
    }
    assert!(store.usage().entries <= entries, "the bound holds");
    hits as f64 / trace.len() as f64
}

fn moka(trace: &[u32], entries: u64, policy: moka::policy::EvictionPolicy) -> f64 {
    let cache = moka::sync::Cache::builder()
        .max_capacity(entries)
        .eviction_policy(policy)
        .build();
    let mut hits = 0;
    for n in trace {
        if cache.get(n).is_some() {
            hits += 1;
        } else {
            cache.insert(*n, ());
        }
    }
    hits as f64 / trace.len() as f64
}

/// Evicts what is asked for again last, which needs to know the future: L. Belady, "A Study of Replacement Algorithms for
/// a Virtual-Storage Computer", IBM Systems Journal 1966.
fn optimum(trace: &[u32], entries: usize) -> f64 {
    let mut next = vec![usize::MAX; trace.len()];
    let mut seen = HashMap::new();
    for (at, n) in trace.iter().enumerate().rev() {
        if let Some(later) = seen.insert(*n, at) {
            next[at] = later;
        }
    }
    let mut held: HashMap<u32, usize> = HashMap::new();
    let mut latest = BinaryHeap::new();
    let mut hits = 0;
    for (at, n) in trace.iter().enumerate() {
        if held.contains_key(n) {
            hits += 1;
        } else if held.len() == entries {
            // What was used since it was pushed is there again with a later time: the old one is stale.
            while let Some((when, victim)) = latest.pop() {
                if held.get(&victim) == Some(&when) {
                    held.remove(&victim);
                    break;
                }
            }
        }
        held.insert(*n, next[at]);
        latest.push((next[at], *n));
    }
    hits as f64 / trace.len() as f64
}
