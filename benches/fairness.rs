//! Two tenants, one flooding with 1,000 items, the other sending one at a time: its time to first token, beside what it is
//! on an idle server. `cargo bench --bench fairness`; the real engine and scheduler, without the network.
//!
//! Prints a table and writes `target/bench/fairness.json`: medians and p95 of both in milliseconds, and the ratio of the
//! p95. The bound is 2.

use std::ffi::OsString;
use std::sync::Arc;
use std::time::{Duration, Instant};

use code_explainer::config::{Command, Config};
use code_explainer::model::Model;
use code_explainer_code::prompt::{self, Strategy};
use code_explainer_engine::Sampling;
use code_explainer_host::machine::Machine;
use code_explainer_scheduler::{
    EngineRules, Event, Job, Priority, Scheduler, SchedulerOptions, Tenant,
};
use code_explainer_text::Text;
use tokio_util::sync::CancellationToken;

const FLOOD: usize = 1000;
/// Items of the one who sends one at a time.
const ITEMS: usize = 60;
const ANSWER: usize = 16;

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let args = ["server", "serve", "--queue-items", "2048"].map(OsString::from);
    let Command::Serve(config) = Command::from_args(args)? else {
        return Err("it is asked to serve".into());
    };
    tokio::runtime::Runtime::new()?.block_on(measure(&config))
}

async fn measure(config: &Config) -> Result<(), Failure> {
    let model = Model::open_for(config)?;
    let options = SchedulerOptions {
        engine: EngineRules {
            step: model.step.unwrap_or(config.scheduler.engine.step),
            ..config.scheduler.engine
        },
        ..config.scheduler.clone()
    };
    let (scheduler, starting) = Scheduler::start(
        model.backends,
        &options,
        Arc::new(|_: &_| {}),
        Machine::Threads,
    );
    let (_, supervisor) = starting.ready(Arc::new(|_| {})).await?;
    let stop = CancellationToken::new();
    let supervised = tokio::spawn(supervisor.run(stop.clone()));
    let bench = Bench {
        text: model.text,
        scheduler,
        snippets: snippets()?,
    };
    let one: Tenant = "one at a time".into();
    // The first few learn what steps cost, and leave the common beginning of prompts behind.
    bench.one_at_a_time(&one, 0, 8).await?;
    println!("{ITEMS} items on an idle server, then {ITEMS} beside a flood of {FLOOD}");
    let idle = bench.one_at_a_time(&one, 1_000, ITEMS).await?;
    let flood = bench.flood(&"flood".into())?;
    let mut beside = bench.one_at_a_time(&one, 2_000, ITEMS).await?;
    let left = flood.iter().filter(|task| !task.is_finished()).count();
    if left == 0 {
        return Err("the flood was over before the measurement".into());
    }
    bench.scheduler.stop();
    stop.cancel();
    let _ = supervised.await?;
    let mut idle = idle;
    let (idle, beside) = (quantiles(&mut idle), quantiles(&mut beside));
    let ratio = beside.1 / idle.1;
    println!("time to first token, ms      median       p95");
    println!("idle                     {:>10.1}{:>10.1}", idle.0, idle.1);
    println!(
        "beside a flood of {FLOOD}   {:>10.1}{:>10.1}",
        beside.0, beside.1
    );
    println!("ratio of the p95: {ratio:.2} (bound 2.00); {left} of the flood were left");
    std::fs::create_dir_all("target/bench")?;
    let report = serde_json::json!({
        "idle": {"median_ms": idle.0, "p95_ms": idle.1},
        "beside_flood": {"median_ms": beside.0, "p95_ms": beside.1},
        "p95_ratio": ratio,
        "flood_items": FLOOD,
        "items": ITEMS,
    });
    std::fs::write(
        "target/bench/fairness.json",
        serde_json::to_string_pretty(&report)?,
    )?;
    Ok(())
}

struct Bench {
    text: Arc<Text>,
    scheduler: Scheduler,
    snippets: Vec<String>,
}

impl Bench {
    fn job(&self, number: usize) -> Result<Job, Failure> {
        let snippet = &self.snippets[number % self.snippets.len()];
        // No two are alike from their first line on.
        let code = format!("// {number}\n{snippet}");
        let parts = prompt::build(Strategy::Vanilla, &code, None);
        let prompt = self
            .text
            .encode_prompt(parts.system.as_deref(), &parts.user)?;
        Ok(Job {
            prompt: prompt.tokens,
            sampling: Sampling::default(),
            max_new_tokens: ANSWER,
            min_new_tokens: 0,
            eos: self.text.eos().into(),
            ignore_eos: true,
            salt: [0].into(),
            priority: Priority::Normal,
        })
    }

    /// Times from the submission to the first token, in milliseconds.
    async fn one_at_a_time(
        &self,
        tenant: &Tenant,
        from: usize,
        items: usize,
    ) -> Result<Vec<f64>, Failure> {
        let mut times = Vec::new();
        for number in from..from + items {
            let job = self.job(number)?;
            let began = Instant::now();
            let mut ticket = self.scheduler.submit(self.scheduler.enter(tenant)?, job)?;
            let mut first = None;
            while let Some(event) = ticket.next().await {
                if let Event::Token { .. } = event {
                    first.get_or_insert_with(|| began.elapsed());
                }
            }
            times.push(first.ok_or("no token came")?.as_secs_f64() * 1e3);
            // Not in step with the engine's own.
            tokio::time::sleep(Duration::from_millis((number * 7 % 23) as u64)).await;
        }
        Ok(times)
    }

    fn flood(&self, tenant: &Tenant) -> Result<Vec<tokio::task::JoinHandle<()>>, Failure> {
        let send = |number: usize| {
            let job = self.job(10_000 + number)?;
            let mut ticket = self.scheduler.submit(self.scheduler.enter(tenant)?, job)?;
            Ok(tokio::spawn(async move {
                while ticket.next().await.is_some() {}
            }))
        };
        (0..FLOOD).map(send).collect()
    }
}

/// The tests' snippets of common languages.
fn snippets() -> Result<Vec<String>, Failure> {
    let mut snippets = Vec::new();
    for language in [
        "python",
        "rust",
        "go",
        "java",
        "c",
        "cpp",
        "javascript",
        "typescript",
    ] {
        let mut files: Vec<_> = std::fs::read_dir(format!("tests/data/snippets/{language}"))?
            .map(|entry| entry.map(|e| e.path()))
            .collect::<Result<_, _>>()?;
        files.sort();
        for file in files {
            snippets.push(std::fs::read_to_string(file)?);
        }
    }
    Ok(snippets)
}

/// Median and p95.
fn quantiles(times: &mut [f64]) -> (f64, f64) {
    times.sort_by(f64::total_cmp);
    let at = |q: f64| times[((times.len() - 1) as f64 * q).round() as usize];
    (at(0.5), at(0.95))
}
