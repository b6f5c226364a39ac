//! A guided search for texts that cost much: CPU time a byte of every pass that a server makes over a client's text before
//! an engine gets it, beside what ordinary code costs.
//!
//! `make fuzz-cost SECONDS=3600`. It prints for each pass the median over ordinary code and the worst that it found, as a
//! text that is said in few words: what it begins with, and what is repeated after that. It fails if the worst is more than
//! [`MOST`] times the median, measured again. `tests/attacks/parsers.rs` keeps what was found. What a text
//! ends the process with is left in `target/fuzz-cost.txt`.
//!
//! - `passes`: what is measured. `ordinary`: code as people write it. `search`: texts that get worse by generation.

mod ordinary;
mod passes;
mod search;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use passes::{Pass, cost};
use search::Search;

/// How many times the median a byte may cost.
const MOST: f64 = 20.0;
/// Measurements of a text before it is blamed: the least of them counts.
const AGAIN: usize = 5;

fn main() -> ExitCode {
    let mut arguments = std::env::args()
        .skip(1)
        .filter(|argument| argument != "--bench");
    let seconds = match arguments.next().map(|seconds| seconds.parse()) {
        None => 60,
        Some(Ok(seconds)) if seconds > 0 => seconds,
        Some(_) => {
            eprintln!("error: give a whole number of seconds, one or more");
            return ExitCode::from(64);
        }
    };
    let wanted = arguments.next().unwrap_or_default();
    let ordinary = ordinary::texts();
    let mut passes = passes::all();
    passes.retain(|pass| pass.name.contains(&wanted));
    let mut searches: Vec<Search> = Vec::new();
    for pass in passes {
        let median = median(&pass, &ordinary);
        searches.push(Search::new(pass, median, &ordinary));
    }
    let until = Instant::now() + Duration::from_secs(seconds);
    let mut tried = 0;
    while Instant::now() < until {
        for search in &mut searches {
            tried += search.generation(until);
        }
    }
    println!("{tried} texts in {seconds} s");
    println!(
        "{:<28} {:>10} {:>10} {:>6}",
        "pass", "median", "worst", "ratio"
    );
    let mut worst = 0.0_f64;
    for search in &searches {
        let (text, said) = search.worst();
        let again = (0..AGAIN).map(|_| cost(&search.pass, &text));
        let least = again.fold(f64::INFINITY, f64::min);
        let ratio = least / search.median;
        worst = worst.max(ratio);
        println!(
            "{:<28} {:>7.1} ns {:>7.1} ns {ratio:>6.1}  {said}",
            search.pass.name, search.median, least
        );
    }
    println!("the worst costs {worst:.1} times the median a byte; {MOST} are allowed");
    ExitCode::from(u8::from(worst > MOST))
}

/// Of a byte of ordinary code, in nanoseconds.
fn median(pass: &Pass, ordinary: &[(String, String)]) -> f64 {
    let texts = ordinary.iter().filter(|(language, _)| {
        pass.language
            .is_none_or(|wanted| wanted.as_str() == language)
    });
    let sized = texts.map(|(_, text)| ordinary::sized(text, pass.bytes));
    let mut costs: Vec<f64> = sized
        .map(|text| {
            (0..AGAIN)
                .map(|_| cost(pass, &text))
                .fold(f64::INFINITY, f64::min)
        })
        .collect();
    costs.sort_by(f64::total_cmp);
    costs[costs.len() / 2]
}
