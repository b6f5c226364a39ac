//! The explanation cache: hits over gRPC, and the hit rates of its policies. `make bench-cache` runs it after `cache_lookups`.
//!
//! Prints tables and writes `target/bench/cache.json` and `target/bench/cache_hit_rates.svg`.

mod hit_rates;
mod plot;
mod served;
mod trace;

use std::error::Error;
use std::path::Path;

use serde_json::{Value, json};

fn main() -> Result<(), Box<dyn Error>> {
    // Cargo runs benchmarks in the package's directory.
    std::fs::create_dir_all("target/bench")?;
    let lookups = lookups()?;
    let served = served::run_all()?;
    let hit_rates = hit_rates::run()?;
    let report = json!({ "lookups": lookups, "served": served, "hit_rates": hit_rates });
    std::fs::write(
        "target/bench/cache.json",
        serde_json::to_string_pretty(&report)?,
    )?;
    Ok(())
}

/// What `cache_lookups` has measured, in millions a second, and against moka.
fn lookups() -> Result<Value, Box<dyn Error>> {
    let mut found = serde_json::Map::new();
    for kind in ["uniform", "zipf"] {
        let group = format!("target/criterion/cache_lookups_{kind}");
        let Ok(entries) = Path::new(&group).read_dir() else {
            println!("no look-ups ({kind}): run `cargo bench --bench cache_lookups` first");
            continue;
        };
        let mut rates = std::collections::BTreeMap::new();
        for entry in entries {
            let path = entry?.path();
            let Ok(text) = std::fs::read_to_string(path.join("new/estimates.json")) else {
                continue;
            };
            let estimates: Value = serde_json::from_str(&text)?;
            let nanoseconds = estimates["slope"]["point_estimate"]
                .as_f64()
                .or(estimates["mean"]["point_estimate"].as_f64())
                .ok_or("criterion's estimates have no slope and no mean")?;
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            rates.insert(name.into_owned(), 1e3 / nanoseconds);
        }
        let moka = rates.get("moka").copied().unwrap_or(f64::NAN);
        println!("\nlook-ups ({kind}), millions a second, and times moka");
        for (name, rate) in &rates {
            println!("{name:<16}{rate:>8.2}{:>8.2}", rate / moka);
        }
        found.insert(kind.into(), json!(rates));
    }
    Ok(found.into())
}
