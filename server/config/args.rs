//! The command line, and what one value alone cannot tell to be wrong.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use code_explainer_cache::{Cache, CacheConfig};
use code_explainer_engine::{CpuShare, DeviceSpec, EngineOptions};
use code_explainer_scheduler::{Drafting, EngineRules, SchedulerOptions};

use super::access_args::{AccessArgs, ConnectionArgs};
use super::body_args::BodyArgs;
use super::cache_memory_args::CacheMemoryArgs;
use super::embed_args::EmbedArgs;
use super::export_args::ExportArgs;
use super::key_args::KeyArgs;
use super::limit_args::{LimitArgs, PrefixCache, Speculation};
use super::model_args::{ModelArgs, Optimize};
use super::quantize_args::QuantizeArgs;
use super::redis_args::RedisArgs;
use super::retrieval_args::RetrievalArgs;
use super::scheduling_args::SchedulingArgs;
use super::stream_args::StreamArgs;
use super::{Config, LogFormat, Secret};
use crate::optimize::OpenSettings;
use crate::request::{MAX_STREAM_ITEMS, RequestLimits};

/// Explains code with a language model, over gRPC.
#[derive(Debug, Parser)]
#[command(
    name = "code-explainer-server",
    version,
    max_term_width = 100,
    after_help = "Exit codes: 0 after a clean stop, 64 for a bad setting, 66 for a model that cannot be loaded or \
                  another file that cannot be read, \
                  69 for an address that cannot be bound, 73 for a --data-dir that cannot be written, 1 for anything else, such as a \
                  drain that did not end in its time or a second signal."
)]
pub(super) struct Cli {
    #[command(subcommand)]
    pub(super) command: CliCommand,
}

#[derive(Debug, Subcommand)]
pub(super) enum CliCommand {
    /// Load a model and serve it
    ///
    /// Every option can be given as a flag, as the environment variable that is named beside it, or in a TOML file
    /// (`--config`) under the flag's name with underscores: `batch_size = 16`. A flag wins over a variable, a variable
    /// over the file.
    ///
    /// What clients can make the server hold has bounds, which come to 2.02 GiB with the defaults. The model, its KV cache, the
    /// embedding model and the corpus come beside that. SECURITY.md has the table, and the option of each.
    Serve(Box<ServeArgs>),

    /// Quantize a model once and for all, into a directory that `serve --model` maps and starts with at once
    ///
    /// Reads a GGUF file or a Hugging Face directory and writes a new directory with the weights as the CPU's kernels read
    /// them, in 8 or 4 bits, and with the model's configuration, tokenizer and chat template: it needs no other file. Its
    /// answers are, to the bit, those of `serve --quantization` with the same model, and cached answers are shared.
    ///
    /// A directory belongs to a version of the packed format; a server that reads another one says so. Keep the model that
    /// it was made from.
    #[command(after_help = "Examples:\n  \
        code-explainer-server quantize --bits 4 models/SmolLM2-135M-Instruct.Q4_1.gguf models/smollm2-int4\n  \
        code-explainer-server serve --model models/smollm2-int4\n\n\
        Exit codes: 0 when the directory is there, 64 for a bad setting or an OUT that is taken, 66 for a model that \
        cannot be loaded or quantized, 1 for anything else, such as a full disk. Unless it ends with 0, nothing is at OUT.")]
    Quantize(QuantizeArgs),

    /// Trace a model and write it as a TorchScript module, which `serve --engine torchscript` runs
    ///
    /// One module serves prompts and answers of any length and number. It needs its model at `serve` too, for the
    /// tokenizer, and serves no other.
    #[command(
        after_help = "Exit codes: 0 when the module is there, 64 for a bad setting, 66 for a model that cannot be \
        loaded or a module that cannot be written."
    )]
    Export(ExportArgs),

    /// Make a key for a client, and print the line that lets it in
    ///
    /// The line goes to standard output, for the file of `serve --auth-file`; the token goes to standard error or to
    /// --token-file, once: the file has its hash alone.
    #[command(after_help = "Example:\n  \
        install -m 600 /dev/null identities\n  \
        code-explainer-server make-key --name ci --tenant acme --token-file ci.token >> identities\n  \
        code-explainer --token-file ci.token explain main.rs")]
    MakeKey(KeyArgs),
}

#[derive(Debug, Args)]
pub(super) struct ServeArgs {
    /// TOML file with settings
    #[arg(long, env = "CODE_EXPLAINER_CONFIG", value_name = "FILE")]
    pub(super) config: Option<PathBuf>,

    #[command(flatten, next_help_heading = "Addresses")]
    pub(super) addresses: AddressArgs,
    #[command(flatten, next_help_heading = "Model")]
    pub(super) model: ModelArgs,
    #[command(flatten, next_help_heading = "Access")]
    pub(super) access: AccessArgs,
    #[command(flatten, next_help_heading = "Connections")]
    pub(super) connections: ConnectionArgs,
    #[command(flatten, next_help_heading = "Connections")]
    pub(super) bodies: BodyArgs,
    #[command(flatten, next_help_heading = "Limits")]
    pub(super) limits: LimitArgs,
    #[command(flatten, next_help_heading = "Streams")]
    pub(super) streams: StreamArgs,
    #[command(flatten, next_help_heading = "Scheduling and health")]
    pub(super) scheduling: SchedulingArgs,
    #[command(flatten, next_help_heading = "Cache")]
    pub(super) cache: CacheArgs,
    #[command(flatten, next_help_heading = "Cache")]
    pub(super) cache_memory: CacheMemoryArgs,
    #[command(flatten, next_help_heading = "Embeddings")]
    pub(super) embed: EmbedArgs,
    #[command(flatten, next_help_heading = "Redis")]
    pub(super) redis: RedisArgs,
    #[command(flatten, next_help_heading = "Retrieval")]
    pub(super) retrieval: RetrievalArgs,
    #[command(flatten, next_help_heading = "Operation")]
    pub(super) operation: OperationArgs,
}

#[derive(Debug, Args)]
pub(super) struct AddressArgs {
    /// Where gRPC is served; port 0 picks a free one, which the log tells
    #[arg(long, env = "CODE_EXPLAINER_LISTEN", value_name = "HOST:PORT")]
    #[arg(default_value = "127.0.0.1:50051", value_parser = address)]
    pub(super) listen: SocketAddr,

    /// Where /metrics, /healthz and /readyz are served over HTTP
    #[arg(long, env = "CODE_EXPLAINER_HTTP_LISTEN", value_name = "HOST:PORT")]
    #[arg(default_value = "127.0.0.1:9464", value_parser = address)]
    pub(super) http_listen: SocketAddr,
}

#[derive(Debug, Args)]
pub(super) struct CacheArgs {
    /// Answers kept in memory; 0 turns the memory cache off
    #[arg(
        long,
        env = "CODE_EXPLAINER_CACHE_SIZE",
        default_value_t = 10000,
        value_name = "N"
    )]
    pub(super) cache_size: u64,

    /// The largest answer that is kept, in bytes
    #[arg(long, env = "CODE_EXPLAINER_CACHE_MAX_ANSWER_BYTES", value_name = "N")]
    #[arg(default_value_t = 1 << 20)]
    pub(super) cache_max_answer_bytes: usize,

    /// Seconds that a cached answer lives
    #[arg(
        long,
        env = "CODE_EXPLAINER_CACHE_TTL",
        default_value_t = 3600,
        value_name = "SECONDS"
    )]
    pub(super) cache_ttl: u64,

    /// Secret of the installation, the same on all replicas: the names of cached answers and the message authentication
    /// codes of what is stored in Redis follow from it. With --redis-url and without it, who can read Redis can try out
    /// whether some code was explained, and who can write to it can forge answers; the start warns
    #[arg(
        long,
        env = "CODE_EXPLAINER_CACHE_SECRET",
        default_value = "",
        value_name = "SECRET"
    )]
    #[arg(hide_env_values = true, hide_default_value = true)]
    pub(super) cache_secret: String,
}

#[derive(Debug, Args)]
pub(super) struct OperationArgs {
    /// This server's name in receipts, logs and traces; by default the host's name
    #[arg(long, env = "CODE_EXPLAINER_REPLICA", value_name = "NAME")]
    pub(super) replica: Option<String>,

    /// Send one trace per item to this OTLP collector, such as http://127.0.0.1:4317. Off without it. The protocol is gRPC,
    /// or that of OTEL_EXPORTER_OTLP_PROTOCOL: grpc or http/protobuf
    #[arg(long, env = "CODE_EXPLAINER_OTLP_ENDPOINT", value_name = "URL")]
    pub(super) otlp_endpoint: Option<String>,

    /// After SIGTERM, the time in which running items are finished before they are given up
    #[arg(
        long,
        env = "CODE_EXPLAINER_DRAIN_TIMEOUT",
        default_value = "30s",
        value_name = "TIME"
    )]
    pub(super) drain_timeout: humantime::Duration,

    /// What is logged: error, warn, info, debug, trace, or a filter such as info,code_explainer=debug
    #[arg(
        long,
        env = "CODE_EXPLAINER_LOG",
        default_value = "info",
        value_name = "FILTER"
    )]
    pub(super) log: String,

    /// Shape of the log: text or json, on standard error
    #[arg(long, env = "CODE_EXPLAINER_LOG_FORMAT", default_value = "text")]
    pub(super) log_format: LogFormat,
}

impl ServeArgs {
    /// What one value alone cannot tell.
    pub(super) fn validate(self) -> Result<Config, String> {
        let Self {
            addresses,
            access,
            connections,
            bodies,
            model,
            limits,
            streams,
            scheduling,
            cache,
            cache_memory,
            embed,
            redis,
            retrieval,
            operation,
            ..
        } = self;
        for (flag, value, most) in [
            ("batch-size", limits.batch_size.unwrap_or(1), 4096),
            ("step-tokens", limits.step_tokens.unwrap_or(1), 1 << 20),
            ("queue-items", limits.queue_items, 1 << 24),
            ("stream-items", limits.stream_items, MAX_STREAM_ITEMS),
            ("max-code-bytes", limits.max_code_bytes, 1 << 28),
            ("max-new-tokens", limits.max_new_tokens, 1 << 20),
            (
                "default-max-new-tokens",
                limits.default_max_new_tokens,
                1 << 20,
            ),
            (
                "kv-cache-tokens",
                model.kv_cache_tokens.unwrap_or(1),
                1 << 30,
            ),
            ("kv-block-tokens", model.kv_block_tokens, 4096),
            (
                "cache-max-answer-bytes",
                cache.cache_max_answer_bytes,
                1 << 30,
            ),
        ] {
            if value == 0 || value > most {
                return Err(format!("--{flag} is {value}, expected 1 to {most}"));
            }
        }
        if model.threads > 1024 {
            return Err(format!(
                "--threads is {}, expected 0 to 1024",
                model.threads
            ));
        }
        let code_cpu_time = limits.code_cpu_time()?;
        let redact_secrets = access.redacts();
        let access = access.validate(addresses.listen)?;
        let (connections, message_bytes) = connections.validate(limits.max_code_bytes)?;
        let engine = model.engine()?;
        let settings = OpenSettings {
            precision: model.precision(&engine)?,
            kv_cache_tokens: model.kv_cache_tokens,
            batch_size: limits.batch_size,
            step_tokens: limits.step_tokens,
        };
        let fixed = settings.plain();
        if fixed.step.tokens < fixed.step.sequences {
            return Err(format!(
                "--step-tokens is {}, but each of the {} sequences of --batch-size needs one",
                fixed.step.tokens, fixed.step.sequences
            ));
        }
        if limits.default_max_new_tokens > limits.max_new_tokens {
            return Err(format!(
                "--default-max-new-tokens is {}, more than the {} of --max-new-tokens",
                limits.default_max_new_tokens, limits.max_new_tokens
            ));
        }
        tracing_subscriber::EnvFilter::try_new(&operation.log)
            .map_err(|e| format!("--log '{}': {e}", operation.log))?;
        if let Some(endpoint) = &operation.otlp_endpoint {
            endpoint
                .parse::<axum::http::Uri>()
                .ok()
                .filter(|uri| uri.scheme_str() == Some("http") && uri.authority().is_some())
                .ok_or_else(|| {
                    format!("--otlp-endpoint '{endpoint}': expected http://HOST:PORT")
                })?;
        }
        let cache_config = CacheConfig {
            size: cache.cache_size,
            bytes: cache_memory.cache_bytes,
            policy: cache_memory.cache_policy,
            ttl: Duration::from_secs(cache.cache_ttl),
            redis: redis.validate(&cache.cache_secret)?,
            max_answer_bytes: cache.cache_max_answer_bytes,
        };
        // It connects to nothing yet: a way to have it check its own settings.
        Cache::new(cache_config.clone()).map_err(|e| e.to_string())?;
        Ok(Config {
            listen: addresses.listen,
            http_listen: addresses.http_listen,
            access,
            redact_secrets,
            code_cpu_time,
            connections,
            request_bytes: bodies.validate(message_bytes)?,
            model: model.model,
            model_memory: model.model_memory,
            optimize: (model.optimize == Optimize::On).then_some(settings),
            devices: model.device,
            engine: EngineOptions {
                engine,
                device: DeviceSpec::Auto,
                cpu_share: CpuShare::WHOLE,
                precision: fixed.precision,
                kv_precision: model.kv_precision,
                kv_cache_tokens: fixed.kv_cache_tokens,
                block_tokens: model.kv_block_tokens,
                threads: model.threads,
            },
            scheduler: SchedulerOptions {
                queue: scheduling.queue(limits.queue_items)?,
                engine: EngineRules {
                    step: fixed.step,
                    target_itl: limits.target_itl.map(Duration::from),
                    speculation: match limits.speculation {
                        Speculation::Auto => Drafting::WherePays,
                        Speculation::Always => Drafting::Always,
                        Speculation::Off => Drafting::Never,
                    },
                    prefix_cache: limits.prefix_cache == PrefixCache::On,
                },
                supervisor: scheduling.supervisor()?,
            },
            hang_timeout: scheduling.hang()?,
            shutdown_grace: scheduling.grace()?,
            stream_items: limits.stream_items,
            stream: streams.validate(limits.max_code_bytes)?,
            request: RequestLimits {
                code_bytes: limits.max_code_bytes,
                max_new_tokens: limits.max_new_tokens,
                default_max_new_tokens: limits.default_max_new_tokens,
            },
            cache: cache_config,
            cache_normalize: cache_memory.cache_normalize,
            cache_secret: Secret(cache.cache_secret),
            embed: embed.validate(limits.max_code_bytes)?,
            retrieval: retrieval.validate()?,
            replica: operation.replica.unwrap_or_else(host_name),
            otlp_endpoint: operation.otlp_endpoint,
            drain_timeout: operation.drain_timeout.into(),
            log: operation.log,
            log_format: operation.log_format,
        })
    }
}

/// An address as written, or the first that a name stands for.
fn address(text: &str) -> Result<SocketAddr, String> {
    let mut found = text.to_socket_addrs().map_err(|e| e.to_string())?;
    found.next().ok_or_else(|| "the name has no address".into())
}

fn host_name() -> String {
    sysinfo::System::host_name().unwrap_or_else(|_| "code-explainer".into())
}
