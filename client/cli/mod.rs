//! The command line, in reading order: its arguments, how it ends, what it reads, what it prints, and
//! then one module per command.

mod args;
mod credentials;
mod exit;

mod files;
mod languages;
mod walk;

mod numbers;
mod record;
mod terminal;

mod batch;
mod cache;
mod corpus;
mod explain;
mod journal;
mod model;
mod progress;
mod report;
mod session;

use std::process::ExitCode;

pub(crate) use args::Args;
use args::Command;
use exit::{Exit, Stop};
use terminal::Terminal;

/// Runs the command and says how it went.
pub(crate) fn run(args: Args) -> ExitCode {
    let terminal = Terminal::new();
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            terminal.error(&format!("the program could not start its threads: {error}"));
            return Exit::Failed.into();
        }
    };
    let outcome = runtime.block_on(command(&args, &terminal));
    // A read of standard input that never ends must not keep the program from ending.
    runtime.shutdown_background();
    match outcome {
        Ok(exit) => exit.into(),
        Err(stop) => {
            if let Some(message) = stop.message() {
                terminal.error(&message);
            }
            stop.exit().into()
        }
    }
}

async fn command(args: &Args, terminal: &Terminal) -> Result<Exit, Stop> {
    let client = args.access.connect(&args.server)?;
    match &args.command {
        Command::Explain(args) => explain::run(&client, args, terminal).await,
        Command::Batch(args) => batch::run(&client, args, terminal).await,
        Command::Corpus(args) => corpus::run(&client, args, terminal).await,
        Command::Model(args) => model::run(&client, args.json, terminal).await,
        Command::Cache(args) => cache::run(&client, args, terminal).await,
        Command::Report(args) => report::run(&client, args.json, terminal).await,
    }
}
