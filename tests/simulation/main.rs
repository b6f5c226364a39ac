//! Deterministic simulation: the whole server less libtorch, and the Rust client, in worlds of their own.
//!
//! A world is a number. From it follow the settings, the clients and what they ask for, how long everything takes, what
//! breaks and when, and every random number that anybody draws; so the number is all that it takes to see a failure again.
//!
//! - `world`: its time and its chances. `trace`: its history. `net`: its network.
//! - `node`: its servers. `oracle`: what answers have to be.
//! - `batch`, `raw`, `single`: its clients, with the Rust client, by themselves over a stream, and with a call for each item.
//! - `account`: what has to be true of what a client hears. `scenario`: from beginning to end.
//! - `workers`: many worlds, in processes beside each other.
//!
//! `SIM_SEEDS` says how many worlds (1,000), `SIM_FROM` the first, `SIM_SEED` one alone, with its history on standard error.

mod account;
mod batch;
mod net;
mod node;
mod oracle;
mod raw;
mod scenario;
mod single;
#[path = "../common/smollm.rs"]
mod smollm;
mod tenants;
mod trace;
mod workers;
mod world;

use std::process::ExitCode;

fn main() -> ExitCode {
    workers::main()
}
