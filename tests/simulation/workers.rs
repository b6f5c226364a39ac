//! Many worlds, in processes beside each other, and what comes of them.
//!
//! tokio draws the seed of a runtime from a counter of the process. So a process goes through its worlds in order, one
//! runtime each, and passes over those that are others': the runtime of a world has the same seed wherever it is seen.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use code_explainer::api::Shared;
use code_explainer::config::Config;
use tokio::runtime::Builder;

use crate::node::Settings;
use crate::{scenario, smollm, trace, world};

/// A world takes milliseconds. One that takes this long never ends.
const PATIENCE: Duration = Duration::from_secs(60);
/// Worlds that are lived through a second time, in another process.
const TWICE: u64 = 20;

/// The range that a process works on: first, step, end.
const RANGE: &str = "SIM_RANGE";

pub(crate) fn main() -> ExitCode {
    let number = |name: &str| {
        let value = std::env::var(name).ok()?;
        Some(
            value
                .parse::<u64>()
                .unwrap_or_else(|_| panic!("{name} is {value:?}, expected a number")),
        )
    };
    if let Ok(range) = std::env::var(RANGE) {
        let parts: Vec<u64> = range
            .split(' ')
            .filter_map(|part| part.parse().ok())
            .collect();
        let [first, step, end] = parts[..] else {
            panic!("{RANGE} is {range:?}");
        };
        return work(first, step, end);
    }
    if let Some(seed) = number("SIM_SEED") {
        return work(seed, 1, seed + 1);
    }
    // As the tests beside it are called: by a part of their name.
    let wanted = std::env::args()
        .skip(1)
        .find(|argument| !argument.starts_with('-'));
    if wanted.is_some_and(|wanted| !"simulation".contains(&wanted)) {
        println!("\ntest result: ok. 0 passed; 0 failed; 0 ignored; 0 measured; 2 filtered out");
        return ExitCode::SUCCESS;
    }
    let first = number("SIM_FROM").unwrap_or(0);
    let seeds = number("SIM_SEEDS").unwrap_or(1000);
    supervise(first, first + seeds)
}

/// Lives through the worlds of a range, and tells of each in a line.
fn work(first: u64, step: u64, end: u64) -> ExitCode {
    trace::watch_panics();
    let files = tempfile::tempdir().expect("a folder of its own");
    let base = Settings::base(&files.path().join("book"));
    // What libraries find out once in a process, they find out in the real world: how fast its clock is, say.
    smollm::text();
    drop(Shared::new(&base).expect("a server's parts"));
    // What a server finds out when it first works, it finds out in a world that does not count.
    let _ = live(u64::MAX, base.clone(), false);
    let quiet = std::env::var_os(RANGE).is_some();
    let at = std::sync::Arc::new(AtomicU64::new(first));
    watch(at.clone());
    let (mut failed, mut next) = (false, 0);
    for seed in (first..end).step_by(step as usize) {
        at.store(seed, Ordering::Relaxed);
        // Each world draws twice: for its runtime, and for its thread.
        for _ in 0..2 * (seed - next) {
            let _ = Builder::new_current_thread();
        }
        next = seed + 1;
        let world = live(seed, base.clone(), !quiet);
        match world {
            Ok(hash) => println!("ok {seed} {hash:016x}"),
            Err(why) => {
                failed = true;
                println!("failed {seed} {}", why.replace('\n', " | "));
            }
        }
    }
    if failed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}

/// A process that hangs ends, and says in which world.
fn watch(at: std::sync::Arc<AtomicU64>) {
    std::thread::spawn(move || {
        let (mut seen, mut since) = (u64::MAX, Instant::now());
        loop {
            std::thread::sleep(Duration::from_secs(1));
            let now = at.load(Ordering::Relaxed);
            if now != seen {
                (seen, since) = (now, Instant::now());
            } else if since.elapsed() > PATIENCE {
                println!("failed {now} it does not end");
                std::process::exit(1);
            }
        }
    });
}

/// Lives through a world on a thread of its own. Gives the hash of its history, or why it failed.
fn live(seed: u64, base: Config, tells: bool) -> Result<u64, String> {
    let body = move || {
        world::enter(seed);
        if tells {
            trace::tell();
        }
        let mut builder = Builder::new_current_thread();
        let runtime = builder
            .enable_io()
            .enable_time()
            .build()
            .expect("a runtime");
        let lived = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            runtime.block_on(scenario::run(&base));
        }));
        let mut panics = trace::panics();
        drop(runtime);
        match (lived, panics.is_empty()) {
            (Ok(()), true) => Ok(trace::hash()),
            _ => {
                panics.truncate(4);
                Err(panics.join("\n"))
            }
        }
    };
    let thread = std::thread::Builder::new().name("world".into());
    let thread = thread.spawn(body).expect("a thread");
    thread
        .join()
        .unwrap_or_else(|_| Err("its end panicked".into()))
}

/// Has all worlds lived through, some of them twice.
fn supervise(first: u64, end: u64) -> ExitCode {
    let began = Instant::now();
    let cores = std::thread::available_parallelism().map_or(1, usize::from) as u64;
    let workers: Vec<Child> = (0..cores)
        .map(|core| start(first + core, cores, end))
        .collect();
    let (mut lived, mut failed) = (Vec::new(), 0);
    let (sender, lines) = std::sync::mpsc::channel();
    for mut worker in workers {
        let sender = sender.clone();
        std::thread::spawn(move || {
            let output = worker.stdout.take().expect("it is piped");
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
            let _ = worker.wait();
        });
    }
    drop(sender);
    let every = ((end - first) / 20).max(1);
    for line in lines {
        if line.starts_with("ok ") {
            lived.push(line);
            let count = lived.len() as u64;
            if end - first > 2000 && count.is_multiple_of(every) {
                println!("{count} worlds in {} s", began.elapsed().as_secs());
            }
        } else if line.starts_with("failed ") {
            failed += 1;
            let seed = line.split(' ').nth(1).unwrap_or_default();
            println!("{line}\n  again: make sim SEED={seed}");
        }
        let _ = std::io::stdout().flush();
    }
    let count = lived.len() as u64 + failed;
    if count != end - first {
        failed += 1;
        println!("{count} worlds of {}: a process ended early", end - first);
    }
    println!(
        "simulation: {count} worlds in {} s, {failed} failed",
        began.elapsed().as_secs()
    );
    let differ = other_histories(&lived, first, end);
    println!("simulation: {differ} of {TWICE} had another history the second time");
    let problems = u64::from(failed > 0) + u64::from(differ > 0);
    let verdict = if problems == 0 { "ok" } else { "FAILED" };
    println!(
        "\ntest result: {verdict}. {} passed; {problems} failed; 0 ignored; 0 measured; 0 filtered out",
        2 - problems
    );
    if problems == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// A process that works on a range.
fn start(first: u64, step: u64, end: u64) -> Child {
    let program = std::env::current_exe().expect("this program");
    let mut command = Command::new(program);
    command.env(RANGE, format!("{first} {step} {end}"));
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    command.spawn().expect("a process")
}

/// Lives through the first worlds again, and counts those whose history was another one.
fn other_histories(lived: &[String], first: u64, end: u64) -> u64 {
    let again = start(first, 1, end.min(first + TWICE)).wait_with_output();
    let again = again.expect("its output").stdout;
    let again = String::from_utf8_lossy(&again);
    let other = |line: &&str| line.starts_with("ok ") && !lived.iter().any(|l| l == line);
    again
        .lines()
        .filter(other)
        .inspect(|line| println!("another history: {line}"))
        .count() as u64
}
