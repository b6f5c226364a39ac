//! `code-explainer`: explains code at the command line, by a Code Explainer server.

mod cli;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    cli::run(cli::Args::parse())
}
