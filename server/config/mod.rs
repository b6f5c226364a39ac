//! What an operator can set: flags, then `CODE_EXPLAINER_*` variables, then a TOML file; checked once, handed on in
//! parts.

mod access_args;
mod args;
mod body_args;
mod cache_memory_args;
mod embed_args;
mod environment;
mod export_args;
mod key_args;
mod limit_args;
mod model_args;
mod quantize_args;
mod redis_args;
mod retrieval_args;
mod scheduling_args;
mod stream_args;

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use args::{Cli, CliCommand};
use clap::error::ErrorKind;
use clap::{CommandFactory, FromArgMatches};
use code_explainer_cache::CacheConfig;
use code_explainer_code::prompt::normal::Normalize;
use code_explainer_engine::{DeviceSpec, Devices, EngineOptions, Precision};
use code_explainer_scheduler::SchedulerOptions;
use code_explainer_weights::ModelMemory;
pub use environment::unknown_variables;
use environment::{naming_variable, without_empty};
pub use stream_args::{ReportLoad, StreamOptions};

use crate::access::AccessConfig;
use crate::access::make_key::MakeKeyConfig;
use crate::api::{ConnectionLimits, RequestBytes};
use crate::embed::EmbedConfig;
use crate::optimize::OpenSettings;
use crate::request::RequestLimits;
use crate::retrieval::RetrievalConfig;

/// Shape of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// Lines for a person.
    Text,
    /// One JSON object a line.
    Json,
}

/// What the program is asked to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    /// Serve a model.
    Serve(Box<Config>),
    /// Quantize a model's files.
    Quantize(QuantizeConfig),
    /// Write a model as a TorchScript module.
    Export(ExportConfig),
    /// Make a key for a client.
    MakeKey(MakeKeyConfig),
}

/// Everything that `quantize` needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuantizeConfig {
    /// Bits of a weight: 4 or 8.
    pub bits: u32,
    /// Where the model lies.
    pub input: PathBuf,
    /// The directory to write.
    pub output: PathBuf,
}

/// Everything that `export` needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportConfig {
    /// Where the module goes.
    pub torchscript: PathBuf,
    /// Where the model lies.
    pub model: PathBuf,
    /// What traces it.
    pub device: DeviceSpec,
    /// `None`: the device's own.
    pub precision: Option<Precision>,
}

/// Everything that `serve` needs; every value is valid.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// gRPC address.
    pub listen: SocketAddr,
    /// HTTP address.
    pub http_listen: SocketAddr,
    /// Who may call, and how connections are encrypted.
    pub access: AccessConfig,
    /// Secrets in snippets are made unreadable.
    pub redact_secrets: bool,
    /// CPU time that an item may take before an engine gets it.
    pub code_cpu_time: Duration,
    /// What connections may take.
    pub connections: ConnectionLimits,
    /// What requests may take until they are received.
    pub request_bytes: RequestBytes,
    /// Where the model lies.
    pub model: PathBuf,
    /// How the files with its weights are held.
    pub model_memory: ModelMemory,
    /// What was set of what can be chosen for the model and the machine; `None`: nothing is to be chosen.
    pub optimize: Option<OpenSettings>,
    /// Where it runs.
    pub devices: Devices,
    /// How it is loaded; each of the devices puts its own into it.
    pub engine: EngineOptions,
    /// How items are run.
    pub scheduler: SchedulerOptions,
    /// Items in flight on a stream at most.
    pub stream_items: usize,
    /// How streams are served.
    pub stream: StreamOptions,
    /// What a request may ask for.
    pub request: RequestLimits,
    /// The explanation cache.
    pub cache: CacheConfig,
    /// What snippets with the same cached answer may differ in.
    pub cache_normalize: Normalize,
    /// Mixed into the cache's keys.
    pub cache_secret: Secret,
    /// The embedding model and its cache.
    pub embed: EmbedConfig,
    /// The strategy retrieval_augmented, and its corpus.
    pub retrieval: RetrievalConfig,
    /// Name of this server.
    pub replica: String,
    /// OTLP collector.
    pub otlp_endpoint: Option<String>,
    /// Threads that have not moved for so long hang, and `/healthz` says so; `None`: it never does.
    pub hang_timeout: Option<Duration>,
    /// Time after a signal in which items are still taken.
    pub shutdown_grace: Duration,
    /// Time for the running work after that.
    pub drain_timeout: Duration,
    /// Log filter.
    pub log: String,
    /// Log shape.
    pub log_format: LogFormat,
}

/// A text that never shows in a log.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(...)")
    }
}

impl Config {
    /// What an operator should know before the cache is used.
    pub fn cache_warning(&self) -> Option<&'static str> {
        (self.cache.redis.is_some() && self.cache_secret.0.is_empty()).then_some(
            "--redis-url without --cache-secret: who can read this redis can try out whether some code was explained, and \
             who can write to it can forge answers; set CODE_EXPLAINER_CACHE_SECRET to the same random text on all replicas",
        )
    }
}

impl Command {
    /// Reads a command line, the environment, and the file that they name.
    ///
    /// # Errors
    /// One that prints itself well: [`clap::Error`]; also for `--help` and `--version`.
    pub fn from_args(args: impl IntoIterator<Item = OsString>) -> Result<Self, clap::Error> {
        let args: Vec<OsString> = args.into_iter().collect();
        Self::read(&args).map_err(|error| naming_variable(error, &Cli::command(), &args))
    }

    fn read(args: &[OsString]) -> Result<Self, clap::Error> {
        let command = || without_empty(Cli::command());
        let first = match command().try_get_matches_from(args) {
            Err(help_or_version) if !help_or_version.use_stderr() => return Err(help_or_version),
            first => first,
        };
        // The file's values become the defaults of a second reading: so flags and variables win, and one set of
        // checks serves all three.
        let matches = match config_file(args, first.as_ref().ok()) {
            Some(path) => with_file(command(), &path)?.try_get_matches_from(args)?,
            None => first?,
        };
        match Cli::from_arg_matches(&matches)?.command {
            CliCommand::Serve(args) => (args.validate())
                .map(|config| Self::Serve(Box::new(config)))
                .map_err(|problem| Cli::command().error(ErrorKind::ValueValidation, problem)),
            CliCommand::Quantize(args) => Ok(Self::Quantize(args.validate())),
            CliCommand::Export(args) => Ok(Self::Export(args.validate())),
            CliCommand::MakeKey(args) => Ok(Self::MakeKey(args.validate())),
        }
    }
}

/// The config file of `serve` named by flag or variable, also when another setting does not parse without it.
fn config_file(args: &[OsString], matches: Option<&clap::ArgMatches>) -> Option<PathBuf> {
    if let Some(matches) = matches {
        return matches
            .subcommand_matches("serve")?
            .get_one::<PathBuf>("config")
            .cloned();
    }
    if args.get(1).is_none_or(|command| command != "serve") {
        return None;
    }
    let flag = args.iter().enumerate().find_map(|(i, arg)| {
        let arg = arg.to_str()?;
        match arg.strip_prefix("--config")? {
            "" => args.get(i + 1).map(PathBuf::from),
            rest => rest.strip_prefix('=').map(PathBuf::from),
        }
    });
    let variable = std::env::var_os("CODE_EXPLAINER_CONFIG").filter(|path| !path.is_empty());
    flag.or_else(|| variable.map(PathBuf::from))
}

fn with_file(command: clap::Command, path: &std::path::Path) -> Result<clap::Command, clap::Error> {
    let fail = |problem: String| {
        Cli::command().error(
            ErrorKind::Io,
            format!("--config {}: {problem}", path.display()),
        )
    };
    let text = std::fs::read_to_string(path).map_err(|e| fail(e.to_string()))?;
    let table: toml::Table = text
        .parse()
        .map_err(|e: toml::de::Error| fail(e.to_string()))?;
    let mut serve = command
        .find_subcommand("serve")
        .cloned()
        .ok_or_else(|| fail("there is no command to set".into()))?;
    for (key, value) in table {
        let known = key != "config" && serve.get_arguments().any(|a| a.get_id() == key.as_str());
        if !known {
            return Err(fail(format!("unknown setting '{key}'")));
        }
        let value = match value {
            toml::Value::String(s) => s,
            toml::Value::Integer(_) | toml::Value::Float(_) | toml::Value::Boolean(_) => {
                value.to_string()
            }
            _ => {
                return Err(fail(format!(
                    "{key}: expected a string, a number or a boolean"
                )));
            }
        };
        serve = serve.mut_arg(&key, |arg| arg.default_value(value));
    }
    Ok(command.mut_subcommand("serve", |_| serve))
}
