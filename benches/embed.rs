//! Embeddings a second by batch, what a hit of the cache costs, and the recall of the index against an exact search; beside
//! transformers, where `make reference` has installed it. Writes `target/bench/embed.json`.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use code_explainer::embed::{CacheLimits, Embedding, TextTokenizer, VectorCache, VectorKey};
use code_explainer::retrieval::index::{GraphBuild, VectorIndex};
use code_explainer_engine::{DeviceSpec, Encoder};
use code_explainer_engine_torch::load_encoder;
use code_explainer_weights::EncoderCheckpoint;
use serde_json::{Value, json};

const BATCHES: [usize; 4] = [1, 8, 32, 64];
const TOKENS: usize = 64;
const ENOUGH: Duration = Duration::from_secs(4);
const DIMENSIONS: usize = 384;

fn main() {
    let model = std::env::var_os("CODE_EXPLAINER_EMBEDDING_MODEL")
        .map_or_else(|| PathBuf::from("models/all-MiniLM-L6-v2"), PathBuf::from);
    let reference = reference(&model);
    let ours = throughput(&model);
    println!(
        "\n{:>6} {:>12} {:>14} {:>7}   texts of {TOKENS} tokens a second",
        "batch", "ours", "transformers", "ratio"
    );
    let mut rows = Vec::new();
    for (batch, rate) in BATCHES.into_iter().zip(&ours) {
        let theirs = reference
            .as_ref()
            .and_then(|r| r[batch.to_string()].as_f64());
        let shown = theirs.map_or("-".into(), |r| format!("{r:.1}"));
        let ratio = theirs.map_or("-".into(), |r| format!("{:.2}", rate / r));
        println!("{batch:>6} {rate:>12.1} {shown:>14} {ratio:>7}");
        rows.push(json!({"batch": batch, "ours": rate, "transformers": theirs}));
    }
    let cache = cache();
    let index = index();
    let result = json!({"tokens": TOKENS, "throughput": rows, "cache": cache, "index": index});
    let place = Path::new("target/bench");
    std::fs::create_dir_all(place).expect("target/bench");
    let text = serde_json::to_string_pretty(&result).expect("JSON");
    std::fs::write(place.join("embed.json"), text + "\n").expect("written");
    println!("\ntarget/bench/embed.json");
}

fn throughput(model: &Path) -> Vec<f64> {
    let checkpoint =
        EncoderCheckpoint::open(model).unwrap_or_else(|e| panic!("{e} (`make setup` gets it)"));
    let tokenizer = TextTokenizer::open(model, checkpoint.config()).expect("its tokenizer");
    let mut encoder = load_encoder(&checkpoint, DeviceSpec::Cpu).expect("its weights");
    let text = "the queue holds items until an engine has room ".repeat(TOKENS);
    let tokens = &tokenizer.encode(&text).expect("tokens").tokens[..TOKENS];
    let mut rate = |batch: usize| {
        let texts = vec![tokens; batch];
        encoder.encode(&texts).expect("warm");
        let (mut count, start) = (0, Instant::now());
        while start.elapsed() < ENOUGH {
            encoder.encode(&texts).expect("vectors");
            count += batch;
        }
        count as f64 / start.elapsed().as_secs_f64()
    };
    BATCHES.into_iter().map(&mut rate).collect()
}

/// What transformers does, in the environment that `make reference` makes.
fn reference(model: &Path) -> Option<Value> {
    let own = std::env::var_os("CODE_EXPLAINER_REFERENCE_PYTHON").map(PathBuf::from);
    let python = own.unwrap_or_else(|| PathBuf::from(".venv-reference/bin/python"));
    if !python.exists() {
        println!(
            "no {}: `make reference` makes it; without transformers beside",
            python.display()
        );
        return None;
    }
    let output = Command::new(python)
        .arg("benches/peers/embed.py")
        .arg(model)
        .args([TOKENS.to_string(), ENOUGH.as_secs().to_string()])
        .args(BATCHES.map(|batch| batch.to_string()))
        .output()
        .expect("python runs");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let last = String::from_utf8_lossy(&output.stdout);
    Some(serde_json::from_str(last.trim()).expect("JSON"))
}

/// Deterministic numbers of about -1 to 1.
fn random(state: &mut u64) -> f32 {
    *state = state
        .wrapping_mul(6_364_136_223_846_793_005)
        .wrapping_add(1_442_695_040_888_963_407);
    (*state >> 40) as f32 / (1 << 23) as f32 - 1.0
}

fn unit(mut vector: Vec<f32>) -> Vec<f32> {
    let length = vector.iter().map(|x| x * x).sum::<f32>().sqrt().max(1e-9);
    vector.iter_mut().for_each(|x| *x /= length);
    vector
}

fn cache() -> Value {
    const ENTRIES: u64 = 20_000;
    let directory = tempfile::tempdir().expect("a directory");
    let limits = CacheLimits {
        entries: ENTRIES,
        bytes: 1 << 30,
    };
    let cache =
        VectorCache::open(Some(directory.path()), "model", DIMENSIONS, limits).expect("a cache");
    let key = |n: u64| VectorKey::new(b"salt", "model", &n.to_string());
    let mut state = 1;
    let start = Instant::now();
    for n in 0..ENTRIES {
        let values = (0..DIMENSIONS).map(|_| random(&mut state)).collect();
        cache.put(
            key(n),
            &Embedding {
                values,
                tokens: 9,
                truncated: false,
                cached: true,
            },
        );
        if n % 4096 == 0 {
            cache.flush();
        }
    }
    cache.flush();
    let write = ENTRIES as f64 / start.elapsed().as_secs_f64();
    assert_eq!(cache.stats().dropped, 0);
    let (mut hits, start) = (0_u64, Instant::now());
    let mut times = Vec::new();
    while start.elapsed() < ENOUGH {
        let wanted = [key(hits * 7919 % ENTRIES)];
        let one = Instant::now();
        assert!(cache.get(&wanted)[0].is_some());
        times.push(one.elapsed().as_nanos() as u64);
        hits += 1;
    }
    times.sort_unstable();
    let at = |share: f64| times[(times.len() as f64 * share) as usize] as f64 / 1e3;
    let (p50, p99) = (at(0.5), at(0.99));
    println!(
        "\ncache of {ENTRIES}: a hit {p50:.1} us (p99 {p99:.1} us), {write:.0} synced writes a second"
    );
    json!({"entries": ENTRIES, "hit_p50_us": p50, "hit_p99_us": p99, "synced_writes_per_second": write})
}

/// Clusters, as vectors of real texts have them.
fn index() -> Value {
    let mut text = format!(
        "\n{:>8} {:>11} {:>11} {:>9} {:>10}\n",
        "vectors", "exact ms", "graph ms", "recall@10", "build s"
    );
    let mut rows = Vec::new();
    for count in [1_000_usize, 10_000, 50_000] {
        let mut state = count as u64;
        let centres: Vec<Vec<f32>> = (0..count / 50 + 1)
            .map(|_| unit((0..DIMENSIONS).map(|_| random(&mut state)).collect()))
            .collect();
        let near = |centre: usize, state: &mut u64| {
            let centre = &centres[centre % centres.len()];
            unit(centre.iter().map(|x| x + 0.06 * random(state)).collect())
        };
        let mut index = VectorIndex::new(DIMENSIONS);
        for id in 0..count {
            let vector = near(id * 31, &mut state);
            index.insert(id as u64, &vector);
        }
        let queries: Vec<Vec<f32>> = (0..200).map(|n| near(n * 17, &mut state)).collect();
        let start = Instant::now();
        let exact: Vec<_> = queries
            .iter()
            .map(|q| index.search_exactly(q, 10))
            .collect();
        let exact_ms = start.elapsed().as_secs_f64() * 1e3 / queries.len() as f64;
        let (ids, vectors) = index.snapshot();
        let start = Instant::now();
        index
            .adopt(GraphBuild::new(ids, &vectors, DIMENSIONS).expect("a graph"))
            .expect("adopted");
        let build = start.elapsed().as_secs_f64();
        let start = Instant::now();
        let graph: Vec<_> = queries.iter().map(|q| index.search(q, 10)).collect();
        let graph_ms = start.elapsed().as_secs_f64() * 1e3 / queries.len() as f64;
        let common: usize = exact
            .iter()
            .zip(&graph)
            .map(|(a, b)| a.iter().filter(|n| b.iter().any(|m| m.id == n.id)).count())
            .sum();
        let recall = common as f64 / (10 * queries.len()) as f64;
        let _ = writeln!(
            text,
            "{count:>8} {exact_ms:>11.3} {graph_ms:>11.3} {recall:>9.4} {build:>10.2}"
        );
        rows.push(json!({"vectors": count, "exact_ms": exact_ms, "graph_ms": graph_ms, "recall_at_10": recall, "build_s": build}));
    }
    print!("{text}");
    Value::Array(rows)
}
