//! Attacks on a whole server, measured: what a neighbour, the probes and the machine see of each. `make bench-attacks`.
//!
//! In reading order:
//!
//! - `kinds`: the attacks, one file for each family.
//! - `campaign`: one attack on one server: idle, attacked, afterwards.
//! - `neighbour`, `probes`, `process`: who is measured, and how. `numbers`: their arithmetic.
//! - `subject`: the server's program. `stage`: what an attack sees of it. `wire`: HTTP/2 without manners.
//! - `report`: the verdicts.
//!
//! The neighbour's times count from when its requests were due, so that a stall counts for all that it holds up. The attacker
//! calls from another address of this machine, on threads that stand back; its cores are the server's all the same, and what
//! it takes of them is part of what the neighbour sees.
//!
//! Variables: `BEFORE`, another build of the program, is attacked as well, and first; `ONLY`, names or parts of names with
//! commas between, leaves out the other attacks. Writes `target/bench/attacks.json`. Ends with 1 if an aim is missed by the
//! program of this build.

mod campaign;
#[allow(dead_code, reason = "the tests' own; not all of it is of use here")]
#[path = "../../tests/common/certificates.rs"]
mod certificates;
mod kinds;
mod neighbour;
mod numbers;
mod probes;
mod process;
mod report;
mod stage;
mod subject;
mod wire;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::subject::Keys;

/// Files that this process may have open: the attacks have up to 1,100 connections, and those who are measured more.
const FILES: u64 = 4096;

fn main() -> Result<ExitCode> {
    let files = process::open_files().context("/proc/self/limits")?;
    ensure!(
        files >= FILES,
        "{files} open files are too few for the attackers: `ulimit -n {FILES}` first"
    );
    let mut servers = vec![(
        "after",
        PathBuf::from(env!("CARGO_BIN_EXE_code-explainer-server")),
    )];
    if let Some(before) = variable("BEFORE") {
        let before = PathBuf::from(before);
        let before = before
            .canonicalize()
            .with_context(|| before.display().to_string())?;
        servers.insert(0, ("before", before));
    }
    let only = variable("ONLY").unwrap_or_default();
    let wanted = |name: &str| only.is_empty() || only.split(',').any(|part| name.contains(part));
    let attacks: Vec<_> = kinds::all()
        .into_iter()
        .filter(|a| wanted(a.name))
        .collect();
    ensure!(!attacks.is_empty(), "ONLY={only} leaves no attack");
    let keys = Keys::make(&servers[0].1)?;
    let measuring = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    println!("{}", report::heads());
    let (mut numbers, mut misses) = (serde_json::Map::new(), 0);
    for attack in &attacks {
        let (mut outcomes, mut said) = (Vec::new(), serde_json::Map::new());
        for (server, program) in &servers {
            match attack.on(program, &keys, &measuring) {
                Ok(outcome) => {
                    println!("{}", report::row(attack, server, &outcome));
                    let missed = !report::missed(attack, &outcome).is_empty();
                    misses += usize::from(missed && *server == "after");
                    said.insert((*server).into(), report::json(attack, &outcome));
                    outcomes.push(outcome);
                }
                Err(error) => {
                    println!("{:<30}{server:<9}NOT MEASURED: {error:#}", attack.name);
                    misses += usize::from(*server == "after");
                    said.insert((*server).into(), json!({"error": format!("{error:#}")}));
                }
            }
        }
        if let [before, after] = &outcomes[..] {
            println!("{}", report::ratios(before, after));
        }
        numbers.insert(attack.name.into(), Value::Object(said));
    }
    std::fs::create_dir_all("target/bench")?;
    let numbers = serde_json::to_string_pretty(&Value::Object(numbers))?;
    std::fs::write("target/bench/attacks.json", numbers)?;
    println!(
        "{misses} of {} attacks made the server miss an aim",
        attacks.len()
    );
    Ok(ExitCode::from(u8::from(misses > 0)))
}

/// A variable of the environment that is not empty.
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}
