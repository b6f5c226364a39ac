//! The command line, and what one value alone cannot tell to be wrong.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use super::access_args::{AccessArgs, ConnectionArgs, Switch};
use super::cache_memory_args::CacheMemoryArgs;
use super::embed_args::EmbedArgs;
use super::export_args::ExportArgs;
use super::key_args::KeyArgs;
use super::model_args::{ModelArgs, Optimize};
use super::quantize_args::QuantizeArgs;
use super::scheduling_args::SchedulingArgs;
use super::stream_args::StreamArgs;
use super::{Config, LogFormat, Secret};
use crate::cache::{Cache, CacheConfig, RedisConfig};
use crate::engine::{CpuShare, DeviceSpec, EngineOptions};
use crate::optimize::Wishes;
use crate::request::RequestLimits;
use crate::scheduler::{EngineRules, SchedulerOptions};

/// Explains code with a language model, over gRPC.
#[derive(Debug, Parser)]
#[command(
    name = "code-explainer-server",
    version,
    max_term_width = 100,
    after_help = "Exit codes: 0 after a clean stop, 64 for a bad setting, 66 for a model that cannot be loaded or \
                  another file that cannot be read, \
                  69 for an address that cannot be bound, 1 for anything else."
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
pub(super) struct LimitArgs {
    /// Sequences that a step works on at most. Chosen by --optimize, else 32
    #[arg(long, env = "CODE_EXPLAINER_BATCH_SIZE", value_name = "N")]
    pub(super) batch_size: Option<usize>,

    /// Tokens that a step works on at most: one for each decoding sequence, the rest for prefill. More gives a shorter
    /// time to first token, fewer a steadier stream for the others. Chosen by --optimize, else 256
    #[arg(long, env = "CODE_EXPLAINER_STEP_TOKENS", value_name = "N")]
    pub(super) step_tokens: Option<usize>,

    /// Keep the time between two tokens of a stream at this, such as 50ms, by giving steps fewer tokens and sequences than
    /// the limits above allow where that is needed. Without it only the limits count
    #[arg(long, env = "CODE_EXPLAINER_TARGET_ITL", value_name = "TIME")]
    pub(super) target_itl: Option<humantime::Duration>,

    /// Guess tokens that the answer may copy from the code, and check several in one step. auto: where measured step times
    /// say that it pays. Answers are the same with it and without
    #[arg(long, env = "CODE_EXPLAINER_SPECULATION", default_value = "auto")]
    pub(super) speculation: Speculation,

    /// Keep what was computed of prompts that begin alike, as long as the KV cache has room
    #[arg(long, env = "CODE_EXPLAINER_PREFIX_CACHE", default_value = "on")]
    pub(super) prefix_cache: PrefixCache,

    /// Items that wait at most; more are refused with RESOURCE_EXHAUSTED and the time to wait
    #[arg(
        long,
        env = "CODE_EXPLAINER_QUEUE_ITEMS",
        default_value_t = 1024,
        value_name = "N"
    )]
    pub(super) queue_items: usize,

    /// Items in flight on one stream at most
    #[arg(
        long,
        env = "CODE_EXPLAINER_STREAM_ITEMS",
        default_value_t = 256,
        value_name = "N"
    )]
    pub(super) stream_items: usize,

    /// The largest snippet, in bytes
    #[arg(
        long,
        env = "CODE_EXPLAINER_MAX_CODE_BYTES",
        default_value_t = 65536,
        value_name = "N"
    )]
    pub(super) max_code_bytes: usize,

    /// The most tokens that a request may ask for
    #[arg(
        long,
        env = "CODE_EXPLAINER_MAX_NEW_TOKENS",
        default_value_t = 1024,
        value_name = "N"
    )]
    pub(super) max_new_tokens: usize,

    /// Tokens for a request that asks for no number
    #[arg(long, env = "CODE_EXPLAINER_DEFAULT_MAX_NEW_TOKENS", value_name = "N")]
    #[arg(default_value_t = 256)]
    pub(super) default_max_new_tokens: usize,
}

/// Whether tokens are guessed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Speculation {
    /// Where it pays
    Auto,
    /// Never
    Off,
}

/// Whether beginnings of prompts are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum PrefixCache {
    /// Computed once
    On,
    /// Computed for each item
    Off,
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

    /// A Redis shared by all replicas: redis://[USER:PASSWORD@]HOST[:PORT][/DB]. Without it, only memory is used. When
    /// it is slow or gone, requests go on without it
    #[arg(
        long,
        env = "CODE_EXPLAINER_REDIS_URL",
        value_name = "URL",
        hide_env_values = true
    )]
    pub(super) redis_url: Option<String>,

    /// Secret mixed into the names of cached answers, the same on all replicas. Without it, who can read Redis can try out
    /// whether some code was explained
    #[arg(
        long,
        env = "CODE_EXPLAINER_CACHE_SECRET",
        default_value = "",
        value_name = "SECRET"
    )]
    #[arg(hide_env_values = true, hide_default_value = true)]
    pub(super) cache_secret: String,

    /// After five failures in a row, the time for which Redis is left alone
    #[arg(
        long,
        env = "CODE_EXPLAINER_REDIS_COOLDOWN",
        default_value = "1s",
        value_name = "TIME"
    )]
    pub(super) redis_cooldown: humantime::Duration,

    /// Longest wait for Redis in the way of an answer
    #[arg(
        long,
        env = "CODE_EXPLAINER_REDIS_TIMEOUT",
        default_value = "50ms",
        value_name = "TIME"
    )]
    pub(super) redis_timeout: humantime::Duration,
}

#[derive(Debug, Args)]
pub(super) struct OperationArgs {
    /// This server's name in receipts, logs and traces; by default the host's name
    #[arg(long, env = "CODE_EXPLAINER_REPLICA", value_name = "NAME")]
    pub(super) replica: Option<String>,

    /// Send one trace per item to this OTLP collector (gRPC), such as http://127.0.0.1:4317. Off without it
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
            model,
            limits,
            streams,
            scheduling,
            cache,
            cache_memory,
            embed,
            operation,
            ..
        } = self;
        for (flag, value, most) in [
            ("batch-size", limits.batch_size.unwrap_or(1), 4096),
            ("step-tokens", limits.step_tokens.unwrap_or(1), 1 << 20),
            ("queue-items", limits.queue_items, 1 << 24),
            ("stream-items", limits.stream_items, 1 << 24),
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
        let redact_secrets = access.redact_secrets == Switch::On;
        let access = access.validate(addresses.listen)?;
        let (connections, message_bytes) = connections.validate(limits.max_code_bytes)?;
        let engine = model.engine()?;
        let wishes = Wishes {
            precision: model.precision(&engine)?,
            kv_cache_tokens: model.kv_cache_tokens,
            batch_size: limits.batch_size,
            step_tokens: limits.step_tokens,
        };
        let fixed = wishes.plain();
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
            redis: cache.redis_url.map(|url| RedisConfig {
                url,
                timeout: cache.redis_timeout.into(),
                cooldown: cache.redis_cooldown.into(),
            }),
            max_answer_bytes: cache.cache_max_answer_bytes,
        };
        // It connects to nothing yet: a way to have it check its own settings.
        Cache::new(cache_config.clone()).map_err(|e| e.to_string())?;
        Ok(Config {
            listen: addresses.listen,
            http_listen: addresses.http_listen,
            access,
            connections,
            message_bytes,
            model: model.model,
            optimize: (model.optimize == Optimize::On).then_some(wishes),
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
                    speculation: limits.speculation == Speculation::Auto,
                    prefix_cache: limits.prefix_cache == PrefixCache::On,
                },
                supervisor: scheduling.supervisor()?,
            },
            shutdown_grace: scheduling.grace()?,
            stream_items: limits.stream_items,
            stream: streams.validate()?,
            request: RequestLimits {
                code_bytes: limits.max_code_bytes,
                max_new_tokens: limits.max_new_tokens,
                default_max_new_tokens: limits.default_max_new_tokens,
                redact_secrets,
            },
            cache: cache_config,
            cache_secret: Secret(cache.cache_secret),
            embed: embed.validate(limits.max_code_bytes)?,
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
