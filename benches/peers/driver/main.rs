//! Our side of `make bench-peers` and `make bench-quality`: what the scripts beside it ask for, line by line.
//!
//! Each command is a worker. It reads jobs from its standard input, one JSON object a line, and answers each with one on
//! its standard output, so that the scripts can let it and the workers of other engines take turns.

mod engine;
mod grpc;
mod jobs;
mod logits;
mod prompts;

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use code_explainer_engine::{
    CpuShare, DeviceSpec, EngineKind, EngineOptions, KvPrecision, Precision,
};

/// Measures Code Explainer for the benchmarks against other engines.
#[derive(Debug, Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Makes prompts of code, as the server does
    Prompts {
        /// The model, for its tokenizer and chat template
        #[arg(long)]
        model: PathBuf,
    },
    /// Generates with the engine alone: no server, no scheduler, no text
    Engine(EngineArgs),
    /// Writes the logits of prompts to a file
    Logits {
        #[command(flatten)]
        engine: EngineArgs,
        /// Takes 32-bit floats, `[position][vocabulary]`
        #[arg(long)]
        out: PathBuf,
    },
    /// Sends items to a server on this machine and takes the times of what comes back
    Grpc {
        /// HOST:PORT
        #[arg(long)]
        address: String,
    },
}

/// Which model and how to load it.
#[derive(Debug, clap::Args)]
struct EngineArgs {
    #[arg(long)]
    model: PathBuf,
    #[arg(long)]
    precision: Precision,
    #[arg(long, default_value = "native")]
    engine: EngineKind,
    #[arg(long)]
    kv_precision: Option<KvPrecision>,
    #[arg(long, default_value_t = 0)]
    threads: usize,
}

impl EngineArgs {
    /// With a KV cache for `kv_cache_tokens`.
    fn options(&self, kv_cache_tokens: usize) -> EngineOptions {
        EngineOptions {
            engine: self.engine.clone(),
            device: DeviceSpec::Cpu,
            cpu_share: CpuShare::WHOLE,
            precision: Some(self.precision),
            kv_precision: self.kv_precision,
            kv_cache_tokens,
            block_tokens: 16,
            threads: self.threads,
        }
    }
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().command {
        Command::Prompts { model } => prompts::work(&model),
        Command::Engine(engine) => engine::work(&engine),
        Command::Logits { engine, out } => logits::work(&engine, &out),
        Command::Grpc { address } => grpc::work(&address),
    }
}
