//! The native engine against the machine's limits: `make bench-engine`. Prints tables, writes `target/bench/engine.json`.
//!
//! Everything is measured in one run: limits before and after, steps of all precisions in turns, medians. Steps are the
//! engine's alone; items go through the scheduler and share the beginnings of their prompts, as a server's do.

mod items;
mod limits;
mod memory;
mod snippets;
mod speculation;
mod steps;

use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;

use code_explainer::config::Command;
use code_explainer_engine::Precision;
use code_explainer_scheduler::SchedulerOptions;
use code_explainer_text::Text;
use code_explainer_weights::Checkpoint;
use serde_json::{Map, Value, json};

use items::{Answers, Server};
use limits::{Limits, Meter};
use snippets::Task;
use steps::{Engine, Shape, median};

const PRECISIONS: [Precision; 3] = [Precision::Fp32, Precision::Int8, Precision::Int4];
const DECODES: [usize; 6] = [1, 2, 4, 8, 16, 32];
const PREFILLS: [usize; 3] = [64, 256, 512];
const ROUNDS: usize = 15;
/// Shapes whose steps are taken apart.
const PROFILED: [(&str, Shape); 3] = [
    ("decode of 1", Shape::decode(1)),
    ("decode of 32", Shape::decode(32)),
    ("prefill of 256", Shape::prefill(256)),
];
/// Snippets that are explained at once and one by one.
const SNIPPETS: usize = 32;
const GIB: f64 = 1e9;

fn main() -> Result<(), Box<dyn Error>> {
    let checkpoint = Arc::new(Checkpoint::open(&model_path())?);
    let arguments: Vec<String> = std::env::args().collect();
    if let Some(at) = arguments.iter().position(|a| a == memory::FLAG) {
        let precision = arguments.get(at + 1).ok_or("a precision is missing")?;
        println!("{}", memory::report(&checkpoint, precision.parse()?)?);
        return Ok(());
    }
    if let Some(at) = arguments.iter().position(|a| a == steps::FLAG) {
        let precision = arguments.get(at + 1).ok_or("a precision is missing")?;
        return steps::fastest(&checkpoint, precision.parse()?);
    }
    let text = Text::from_checkpoint(&checkpoint)?;
    let args = ["server", "serve"].map(std::ffi::OsString::from);
    let Command::Serve(config) = Command::from_args(args)? else {
        return Err("it is asked to serve".into());
    };
    let speculation = speculation::Comparison {
        checkpoint: &checkpoint,
        text: &text,
        scheduler: &config.scheduler,
    };
    if let Some(at) = arguments.iter().position(|a| a == speculation::FLAG) {
        let precision = arguments.get(at + 1).ok_or("a precision is missing")?;
        speculation.of(precision.parse()?, 3)?;
        return Ok(());
    }
    let memory = memories()?;
    let meter = Meter::new()?;
    let before = meter.measure();
    let mut report = Map::new();
    let steps = measure_steps(&checkpoint)?;
    let limits = before.max(meter.measure());
    report.insert("limits".into(), print_limits(&meter, limits));
    report.insert("steps".into(), steps.print(&checkpoint, limits));
    report.insert("memory".into(), memory);
    drop((meter, steps));
    let prompts = snippets::prompts(&text, SNIPPETS, Task::Explain)?;
    let bench = Bench {
        checkpoint: &checkpoint,
        prompts: &prompts,
        scheduler: &config.scheduler,
    };
    report.insert("batch_efficiency".into(), bench.batch_efficiency()?);
    report.insert("speculation".into(), speculation.all()?);
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/bench");
    std::fs::create_dir_all(&directory)?;
    let path = directory.join("engine.json");
    std::fs::write(&path, serde_json::to_string_pretty(&report)?)?;
    println!("\nwritten to {}", path.display());
    Ok(())
}

fn model_path() -> PathBuf {
    let path = "models/SmolLM2-135M-Instruct.Q4_1.gguf";
    let default = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path);
    std::env::var_os("CODE_EXPLAINER_MODEL").map_or_else(default, PathBuf::from)
}

fn memories() -> Result<Value, Box<dyn Error>> {
    println!(
        "memory of a process, MiB     weights   of fp32   KV pool  resident      peak      more"
    );
    let mut all = Map::new();
    let mut fp32 = 0.0;
    for precision in PRECISIONS {
        let mut row = memory::of(precision)?;
        let mib = |name: &str| row[name].as_f64().unwrap_or_default();
        let (weights, pool) = (mib("weights_mib"), mib("kv_pool_mib"));
        if precision == Precision::Fp32 {
            fp32 = weights;
        }
        // What is neither: activations, the tokenizer's and the allocator's, and the file's pages that were read.
        let more = mib("anonymous_mib") - weights - pool;
        println!(
            "{:<26}{weights:>10.1}{:>9.1}%{pool:>10.1}{:>10.1}{:>10.1}{more:>10.1}",
            precision.as_str(),
            100.0 * weights / fp32,
            mib("resident_mib"),
            mib("peak_mib"),
        );
        row["weights_ratio_to_fp32"] = json!(weights / fp32);
        all.insert(precision.to_string(), row);
    }
    Ok(all.into())
}

/// All precisions' times, taken in turns.
struct Steps {
    engines: Vec<Engine>,
    shapes: Vec<Shape>,
    /// By engine and shape, in seconds.
    times: Vec<Vec<f64>>,
    /// By engine and entry of [`PROFILED`].
    profiles: Vec<Vec<Vec<(&'static str, f64)>>>,
}

fn measure_steps(checkpoint: &Checkpoint) -> Result<Steps, Box<dyn Error>> {
    let load = |precision| Engine::load(checkpoint, precision);
    let mut engines: Vec<Engine> = PRECISIONS.into_iter().map(load).collect::<Result<_, _>>()?;
    let prefills = PREFILLS.map(Shape::prefill);
    let shapes: Vec<Shape> = DECODES
        .map(Shape::decode)
        .into_iter()
        .chain(prefills)
        .collect();
    let mut samples = vec![vec![Vec::new(); shapes.len()]; engines.len()];
    for round in 0..=ROUNDS {
        for (engine, samples) in engines.iter_mut().zip(&mut samples) {
            for (shape, samples) in shapes.iter().zip(samples) {
                // The first step of a shape after another engine's finds the caches full of that one's.
                engine.step(*shape)?;
                let time = engine.step(*shape)?.as_secs_f64();
                if round > 0 {
                    samples.push(time);
                }
            }
        }
    }
    let of_engine = |shapes: Vec<Vec<f64>>| shapes.into_iter().map(median).collect();
    let times = samples.into_iter().map(of_engine).collect();
    let mut profile = |engine: &mut Engine| -> Result<Vec<_>, Box<dyn Error>> {
        (PROFILED.iter())
            .map(|(_, shape)| engine.profile(*shape, ROUNDS))
            .collect()
    };
    let profiles = engines
        .iter_mut()
        .map(&mut profile)
        .collect::<Result<_, _>>()?;
    Ok(Steps {
        engines,
        shapes,
        times,
        profiles,
    })
}

fn print_limits(meter: &Meter, limits: Limits) -> Value {
    println!(
        "\n{} threads, {}: memory {:.1} GB/s by streaming reads, fp32 {:.0} GFLOPS, bytes {} GOPS in registers",
        meter.threads(),
        meter.isa(),
        limits.bandwidth / GIB,
        limits.fma / GIB,
        limits
            .vnni
            .map_or("-".into(), |v| format!("{:.0}", v / GIB)),
    );
    json!({
        "threads": meter.threads(),
        "instructions": meter.isa(),
        "memory_gb_per_s": limits.bandwidth / GIB,
        "fp32_gflops": limits.fma / GIB,
        "vnni_gops": limits.vnni.map(|v| v / GIB),
    })
}

impl Steps {
    fn print(&self, checkpoint: &Checkpoint, limits: Limits) -> Value {
        let mut all = Map::new();
        println!("\ntokens a second          fp32      int8      int4");
        for (s, shape) in self.shapes.iter().enumerate() {
            let (kind, n) = match shape.tokens {
                1 => ("decode", shape.sequences),
                n => ("prefill", n),
            };
            print!("{kind:<8} of {n:<8}");
            for times in &self.times {
                print!("{:>10.0}", shape.rows() as f64 / times[s]);
            }
            println!();
        }
        let linear = linear_operations(checkpoint);
        for (e, engine) in self.engines.iter().enumerate() {
            let quantized = engine.precision != Precision::Fp32;
            let peak = if quantized {
                limits.vnni
            } else {
                Some(limits.fma)
            };
            let rate = |s: usize| self.shapes[s].rows() as f64 / self.times[e][s];
            let bandwidth = engine.weights_bytes() as f64 / self.times[e][0];
            let products = 256.0 * linear / linear_seconds(&self.profiles[e][2]);
            let of_peak = peak.map(|peak| products / peak);
            println!(
                "{}: decode of 1 reads weights at {:.1} GB/s, {:.0} % of the limit; linear layers at 256 rows, with norms and quantization, {:.0} GOPS, {} of the peak",
                engine.precision,
                bandwidth / GIB,
                100.0 * bandwidth / limits.bandwidth,
                products / GIB,
                of_peak.map_or("-".into(), |p| format!("{:.0} %", 100.0 * p)),
            );
            let by = |from: usize, counts: &[usize]| -> Map<String, Value> {
                let entry = |(i, n): (usize, &usize)| (n.to_string(), json!(rate(from + i)));
                counts.iter().enumerate().map(entry).collect()
            };
            let profiles = PROFILED.iter().zip(&self.profiles[e]);
            let profiles: Map<_, _> = profiles
                .map(|((name, _), times)| {
                    let ms = |(name, s): &(&str, f64)| ((*name).to_owned(), json!(s * 1e3));
                    let times: Map<_, _> = times.iter().map(ms).collect();
                    ((*name).to_owned(), Value::from(times))
                })
                .collect();
            let entry = json!({
                "decode_tokens_per_s": by(0, &DECODES),
                "prefill_tokens_per_s": by(DECODES.len(), &PREFILLS),
                "decode_1_bandwidth_gb_per_s": bandwidth / GIB,
                "decode_1_of_bandwidth_limit": bandwidth / limits.bandwidth,
                "linear_256_gops": products / GIB,
                "linear_256_of_peak": of_peak,
                "step_ms_by_operator": profiles,
            });
            all.insert(engine.precision.to_string(), entry);
        }
        for (p, (name, _)) in PROFILED.iter().enumerate() {
            println!("\n{name}, ms by operator     fp32           int8           int4");
            for (o, (operator, _)) in self.profiles[0][p].iter().enumerate() {
                print!("{operator:<18}");
                for profile in &self.profiles {
                    let total: f64 = profile[p].iter().map(|(_, s)| s).sum();
                    let s = profile[p][o].1;
                    print!("{:>9.2} {:>3.0} %", s * 1e3, 100.0 * s / total);
                }
                println!();
            }
        }
        all.into()
    }
}

/// Operations of the blocks' linear layers on a token, a multiply-add counting as two.
fn linear_operations(checkpoint: &Checkpoint) -> f64 {
    let c = checkpoint.config();
    let (q, kv) = (c.heads * c.head_dim, c.kv_heads * c.head_dim);
    let attention = c.hidden * (q + 2 * kv) + q * c.hidden;
    let up_and_down = c.intermediate * c.hidden * 3;
    (2 * c.layers * (attention + up_and_down)) as f64
}

fn linear_seconds(profile: &[(&str, f64)]) -> f64 {
    let is_linear = |name: &str| ["norm", "qkv", "out", "up", "down"].contains(&name);
    profile
        .iter()
        .filter(|(name, _)| is_linear(name))
        .map(|(_, s)| s)
        .sum()
}

/// What items are measured with.
struct Bench<'a> {
    checkpoint: &'a Arc<Checkpoint>,
    prompts: &'a [Vec<u32>],
    /// Everything but what is measured.
    scheduler: &'a SchedulerOptions,
}

impl Bench<'_> {
    /// All snippets at once against one by one, 64 tokens each, without drafts: what a batch gives.
    fn batch_efficiency(&self) -> Result<Value, Box<dyn Error>> {
        let answers = Answers {
            most: 64,
            ignore_eos: true,
        };
        println!(
            "\n{SNIPPETS} snippets, 64 tokens each     one by one   at once     ratio   in engine"
        );
        let mut all = Map::new();
        for precision in PRECISIONS {
            let mut server = Server::start(self.checkpoint, precision, self.scheduler, false)?;
            let mut runs = [Vec::new(), Vec::new()];
            server.run(&self.prompts[..4], 4, answers, &[])?;
            for _ in 0..if precision == Precision::Fp32 { 1 } else { 3 } {
                runs[0].push(server.run(self.prompts, 1, answers, &[])?);
                runs[1].push(server.run(self.prompts, SNIPPETS, answers, &[])?);
            }
            server.stop()?;
            let same = runs
                .iter()
                .flatten()
                .all(|r| r.answers == runs[0][0].answers);
            if !same {
                return Err(format!("{precision}: answers differ between batches").into());
            }
            let rate = |runs: &[items::Run]| {
                median(
                    runs.iter()
                        .map(|r| r.generated as f64 / r.seconds)
                        .collect(),
                )
            };
            let (alone, at_once) = (rate(&runs[0]), rate(&runs[1]));
            let in_engine = median(runs[1].iter().map(|r| r.in_engine).collect());
            println!(
                "{:<30}{alone:>10.0}{at_once:>10.0}{:>10.2}{:>10.1} %",
                precision.as_str(),
                at_once / alone,
                100.0 * in_engine
            );
            all.insert(
                precision.to_string(),
                json!({
                    "one_by_one_tokens_per_s": alone,
                    "at_once_tokens_per_s": at_once,
                    "ratio": at_once / alone,
                    "at_once_time_in_engine": in_engine,
                }),
            );
        }
        Ok(all.into())
    }
}
